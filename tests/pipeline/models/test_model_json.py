"""Reading the JSON of a model directory that somebody else wrote."""

import os
import socket
from pathlib import Path

import pytest

from pipeline.errors import SourceError
from pipeline.models.model_json import MODEL, Limits, parse_json, read_json, shortened


def test_an_object_is_read(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"a": [1, {"b": "\\u00e4\\"]}"}], "é": 1.5}', encoding="utf-8")
    assert read_json(tmp_path / "config.json") == {"a": [1, {"b": 'ä"]}'}], "é": 1.5}


def test_a_link_to_a_file_is_read(tmp_path: Path):
    (tmp_path / "blob").write_text("{}")
    (tmp_path / "config.json").symlink_to("blob")
    assert read_json(tmp_path / "config.json") == {}


def make_socket(path) -> None:
    os.chdir(path.parent)  # a socket's path has 107 bytes at most
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "is a FIFO; it must be a regular file"),
        (os.mkdir, "is a directory; it must be a regular file"),
        (make_socket, "is a socket; it must be a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device; it must be a regular file"),
        (lambda path: path.symlink_to(path), "cannot be read"),
        (lambda path: path.symlink_to("nothing"), "is a link to nothing, which does not exist"),
    ],
    ids=["fifo", "directory", "socket", "device", "loop", "dangling"],
)
@pytest.mark.timeout(5)
def test_what_is_no_regular_file_is_refused_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make, said: str
):
    monkeypatch.chdir(tmp_path)  # and back, wherever the socket is bound
    make(tmp_path / "config.json")
    with pytest.raises(SourceError, match=rf"{tmp_path}/config\.json: .*{said}"):
        read_json(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "not valid JSON"),
        (b"[]", r"not a JSON object but \[\]"),
        (b'"\xff"', r"not valid JSON \(.*utf-8"),
        ("{}".encode("utf-16"), "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON .*BOM"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the name 'c' appears twice"),
        (b'{"a": ' + b"9" * 401 + b"}", r"the number 9{12}\.\.\. has 401 characters, at most 400"),
        (b'{"a": 0.' + b"1" * 400 + b"}", "has 402 characters, at most 400"),
        (b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}", "nested 65 deep; at most 64"),
        (b'{"a": ' * 100_000 + b"0" + b"}" * 100_000, "nested 100000 deep"),
        (b"[" * 100_000, "nested 100000 deep"),
        (b'{"a": "' + b'\\"' * 3 + b"[" * 70 + b'", "b": ' + b"[" * 70, "nested 71 deep"),
        (b'{"a": [' + b"0," * MODEL.values + b"0]}", "values and names; at most 1200000"),
        (b'{"a": ' + b'""' * 1_300_000 + b"}", "values and names; at most 1200000"),
        (b" " * ((32 << 20) + 1), "more than 33554432 bytes"),
    ],
    ids=range(15),
)
def test_what_is_no_bounded_object_is_refused(text: bytes, said: str):
    with pytest.raises(SourceError, match=f"config.json: .*{said}"):
        parse_json(text, "config.json")


def test_brackets_in_strings_nest_nothing():
    text = b'{"a": "' + b"[" * 1000 + b'\\\\", "b\\"[[[": "' + b"{" * 1000 + b'"}'
    assert parse_json(text, "x", Limits(10_000, 10_000, depth=1)).keys() == {"a", 'b"[[['}


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (10**300, "a number of 301 digits"),
        (10**18, "1000000000000000000"),
        ("x" * 1000, f"'{'x' * 99}..."),
        ([1] * 9, "a list of 9"),
        ({"factor": 4.0, "rope_type": "yarn"}, "{'factor': 4.0, 'rope_type': 'yarn'}"),
        ([{}], "a list of 1"),
        ({"a": []}, "an object of 1"),
        (None, "null"),
        (True, "true"),
    ],
)
def test_values_are_shown_in_one_short_line(value, line: str):
    assert shortened(value) == line
