"""What is no YAML is refused with its place, in words, whatever the parser makes of it."""

import pytest
import yaml

from recipes import yaml_text
from tests.mutants import HEADS
from tests.odd import VALUES

BODY = "version: 1\nname: "


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"%YAML {'9' * 5000}.1\n---\na: 1\n", "1:"),
        (f"%YAML 1.{'9' * 5000}\n---\na: 1\n", "1:"),
        (BODY + '"\\UFFFFFFFF"\n', "2:"),
        (BODY + '"\\U00110000"\n', "2:"),
        (BODY + "a\0b\n", "2:8: a NUL character is not allowed in YAML"),
        ("\0v\0e", "1:1: a NUL character"),
        (BODY + "a\x1bb\n", "2:8: the control character U+001B"),
        ("a: &x 1\nb: &x 2\n", "2:4: this anchor is set a second time"),
        ("a: 1\n---\nb: 2\n", "2:1: a second document begins here"),
    ],
)
def test_what_the_parser_stumbles_over_is_told_with_its_place(text: str, said: str):
    for read in (yaml_text.parse, yaml_text.parse_card):
        with pytest.raises(yaml.YAMLError) as refused:
            read(text)
        assert yaml_text.format_error(refused.value).startswith(said)


@pytest.mark.parametrize("head", ["", *HEADS], ids=lambda head: repr(head[:12]))
def test_nothing_but_an_error_of_yaml_comes_of_any_text(head: str):
    assert max(len(told(head + BODY + value)) for value in VALUES) < 6000


def told(text: str) -> str:
    """What is said against a text; empty where it is read."""
    try:
        yaml_text.parse(text)
    except yaml.YAMLError as exc:
        return yaml_text.format_error(exc)
    return ""
