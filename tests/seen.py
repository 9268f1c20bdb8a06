"""Recipes that ended in a traceback, a hang or a full memory, each as a file; what is expected of each."""

import os
from pathlib import Path

from tests.main_job import DEMO, write_recipe
from tests.odd import MANY_ALIASES

DIGITS = "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
NINE_AXES = ", ".join(f"engine.options.a{axis}: [{DIGITS}]" for axis in range(9))
NINE_SETTINGS = ", ".join(f"options.a{axis}: [{DIGITS}]" for axis in range(9))

ADDED = {
    "an unknown key with brackets": ("foo[1]: 1", r"foo\[1\]: unknown key"),
    "a key that is a list": ("? [a]\n: 1", "a key that is a list or a mapping is not text"),
    "an alias of itself": ("a: &a [*a]", r"\*a contains itself"),
    "3,000 brackets": ("a: " + "[" * 3000 + "]" * 3000, "nested too deep"),
    "a bomb of aliases": (MANY_ALIASES, "more than 20000 values"),
    "an axis that is a number": ("matrix: {1: [a]}", "key '1' is not text"),
    "nine axes of ten values": ("matrix: {" + NINE_AXES + "}", "matrix: 1000000000 combinations; one file may define at most 256"),
    "nine settings of ten values": ("tune: {space: {" + NINE_SETTINGS + "}}", "engine.options.a0"),
    "a setting without values": ("tune: {space: {max_batch_size: []}}", "tune.space.max_batch_size: is empty"),
    "more trials than anybody makes": ("tune: {space: {max_batch_size: [1, 2]}, budget: {trials: 9007199254740991}}", "tune.budget.trials: "),
}  # fmt: skip
"""What it is -> a line more, and what is said of it."""

VALUES = {
    "a month that is none": ("calibration.date", "2024-13-45", "calibration.date: '2024-13-45' is not a date"),
    "0x_": ("engine.tp", "0x_", "engine.tp: input should be a valid integer, found '0x_'"),
    "an integer of 5,000 digits": ("engine.tp", "9" * 5000, "'9{60}...' is no int that can be"),
    "a number of 309 digits": ("gate.limits.kl", "9" * 309, "is no int that is accepted"),
    "!!int x": ("engine.tp", "!!int x", "'x' is no int that can be read"),
    "true for a number": ("engine.tp", "true", "engine.tp: input should be a valid integer, found True"),
    "text for a number": ("engine.tp", "'2'", "engine.tp: input should be a valid integer, found '2'"),
    "a sexagesimal": ("engine.tp", "1:30", "engine.tp: input should be a valid integer, found '1:30'"),
    "NUL in a path": ("model.path", '"a\\0b"', "model.path: has a NUL character"),
    "a surrogate in a path": ("model.path", '"\\udcff"', "half a surrogate pair"),
    "a path of 5,000 characters": ("model.path", "a/" * 2500, "model.path: has 5000 bytes; a path has at most 4095"),
    "a name of 5,000 characters": ("gate.data.path", "x" * 4000, "gate.data.path: has a name of 4000 bytes"),
    "a model that is a file": ("model.path", str(DEMO / "model" / "config.json"), "model: .*is a file; it must be a directory"),
    "a model that is a FIFO": ("model.path", "fifo", "model: .*fifo: is a FIFO"),
    "a model that is a device": ("model.path", "/dev/zero", "model: /dev/zero: is a device"),
    "a model that is a link to itself": ("model.path", "loop", "loop: is a link that leads to itself"),
    "data that is a FIFO": ("gate.data.path", "fifo", "gate.data: .*fifo: no such data file"),
    "data that is a device": ("gate.data.path", "/dev/zero", "gate.data: .*/dev/zero: no such data file"),
    "data of one row of a terabyte": ("gate.data.path", "vast.jsonl", r"vast\.jsonl:1: a row of more than"),
}  # fmt: skip
"""What it is -> a field, its YAML, and what is said of it."""


def vast_file(path: Path) -> None:
    """Makes a terabyte that takes no room."""
    path.touch()
    os.truncate(path, 1 << 40)


INSTEAD = {
    "a FIFO for a recipe": (lambda path: os.mkfifo(path), "is a FIFO; it must be a regular file"),
    "a device for a recipe": (lambda path: path.symlink_to("/dev/zero"), "is a device; it must be a regular file"),
    "a terabyte for a recipe": (vast_file, "is larger than 1048576 bytes"),
    "a link to itself for a recipe": (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
}  # fmt: skip
"""What it is -> how to make it, and what is said of it."""


def seen(root: Path) -> dict[str, tuple[Path, str]]:
    """Lays them all out below `root`: what it is -> its file, and the pattern of what is said of it."""
    os.mkfifo(root / "fifo")
    (root / "loop").symlink_to("loop")
    (root / "vast.jsonl").touch()
    os.truncate(root / "vast.jsonl", 1 << 40)
    good = write_recipe(root / "good.yaml")
    files = {}
    for number, (name, (line, said)) in enumerate(ADDED.items()):
        (root / f"added{number}.yaml").write_text(f"{good.read_text()}{line}\n")
        files[name] = root / f"added{number}.yaml", said
    for number, (name, (field, value, said)) in enumerate(VALUES.items()):
        file = write_recipe(root / f"value{number}.yaml", **{field.replace(".", "__"): "MARK"})
        file.write_text(file.read_text().replace("MARK", value))
        files[name] = file, said
    for number, (name, (make, said)) in enumerate(INSTEAD.items()):
        make(root / f"instead{number}.yaml")
        files[name] = root / f"instead{number}.yaml", said
    return files
