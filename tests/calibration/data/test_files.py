"""Every kind of source with every kind of content, and the bytes that are not what they should be."""

import json
import os
import resource
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calibration.data.chats import Chat
from calibration.data.fields import Exchange
from calibration.data.scan import scan
from calibration.data.table_files import BATCH_ROWS, Parquet
from calibration.data.text_files import KINDS as FILES
from calibration.errors import DataError
from tests.calibration.data.written import KINDS, contents, csv_of, files_of, scanned, write

TURNS = [{"role": "user", "content": 'say "hi",\nplease'}, {"role": "assistant", "content": "hi é"}]
TOOLS = [{"type": "function", "function": {"name": "add"}}]
CHAT = Chat(tuple(TURNS))

CONTENTS: dict[str, tuple[list[dict[str, Any]], list[Any]]] = {
    "text": ([{"text": f"row {i}, of é"} for i in range(7)], [f"row {i}, of é" for i in range(7)]),
    "messages": ([{"messages": TURNS}] * 2, [CHAT] * 2),
    "messages and tools": ([{"messages": TURNS, "tools": TOOLS}], [Chat(tuple(TURNS), tuple(TOOLS))]),
    "conversations": (
        [{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}],
        [Chat(({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}))],
    ),
    "completion": ([{"id": 3, "prompt": "p", "completion": "c"}], [Exchange("p", "c")]),
    "response": ([{"prompt": "p", "response": "r"}], [Exchange("p", "r")]),
    "instruction": (
        [
            {"instruction": "add", "input": "1, 2", "output": "3"},
            {"instruction": "greet", "input": "", "output": "hi"},
        ],
        [Exchange("add\n\n1, 2", "3"), Exchange("greet", "hi")],
    ),
}


@pytest.mark.parametrize(
    ("kind", "content"),
    [(kind, content) for content in CONTENTS for kind in KINDS if kind != "txt" or content == "text"],
)
def test_every_kind_of_source_gives_every_kind_of_content(kind: str, content: str, tmp_path: Path):
    rows, expected = CONTENTS[content]
    found = scanned(kind, write(kind, tmp_path / "data", rows))
    assert contents(found) == expected
    assert found.shape.kind == content.partition(" ")[0]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_read_in_any_order_with_their_lines(kind: str, tmp_path: Path):
    rows = [{"text": f"row {i}"} for i in range(7)]
    found = scanned(kind, write(kind, tmp_path / "data", rows))
    picks = [6, 0, 4, 3, 1]
    samples = list(found.read(picks))
    assert [sample.content for sample in samples] == [f"row {i}" for i in picks]
    lines = {
        "jsonl": [7, 1, 5, 4, 2],
        "csv": [8, 2, 6, 5, 3],
        "txt": [13, 1, 9, 7, 3],
        "parquet": [7, 1, 5, 4, 2],
        "arrow": [3, 1, 1, 4, 2],  # numbered in each of the two files: four rows and three
    }
    assert [sample.line for sample in samples] == lines[kind]


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow"])
def test_columns_are_those_of_the_table_and_can_be_named(kind: str, tmp_path: Path):
    target = write(kind, tmp_path / "data", [{"question": "q", "answer": "a", "title": "t"}])
    with pytest.raises(DataError, match=r"no field of 'text', .*; there is 'question', 'answer', 'title'"):
        scanned(kind, target)
    named = scanned(kind, target, {"prompt": "question", "completion": "answer", "input": "title"})
    assert contents(named) == [Exchange("q\n\nt", "a")]
    assert contents(scanned(kind, target, {"text": "title"})) == ["t"]
    with pytest.raises(DataError, match=r"no field 'body'; there is 'question', 'answer', 'title'"):
        scanned(kind, target, {"text": "body"})


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "arrow"])
def test_a_bad_row_is_named_by_its_line_or_row(kind: str, tmp_path: Path):
    rows = [{"text": "good", "other": "x"}, {"text": " ", "other": "x"}, {"text": "good", "other": "x"}]
    target = write(kind, tmp_path / "data", rows)
    last = files_of(kind, target)[0].name
    place = {"jsonl": ":2", "csv": ":3"}.get(kind, ": row 2")
    with pytest.raises(DataError, match=rf"{last}{place}: field 'text' is empty"):
        scanned(kind, target)
    assert len(contents(scanned(kind, target, allowed=1))) == 2


def test_rows_of_a_csv_file_are_counted_through_quoted_newlines(tmp_path: Path):
    path = tmp_path / "data.csv"
    path.write_bytes(b'\xef\xbb\xbfid,text\r\n1,"two\r\nlines"\r\n\r\n2,"one ""q"""\r\n3,\r\n4,last')
    with pytest.raises(DataError, match=r"data\.csv:6: field 'text' is empty"):
        scanned("csv", path)
    found = scanned("csv", path, allowed=1)
    assert [(s.line, s.content) for s in found.read([2, 1, 0])] == [
        (7, "last"), (5, 'one "q"'), (2, "two\r\nlines"),
    ]  # fmt: skip


BROKEN_CSV = {
    "ragged": (b"id,text\n1,a\n2,b,c\n", r":3: 3 fields, the header has 2"),
    "short": (b"id,text\n1,a\n2\n", r":3: 1 fields, the header has 2"),
    "no column": (b"id,body\n1,a\n", r"data\.csv: no field of 'text'"),
    "NUL": (b"text\na\nb\0c\n", r":3: field 'text' has a NUL at character 2"),
    "NUL in the header": (b"te\0xt\na\n", r"no field of 'text'"),
    "not UTF-8": (b"text\na\ncaf\xe9\n", r":3: field 'text' is not UTF-8"),
    "stray quote": (b'text\na\n"b"c\nd\n', r":3: not valid CSV"),
    "open quote": (b'text\na\n"b\nc\n', r":3: not valid CSV \(unexpected end of data\)"),
    "column twice": (b"text,text\na,b\n", r":1: column 'text' is repeated in the header"),
    "header only": (b"text\n", r":1: the file has no rows; give a header"),
    "empty": (b"", r":1: the file has no rows; give a header"),
    "blank lines": (b"\n\n\n", r":1: the file has no rows; give a header"),
}


@pytest.mark.parametrize("case", BROKEN_CSV)
def test_a_broken_csv_file_is_refused_with_its_line(case: str, tmp_path: Path):
    data, said = BROKEN_CSV[case]
    path = tmp_path / "data.csv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=said):
        scanned("csv", path)


def test_a_csv_file_goes_on_after_a_broken_record(tmp_path: Path):
    path = tmp_path / "data.csv"
    path.write_bytes(b'text\na\n"b"c\nd\n')
    assert contents(scanned("csv", path, allowed=1)) == ["a", "d"]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_row_of_ten_megabytes_is_a_row(kind: str, tmp_path: Path):
    rows = [{"text": "word " * 2_000_000}, {"text": "short"}]
    path = tmp_path / f"data.{kind}"
    path.write_text(csv_of(rows) if kind == "csv" else "".join(json.dumps(row) + "\n" for row in rows))
    assert [len(text) for text in contents(scanned(kind, path))] == [10_000_000, 5]


HOLES = {
    "jsonl": (b'{"text": "a"}\n', "2: a row of more than 16,777,216 bytes"),
    "txt": (b"a\n\n", "3: a row of more than 16,777,216 bytes"),
    "csv": (b'text\na\n"', "3: a row of more than 16,777,216 bytes"),
}


@pytest.mark.parametrize("kind", HOLES)
def test_a_file_that_takes_no_space_and_has_no_line_ends_takes_no_memory_either(kind: str, tmp_path: Path):
    start, said = HOLES[kind]
    path = tmp_path / f"hole.{kind}"
    path.write_bytes(start)
    os.truncate(path, 100 << 30)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=rf"hole\.{kind}:{said}"):
        scan([FILES[kind](path)], kind, {}, budget_bytes=1 << 20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held < 500 << 10


def test_a_record_of_many_short_lines_ends_too(tmp_path: Path):
    path = tmp_path / "open.csv"
    path.write_bytes(b'text\n"' + (b"a" * 4000 + b'","\n') * 9000)
    with pytest.raises(DataError, match=r"open\.csv:2: a row of more than 16,777,216 bytes"):
        scan([FILES["csv"](path)], "csv", {}, budget_bytes=1 << 20)


def test_a_row_group_that_would_fill_the_memory_is_refused(tmp_path: Path):
    path = tmp_path / "bomb.parquet"
    pq.write_table(pa.table({"text": ["x" * (4 << 20)]}), path, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 10_000
    assert Parquet(path).names() == ["text"]
    with pytest.raises(
        DataError, match=r"row group 0 unpacks to 4,194,\d+ bytes, at most 1,048,576 are read"
    ):
        Parquet(path, group_bytes=1 << 20).names()


def shared(count):
    """So many times the same 8 MB of text, which is in the file once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array(["x" * (8 << 20)]))


def test_a_text_that_many_rows_share_is_read_row_by_row(tmp_path: Path):
    path = tmp_path / "shared.parquet"
    pq.write_table(pa.table({"text": shared(300)}), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 10_000  # and 2.4 GB as Python values
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert scan([Parquet(path)], "parquet", {}).rows == 300
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held < 500 << 10


def test_a_row_that_repeats_a_text_without_end_is_refused(tmp_path: Path):
    path = tmp_path / "row.parquet"
    turn = pa.StructArray.from_arrays([shared(1000), shared(1000)], ["role", "content"])
    rows = pa.ListArray.from_arrays(pa.array([0, 1000], pa.int32()), turn)
    pq.write_table(pa.table({"messages": rows}), path, compression="zstd", store_schema=False)
    with pytest.raises(
        DataError, match=r"row\.parquet: row 1: a row of 16,777,\d+,\d+ bytes; at most 16,777,216"
    ):
        scan([Parquet(path)], "parquet", {})


@pytest.mark.parametrize("keep", [0, 3, 4, 100, -1, -8])
def test_a_truncated_parquet_file_is_refused(keep: int, tmp_path: Path):
    path = write("parquet", tmp_path / "data", [{"text": "some words"}] * 50)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        DataError, match=r"data\.parquet: not a whole table \(.*\); write or get the file again"
    ):
        scanned("parquet", path)


def test_damage_inside_a_parquet_file_names_the_file(tmp_path: Path):
    path = write("parquet", tmp_path / "data", [{"text": f"some words {i}"} for i in range(50)])
    data = bytearray(path.read_bytes())
    data[4:60] = b"\xff" * 56
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"data\.parquet"):
        contents(scanned("parquet", path))


def test_a_parquet_file_without_rows_is_refused(tmp_path: Path):
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    with pytest.raises(DataError, match=r"data\.parquet:1: the file has no rows"):
        scanned("parquet", path)


def test_text_in_a_table_that_is_not_utf8_is_the_fault_of_its_row(tmp_path: Path):
    path = tmp_path / "data.parquet"
    raw = pa.array([b"good", b"caf\xe9", b"fine"]).view(pa.string())
    pq.write_table(pa.table({"text": raw}), path)
    with pytest.raises(DataError, match=r"data\.parquet: row 2: text that is not UTF-8 at byte 4"):
        scanned("parquet", path)
    assert contents(scanned("parquet", path, allowed=1)) == ["good", "fine"]


def test_rows_beyond_one_batch_keep_their_numbers(tmp_path: Path):
    rows = [{"text": f"row {i}"} for i in range(2 * BATCH_ROWS + 3)]
    rows[BATCH_ROWS + 1]["text"] = ""
    target = write("parquet", tmp_path / "data", rows)
    with pytest.raises(DataError, match=rf"row {BATCH_ROWS + 2}: field 'text' is empty"):
        scanned("parquet", target)


def test_nulls_of_a_table_are_absent_values(tmp_path: Path):
    turns = [
        {"role": "user", "content": "add", "name": None},
        {"role": "tool", "content": "3", "name": "sum"},
    ]
    rows: list[dict[str, Any]] = [{"messages": turns, "tools": None}, {"messages": None, "tools": None}]
    found = scanned("parquet", write("parquet", tmp_path / "data", rows), allowed=1)
    assert contents(found) == [
        Chat(({"role": "user", "content": "add"}, {"role": "tool", "content": "3", "name": "sum"}))
    ]
    assert found.skipped == (
        "data.parquet:2: field 'messages' is a JSON null; it must be a list of messages",
    )


def test_a_saved_directory_reads_as_datasets_itself_reads_it(tmp_path: Path):
    rows = [{"text": f"row {i}", "label": i} for i in range(20)]
    whole = datasets.Dataset.from_list(rows).shuffle(seed=3).select(range(3, 15))
    datasets.DatasetDict(train=whole, test=whole.select([1])).save_to_disk(tmp_path / "saved")
    expected = datasets.load_from_disk(tmp_path / "saved")["train"]["text"]
    (file,) = files_of("arrow", tmp_path / "saved", "train")
    assert contents(scanned("arrow", file.parent)) == list(expected)


SAVED = {
    "no such split": ("dev", r"no split 'dev'; name one of train, test in 'split'"),
    "several splits": (None, r"several splits; name one of train, test in 'split'"),
}


@pytest.mark.parametrize("case", SAVED)
def test_a_directory_of_splits_needs_one_that_it_has(case: str, tmp_path: Path):
    split, said = SAVED[case]
    one = datasets.Dataset.from_list([{"text": "a"}])
    datasets.DatasetDict(train=one, test=one).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=said):
        files_of("arrow", tmp_path / "saved", split)


def test_a_directory_that_was_not_saved_or_is_damaged_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"has neither dataset_dict\.json nor state\.json"):
        files_of("arrow", tmp_path)
    target = write("arrow", tmp_path / "data", [{"text": "a"}] * 4)
    with pytest.raises(DataError, match=r"has one split without a name, not 'train'"):
        files_of("arrow", target, "train")
    file = files_of("arrow", target)[0]
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match=rf"{file.name}: not a whole table"):
        scanned("arrow", target)
    file.unlink()
    with pytest.raises(DataError, match=r"no such file, though state\.json names it"):
        files_of("arrow", target)
    (target / "state.json").write_text("{")
    with pytest.raises(DataError, match=r"state\.json: not readable as JSON"):
        files_of("arrow", target)


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_keys_that_only_other_rows_of_a_table_have_are_absent_and_nulls_in_json_text_stay(
    kind: str, tmp_path: Path
):
    def row(function) -> dict[str, Any]:
        call = {"role": "assistant", "content": None, "tool_calls": [{"function": function}]}
        return {"messages": [TURNS[0], call], "tools": json.dumps([{"name": "f", "default": None}])}

    rows = [row({"name": "f", "arguments": {"a": 1}}), row({"name": "f", "arguments": {"b": [None]}})]
    found = contents(scanned(kind, write(kind, tmp_path / "data", rows)))
    calls = [chat.messages[1] for chat in found]
    assert calls == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}],
        },
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "f", "arguments": {"b": [None]}}}],
        },
    ]
    assert [chat.tools for chat in found] == [({"name": "f", "default": None},)] * 2
    texts = [row({"name": "f", "arguments": '{"a": null}'})] * 2
    found = contents(scanned(kind, write(kind, tmp_path / "texts", texts)))
    assert [chat.messages[1]["tool_calls"][0]["function"]["arguments"] for chat in found] == [{"a": None}] * 2


def test_categories_of_numbers_and_empty_tables_are_read(tmp_path: Path):
    numbers = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int32()), pa.array([5, 6]))
    table = pa.table({"text": ["a", "b"], "label": numbers})
    pq.write_table(table, tmp_path / "t.parquet")
    assert scan([Parquet(tmp_path / "t.parquet")], "parquet", {}).rows == 2
