"""What is printed, whoever wrote it."""

import pytest

from pipeline.cli.boundary import LINE, LINES, WORD, shorten_message
from pipeline.cli.output import Output

HOSTILE = "a\x1b[31m\x9b2J\u202eb\r"


def test_nothing_that_others_wrote_moves_the_cursor(capsys: pytest.CaptureFixture[str]):
    out = Output(color=False)
    out.line(HOSTILE)
    out.rows([{"name": HOSTILE}], id_column="name")
    for say in (out.say, out.warn, out.error):
        say(HOSTILE)
    shown = "".join(capsys.readouterr())
    assert shown.count("\\x1b[31m\\x9b2J\\u202eb") == 5
    assert not set(shown) & set("\x1b\x9b\u202e\r")


def test_columns_of_numbers_with_gaps_are_aligned_at_the_right(capsys: pytest.CaptureFixture[str]):
    Output(color=False).rows([{"n": 1.5, "x": "a"}, {"n": None, "x": "b"}], id_column="n")
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == ["  n  x", "1.5  a", "  -  b"]


def test_a_message_shows_the_ends_of_long_words_and_lines_and_the_first_of_many():
    assert shorten_message("a message\n  of two lines") == "a message\n  of two lines"
    word = "x" * 5000 + "end"
    assert shorten_message(f"a {word}: b") == f"a {'x' * 225}...{'x' * 71}end: b"
    assert len(shorten_message("x y " * 5000)) == LINE + 3
    assert shorten_message("line\n" * 5000).splitlines()[LINES:] == ["... 4800 more lines"]
    assert shorten_message("x" * WORD) == "x" * WORD
