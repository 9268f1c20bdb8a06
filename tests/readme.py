"""Writes the file tree into the README: `python -m tests.readme`. A test compares it."""

import ast
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


if __name__ == "__main__":
    file = ROOT / "README.md"
    file.write_text(with_tree(file.read_text()))
