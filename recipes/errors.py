"""Errors of recipes."""

from collections.abc import Sequence
from pathlib import Path

SHOWN = 50
"""Most problems that a message lists."""


class RecipeError(Exception):
    """A recipe is invalid; lists every problem with its place."""

    def __init__(self, path: Path, problems: Sequence[str], *, more: int = 0) -> None:
        """`more` is the number of problems that are not in `problems`."""
        self.path, self.problems = path, tuple(problems)
        total = len(problems) + more
        count = f"{total} problem" + ("s" if total != 1 else "")
        lines = [f"  {problem}" for problem in self.problems[:SHOWN]]
        if total > SHOWN:
            lines.append(f"  and {total - SHOWN} more")
        super().__init__("\n".join([f"{path}: {count}", *lines]))
