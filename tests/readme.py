"""Writes the file tree into the README: `python -m tests.readme`. A test compares it. And reads its sessions."""

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("recipes", "artifacts", "calibration", "pipeline")
START, END = "<!-- tree:start -->\n", "<!-- tree:end -->\n"


def tree() -> str:
    """One line per module: its path and the first line of its docstring."""
    lines = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            doc = ast.get_docstring(ast.parse(path.read_text())) or ""
            name = path.relative_to(ROOT).as_posix()
            lines.append(f"{name:<42} {doc.splitlines()[0]}")
    return "```\n" + "\n".join(lines) + "\n```\n"


def with_tree(readme: str) -> str:
    """The README with the tree of today between its markers."""
    before, _, rest = readme.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}{tree()}{END}{after}"


@dataclass
class Call:
    """A command in a console session of the README."""

    command: str
    """On one line, with its remark."""
    output: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    """What it prints where it is typed a second time."""


def sessions(readme: str) -> list[Call]:
    """Every command behind a `$` of the console blocks, once, with the lines that are shown below it."""
    found: dict[str, Call] = {}
    for block in re.findall(r"```console\n(.*?)```", readme, re.DOTALL):
        lines: list[str] = []
        for line in block.replace("\\\n", " ").splitlines():
            if not line.startswith("$ "):
                lines.append(line)
                continue
            command = re.sub(r"\s+", " ", line.removeprefix("$ ")).strip()
            lines = found[command].again if command in found else []
            found.setdefault(command, Call(command, lines))
    return list(found.values())


if __name__ == "__main__":
    file = ROOT / "README.md"
    file.write_text(with_tree(file.read_text()))
