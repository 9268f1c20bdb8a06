import json

import pytest

from calibration.errors import DataError
from calibration.rows import MAX_PROBLEMS, read, scan

GOOD = json.dumps({"text": "fine"}).encode()


def write(path, *lines, end=b"\n"):
    path.write_bytes(b"\n".join(lines) + end)
    return path


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b'{"text": "a"', r"not valid JSON \(Expecting ',' delimiter at column 13\)"),
        (b"plain words", "not valid JSON"),
        (b'["text"]', "a JSON array, not an object"),
        (b"3", "a JSON number, not an object"),
        (b"null", "a JSON null, not an object"),
        (b'{"body": "a", "id": 3}', "no field 'text' or 'messages'; the row has 'body', 'id'"),
        (b"{}", "the row has no fields"),
        (b'{"text": 5}', "field 'text' is a JSON number; it must be text"),
        (b'{"text": true}', "field 'text' is a JSON boolean"),
        (b'{"text": {"a": 1}}', "field 'text' is a JSON object"),
        (b'{"text": "  "}', "field 'text' is empty"),
        (b'{"text": "\\ud800"}', "half a surrogate pair at character 1"),
        (b'{"text": "a", "messages": []}', "both 'text' and 'messages'"),
        (b'{"messages": []}', "field 'messages' is an empty list"),
        (b'{"messages": ["hi"]}', "message 1 of field 'messages' has no 'role' and 'content'"),
        (b'{"messages": [{"role": "user"}]}', "message 1 .* has no 'role' and 'content'"),
        (b'{"messages": [{"role": "user", "content": null}]}', "'content' of message 1 is a JSON null"),
        (b'{"text": "a\0b"}', "NUL byte at position 12"),
        (b'{"text": "caf\xe9"}', "not UTF-8 at byte 14 of the row"),
        (b"", "blank line between rows"),
        (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"text": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
    ],
)
def test_a_broken_row_is_named_by_file_and_line(tmp_path, line, complaint):
    path = write(tmp_path / "rows.jsonl", GOOD, line, GOOD)
    with pytest.raises(DataError, match=rf"rows\.jsonl:2: .*{complaint}"):
        scan(path)


def test_an_empty_file_is_refused(tmp_path):
    for name in ("rows.jsonl", "rows.txt"):
        path = write(tmp_path / name, b"", b" ", end=b"")
        with pytest.raises(DataError, match=rf"{name}:1: the file holds no rows"):
            scan(path)


def test_a_missing_file_and_an_unknown_kind_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"absent\.jsonl: no such data file"):
        scan(tmp_path / "absent.jsonl")
    with pytest.raises(DataError, match=r"unknown kind of data file '\.parquet'; have \.jsonl, \.txt"):
        scan(tmp_path / "data.parquet")


def test_many_broken_rows_are_listed_together_up_to_a_limit(tmp_path):
    path = write(tmp_path / "rows.jsonl", *[b"broken"] * 50)
    with pytest.raises(DataError, match=r"rows\.jsonl:1: ") as caught:
        scan(path)
    assert len(str(caught.value).splitlines()) == MAX_PROBLEMS


def test_a_named_column_is_read_and_its_absence_names_the_fields_there_are(tmp_path):
    path = write(tmp_path / "rows.jsonl", b'{"article": "x", "text": "y"}')
    found = scan(path, "article")
    assert [row.content for row in read(found, "article", [0])] == ["x"]
    with pytest.raises(DataError, match=r"rows\.jsonl:1: no field 'body'; the row has 'article', 'text'"):
        scan(path, "body")


def test_rows_are_read_back_from_where_the_scan_saw_them(tmp_path):
    path = write(tmp_path / "rows.jsonl", *[json.dumps({"text": f"row {i} é"}).encode() for i in range(9)])
    found = scan(path)
    assert (found.rows, found.complete) == (9, True)
    assert [(row.line, row.content) for row in read(found, "auto", [7, 2])] == [
        (8, "row 7 é"),
        (3, "row 2 é"),
    ]


def test_a_byte_order_mark_windows_line_ends_and_trailing_blank_lines_are_accepted(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}\r\n\r\n\n')
    found = scan(path)
    assert [row.content for row in read(found, "auto", [0, 1])] == ["a", "b"]


def test_plain_text_is_one_sample_per_paragraph(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"\n one\n two\n\n\n\nthree\n \nfour")
    found = scan(path)
    rows = [(row.line, row.content) for row in read(found, "auto", [0, 1, 2])]
    assert rows == [(2, "one\n two"), (7, "three"), (9, "four")]


def test_plain_text_with_nul_bytes_names_the_paragraph(tmp_path):
    path = write(tmp_path / "text.txt", b"fine", b"", b"bad\0")
    with pytest.raises(DataError, match=r"text\.txt:3: NUL byte at position 4"):
        scan(path)


def test_a_byte_budget_ends_the_scan_early_and_says_so(tmp_path):
    path = write(tmp_path / "rows.jsonl", *[GOOD] * 20, b"broken")
    found = scan(path, budget_bytes=5 * (len(GOOD) + 1))
    assert (found.rows, found.complete) == (5, False)
    assert (
        found.summary()
        == f"rows.jsonl: 5 rows in the first 85 of {path.stat().st_size} bytes; the rest is checked later"
    )
    with pytest.raises(DataError, match=r"rows\.jsonl:21"):
        scan(path)


def test_a_file_that_changes_between_scan_and_read_is_noticed(tmp_path):
    path = write(tmp_path / "rows.jsonl", GOOD, GOOD)
    found = scan(path)
    write(path, GOOD, b'{"text": 1234}')
    with pytest.raises(DataError, match=r"rows\.jsonl:2: field 'text' is a JSON number"):
        list(read(found, "auto", [0, 1]))
