"""What can be wrong with a recipe."""

from collections.abc import Sequence
from pathlib import Path

SHOWN = 50
"""Problems of a recipe that a message tells."""


class RecipeError(Exception):
    """The recipe is wrong: every problem found, each with its place."""

    def __init__(self, path: Path, problems: Sequence[str], *, more: int = 0) -> None:
        """`more` counts problems that nobody wrote out."""
        self.path, self.problems = path, tuple(problems)
        total = len(problems) + more
        count = f"{total} problem" + ("s" if total != 1 else "")
        lines = [f"  {problem}" for problem in self.problems[:SHOWN]]
        if total > SHOWN:
            lines.append(f"  and {total - SHOWN} more")
        super().__init__("\n".join([f"{path}: {count}", *lines]))
