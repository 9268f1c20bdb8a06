"""What no honest person hands in: places that are no files, values that are no numbers, texts that are no YAML."""

import os
import socket
from pathlib import Path

NEST = 3000

MANY_ALIASES = "bomb:\n  a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"  {name}: &{name} [{', '.join([f'*{of}'] * 9)}]\n"
    for of, name in zip("abcdefgh", "bcdefghi", strict=True)
)
"""The laugh of a billion, in some 700 bytes."""

VALUES = (
    "", "~", "true", "no", "on", "yes", "0", "-1", "1.5", "1e400", "-.inf", ".nan", "0x10", "0o17", "017", "1_000", "1:30",
    "190:20:30", "2024-13-45", "2024-01-31", "0x_", "9" * 309, "9" * 5000, "1e309", "!!int x", "!!int ''", "!!binary '*'", "!!set {a}",
    "!!omap [a]", "!!pairs [{a: 1}]", "!!python/object:os.system {}", "!unknown x", "&a [*a]", "&a {b: *a}", "*none", "{? [a] : b}",
    "{[a]: b}", "{1: 2}", "{true: 1}", "{~: 1}", "{foo[1]: 2}", "{a.b: 1}", "{<<: {a: 1}}", "{<<: [1]}", "{<<: 1}", "[]", "{}", "[[]]",
    "'\\0'", '"a\\0b"', '"\\ud800"', '"\\x1b[31m"', '"\\u202e"', "'" + "x" * 5000 + "'", "'" + "x" * 300 + "'", "'" + "a/" * 2500 + "'",
    "~nosuchuser/x", "'~nosuchuser/x'", "/dev/zero", "/dev/stdin", "/dev/full", "/proc/self/mem", "/", ".", "..", "''", "' '", "file", "fifo",
    "socket", "loop", "directory", "empty", "binary", "link-to-nothing", "file/below", "'*'", "'%s'", "'{0}'", "[" * NEST + "]" * NEST, "{a: " * NEST + "}" * NEST,
    "|\n    text\n", "!!str 1", "!!float x", "!!bool x", "!!null x", "!!timestamp x", "1e-400", "18446744073709551616", "1" + "0" * 400,
    '"\\UFFFFFFFF"', '"\\U00110000"', '"\\U0010FFFF"', '"\\xZZ"', '"\\uD83D\\uDE00"', '"\\', "!<%ff> x", "!<%zz> x", "!%C3%28 x", "|99 x", "|0\n x", ">-9+ x",
    "1" + ":59" * 400 + ".5", "!!float 1:30", "+1", "-0", "0b11", "1__0", "=", "<<", "!!merge x", "?", "- -",
)  # fmt: skip
"""YAML of values."""


def places(root: Path) -> None:
    """Makes, below `root`, one of everything that a path may lead to and that is not what is wanted."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "directory").mkdir()
    (root / "file").write_text("text\n")
    (root / "empty").write_bytes(b"")
    (root / "binary").write_bytes(bytes(range(256)) * 40)
    with (root / "vast").open("wb") as out:
        out.truncate(1 << 40)
    os.mkfifo(root / "fifo")
    (root / "loop").symlink_to("loop")
    (root / "link-to-nothing").symlink_to("nothing")
    (root / "link-to-fifo").symlink_to("fifo")
    (root / "deep.json").write_text("[" * 100_000)
    (root / "bomb.yaml").write_text(MANY_ALIASES)
    (root / os.fsdecode(b"not-utf-8-\xff")).write_text("text\n")
    here = Path.cwd()
    os.chdir(root)  # a socket's path has 107 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket")
    finally:
        os.chdir(here)


PLACES = (
    "", " ", ".", "..", "/", "nothing", "directory", "file", "empty", "binary", "vast", "fifo", "loop", "link-to-nothing", "link-to-fifo", "socket", "deep.json",
    "bomb.yaml", os.fsdecode(b"not-utf-8-\xff"), os.fsdecode(b"nothing-\xff"), "file/below", "nothing/below", "~nosuchuser/x", "x" * 300, "x" * 5000, "a/" * 2500, "a\0b", "\x1b[31m",
    "/dev/zero", "/dev/null", "/dev/full", "/dev/stdin", "/proc/self/mem", "/proc/1/cwd/x",
)  # fmt: skip
"""Paths, relative to what `places` makes."""
