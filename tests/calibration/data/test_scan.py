import json
from pathlib import Path
from typing import Any

import pytest

from calibration.data.scan import MAX_PROBLEMS, Scan, scan
from calibration.data.text_files import KINDS
from calibration.errors import DataError

GOOD = json.dumps({"text": "fine"}).encode()


def scanned(path, roles: dict[str, Any] | None = None, **options) -> Scan:
    kind = path.suffix[1:]
    return scan([KINDS[kind](path)], kind, roles or {}, **options)


def contents(found: Scan, picks=None):
    return [sample.content for sample in found.read(range(found.rows) if picks is None else picks)]


def write(path, *lines, end=b"\n"):
    path.write_bytes(b"\n".join(lines) + end)
    return path


TALK = json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode()
ASKED = json.dumps({"prompt": "p", "completion": "c"}).encode()


def _said(field: str) -> bytes:
    return ('{"messages": [{"role": "user", "content": "a", ' + field + "}]}").encode()


def _calls(calls):
    turn = '{"role": "assistant", "content": null, "tool_calls": ' + calls + "}"
    return ('{"messages": [{"role": "user", "content": "a"}, ' + turn + "]}").encode()


def _arguments(arguments: str):
    return _calls('[{"type": "function", "function": {"name": "f", "arguments": ' + arguments + "}}]")


@pytest.mark.parametrize(
    ("first", "line", "complaint"),
    [
        (GOOD, b'{"text": "a"', r"not valid JSON \(Expecting ',' delimiter at column 13\)"),
        (GOOD, b"plain words", "not valid JSON"),
        (GOOD, b'["text"]', "a JSON array, not an object"),
        (GOOD, b"3", "a JSON number, not an object"),
        (GOOD, b"null", "a JSON null, not an object"),
        (
            GOOD,
            b'{"body": "a", "id": 3}',
            "no field 'text', which the source's rows have; the row has 'body', 'id'",
        ),
        (GOOD, b"{}", "the row has no field"),
        (GOOD, b'{"text": 5}', "field 'text' is a JSON number; it must be text"),
        (GOOD, b'{"text": true}', "field 'text' is a JSON boolean"),
        (GOOD, b'{"text": {"a": 1}}', "field 'text' is a JSON object"),
        (GOOD, b'{"text": "  "}', "field 'text' is empty"),
        (GOOD, b'{"text": "\\ud800"}', "half a surrogate pair at character 1"),
        (GOOD, b'{"text": "\\u0000"}', "field 'text' has a NUL at character 1"),
        (GOOD, b'{"text": "a\0b"}', "NUL byte at position 12"),
        (GOOD, b'{"text": "caf\xe9"}', "not UTF-8 at byte 14 of the row"),
        (GOOD, b"", "blank line between rows"),
        (GOOD, b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (GOOD, b'{"text": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
        (TALK, b'{"messages": []}', "field 'messages' is an empty list"),
        (TALK, b'{"messages": "hi"}', "field 'messages' is text that is not valid JSON"),
        (TALK, b'{"messages": {"role": "user"}}', "is a JSON object; it must be a list of messages"),
        (
            TALK,
            b'{"messages": ["hi"]}',
            "message 1 of field 'messages' is not an object with 'role' and 'content'",
        ),
        (TALK, b'{"messages": [{"content": "hi"}]}', "message 1 of field 'messages' has no 'role'; fix it"),
        (TALK, b'{"messages": [{"role": "user"}]}', "message 1 .* has a 'role' and no 'content'"),
        (TALK, b'{"messages": [{"role": "user", "content": null}]}', "'content' of message 1 is a JSON null"),
        (TALK, b'{"messages": [{"role": 3, "content": "a"}]}', "'role' of message 1 is a JSON number"),
        (
            TALK,
            b'{"messages": [{"role": "user", "content": ""}]}',
            "field 'messages': every message is empty",
        ),
        (
            TALK,
            b'{"messages": [{"role": "system", "content": "a"}, {"role": "system", "content": null}]}',
            "'content' of message 2 is a JSON null",
        ),
        (TALK, b'{"messages": [{"role": "assistant", "content": null}]}', "'content' of message 1 is a JSON"),
        (TALK, _calls('"x"'), "'tool_calls' of message 2 is a JSON string; it must be a list"),
        (TALK, _calls('["x"]'), "tool call 1 of message 2 is a JSON string; it must be an object"),
        (TALK, _arguments('"{"'), "'arguments' of tool call 1 of message 2 is text that is not valid JSON"),
        (TALK, _arguments('"[1]"'), "'arguments' of tool call 1 of message 2 is a JSON array"),
        (TALK, _arguments("[1]"), "'arguments' of tool call 1 of message 2 is a JSON array"),
        (TALK, _arguments('"\\"{}\\""'), "'arguments' of tool call 1 of message 2 is a JSON string"),
        (TALK, _arguments(json.dumps("[" * 5000)), "'arguments' of tool call 1 .* not valid JSON"),
        (TALK, _arguments('{"a": "\\ud83d"}'), "'tool_calls' of message 2 has half a surrogate pair after"),
        (TALK, _arguments('{"\\ud83d": 1}'), "'tool_calls' of message 2 has half a surrogate pair after"),
        (TALK, _arguments(r'"{\"a\": \"\\ud83d\"}"'), "'tool_calls' of message 2 has half a surrogate"),
        (TALK, _arguments(r'"{\"a\": \"\\u0000\"}"'), "'tool_calls' of message 2 has a NUL after"),
        (TALK, _said('"name": "\\udfff"'), "'name' of message 1 has half a surrogate pair"),
        (TALK, _said('"reasoning_content": "\\udfff"'), "'reasoning_content' of message 1 has half a"),
        (TALK, _said('"\\udfff": 1'), "of message 1 has half a surrogate pair"),
        (TALK, _said('"role": "\\udfff"'), "'role' of message 1 has half a surrogate pair"),
        (
            TALK,
            b'{"messages": [{"role": "user", "content": "a"}], "tools": [{"a": "\\udfff"}]}',
            "field 'tools' has half a surrogate pair after",
        ),
        (
            TALK,
            b'{"messages": [{"role": "user", "content": "a"}], "tools": ["f"]}',
            "tool 1 of field 'tools' is a JSON string; it must be an object",
        ),
        (
            TALK,
            b'{"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]}',
            "part 1 of 'content' of message 1 is not text",
        ),
        (
            TALK,
            b'{"messages": [{"role": "user", "content": [{"type": "text", "text": "\\udfff"}]}]}',
            "'text' of part 1 of 'content' of message 1 has half a surrogate pair",
        ),
        (
            TALK,
            b'{"messages": [{"role": "user", "content": []}]}',
            "field 'messages': every message is empty",
        ),
        (
            TALK,
            b'{"messages": [{"from": "cat", "value": "a"}]}',
            "'from' of message 1 is 'cat'; it must be one of",
        ),
        (ASKED, b'{"prompt": "p"}', "no field 'completion'"),
        (ASKED, b'{"prompt": "p", "completion": ""}', "field 'completion' is empty"),
    ],
)
def test_a_broken_row_is_named_by_file_and_line(tmp_path: Path, first: bytes, line, complaint: str):
    path = write(tmp_path / "rows.jsonl", first, line, first)
    with pytest.raises(DataError, match=rf"rows\.jsonl:2: .*{complaint}"):
        scanned(path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (b'{"body": "a"}', r"no field of 'text', 'messages', .*; there is 'body'; name one in 'column'"),
        (b'{"text": "a", "messages": []}', "both 'text' and 'messages' are there; choose"),
        (
            b'{"prompt": "a", "completion": "b", "response": "c"}',
            "both 'prompt', 'completion' and 'prompt', 'resp",
        ),
    ],
)
def test_columns_that_could_be_read_in_no_way_or_in_several_are_refused(
    tmp_path: Path, row: bytes, said: str
):
    with pytest.raises(DataError, match=said):
        scanned(write(tmp_path / "rows.jsonl", row))


def test_what_a_message_says_beside_its_content_reaches_the_template(tmp_path: Path):
    calls = [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}]
    turns = [
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "3", "name": "add"},
    ]
    found = scanned(write(tmp_path / "rows.jsonl", json.dumps({"messages": turns}).encode()))
    (chat,) = contents(found)
    assert chat.messages == ({"role": "assistant", "content": "", "tool_calls": calls}, turns[1])


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        ({"role": "assistant", "content": "", "reasoning_content": "so"}, None),
        ({"role": "assistant", "reasoning_content": "so"}, {"content": ""}),
        (
            {"role": "assistant", "content": None, "reasoning": "so"},
            {"content": "", "reasoning_content": "so"},
        ),
        ({"role": "tool", "content": "", "tool_call_id": "1"}, None),
        ({"role": "tool", "content": None}, {"content": ""}),
        ({"role": "assistant", "content": ""}, None),
        ({"role": "user", "content": ""}, None),
        ({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": ""}]}, None),
        ({"role": "assistant", "content": "a", "extra": {"deep": None, "list": [None]}}, None),
    ],
)
def test_turns_that_servers_take_are_taken(
    tmp_path: Path, turn: dict[str, Any], expected: dict[str, Any] | None
):
    ask = {"role": "user", "content": "a"}
    found = scanned(write(tmp_path / "rows.jsonl", json.dumps({"messages": [ask, turn]}).encode()))
    (chat,) = contents(found)
    assert chat.messages == (ask, {**turn, **(expected or {})})
    assert not chat.decoded


def test_nulls_that_the_user_wrote_stay_in_arguments_and_tools(tmp_path: Path):
    arguments, tool = {"unit": None, "list": [None]}, {"name": "f", "default": None}
    row = json.loads(_arguments(json.dumps(json.dumps(arguments))))
    found = scanned(write(tmp_path / "rows.jsonl", json.dumps({**row, "tools": [tool]}).encode()))
    (chat,) = contents(found)
    assert chat.messages[1]["tool_calls"][0]["function"]["arguments"] == arguments
    assert chat.tools == (tool,)
    assert chat.decoded


@pytest.mark.parametrize("roles", [{}, {"messages": "messages", "tools": "tools"}])
def test_tools_are_read_though_the_first_rows_offer_none(tmp_path: Path, roles: dict[str, Any]):
    row = {**json.loads(TALK), "tools": [{"name": "f"}]}
    found = scanned(write(tmp_path / "rows.jsonl", TALK, json.dumps(row).encode(), TALK), roles)
    assert [chat.tools for chat in contents(found)] == [(), ({"name": "f"},), ()]
    assert found.shape.columns["tools"] == "tools"


def test_an_empty_file_is_refused(tmp_path: Path):
    for name in ("rows.jsonl", "rows.txt"):
        path = write(tmp_path / name, b"", b" ", end=b"")
        with pytest.raises(DataError, match=rf"{name}:1: the file has no rows"):
            scanned(path)


def test_many_broken_rows_are_listed_together_up_to_a_limit(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", *[b"broken"] * 50)
    with pytest.raises(DataError, match=r"rows\.jsonl:1: ") as caught:
        scanned(path)
    assert len(str(caught.value).splitlines()) == MAX_PROBLEMS


def test_a_named_column_is_read_and_its_absence_names_the_fields_there_are(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", b'{"article": "x", "text": "y"}')
    assert contents(scanned(path, {"text": "article"})) == ["x"]
    with pytest.raises(DataError, match=r"rows\.jsonl:1: no field 'body'; there is 'article', 'text'"):
        scanned(path, {"text": "body"})


def test_rows_are_read_back_from_where_the_scan_saw_them(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", *[json.dumps({"text": f"row {i} é"}).encode() for i in range(9)])
    found = scanned(path)
    assert (found.rows, found.complete) == (9, True)
    assert [(row.line, row.content) for row in found.read([7, 2])] == [
        (8, "row 7 é"),
        (3, "row 2 é"),
    ]


def test_a_byte_order_mark_windows_line_ends_and_trailing_blank_lines_are_accepted(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}\r\n\r\n\n')
    found = scanned(path)
    assert contents(found) == ["a", "b"]


def test_plain_text_is_one_sample_per_paragraph(tmp_path: Path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"\n one\n two\n\n\n\nthree\n \nfour")
    found = scanned(path)
    rows = [(row.line, row.content) for row in found.read([0, 1, 2])]
    assert rows == [(2, "one\n two"), (7, "three"), (9, "four")]


def test_plain_text_with_nul_bytes_names_the_paragraph(tmp_path: Path):
    path = write(tmp_path / "text.txt", b"fine", b"", b"bad\0")
    with pytest.raises(DataError, match=r"text\.txt:3: NUL byte at position 4"):
        scanned(path)


def test_a_byte_budget_ends_the_scan_early_and_says_so(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", *[GOOD] * 20, b"broken")
    found = scanned(path, budget_bytes=5 * (len(GOOD) + 1))
    assert (found.rows, found.complete) == (5, False)
    with pytest.raises(DataError, match=r"rows\.jsonl:21"):
        scanned(path)


def test_a_file_that_changes_between_scan_and_read_is_noticed(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", GOOD, GOOD)
    found = scanned(path)
    write(path, GOOD, b'{"text": 1234}')
    with pytest.raises(DataError, match=r"rows\.jsonl:2: field 'text' is a JSON number"):
        contents(found)


def test_rows_are_skipped_up_to_the_number_allowed_and_listed(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", b"[1]", GOOD, b'{"body": 1}', GOOD, b"{")
    found = scanned(path, allowed=3)
    assert [sample.line for sample in found.read([0, 1])] == [2, 4]
    assert [line.partition(": ")[0] for line in found.skipped] == [
        "rows.jsonl:1",
        "rows.jsonl:3",
        "rows.jsonl:5",
    ]
    with pytest.raises(
        DataError, match="3 bad rows or more, 2 may be skipped; repair them or raise"
    ) as caught:
        scanned(path, allowed=2)
    assert "rows.jsonl:5: not valid JSON" in str(caught.value)


def test_a_source_of_bad_rows_only_holds_no_rows_however_many_may_be_skipped(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", *[b"[]"] * 50)
    with pytest.raises(DataError, match="50 bad rows or more, 49 may"):
        scanned(path, allowed=49)
    with pytest.raises(DataError, match="the file has no rows"):
        scanned(path, allowed=50)


def test_several_files_are_one_source(tmp_path: Path):
    files = [
        write(tmp_path / f"{name}.jsonl", *[json.dumps({"text": f"{name}{i}"}).encode() for i in range(3)])
        for name in "ab"
    ]
    found = scan([KINDS["jsonl"](file) for file in files], "jsonl", {})
    assert contents(found, [5, 0, 1, 4]) == ["b2", "a0", "a1", "b1"]
    assert [sample.file for sample in found.read([5, 0])] == ["b.jsonl", "a.jsonl"]
