"""What can be wrong with a recipe."""

from collections.abc import Sequence
from pathlib import Path


class RecipeError(Exception):
    """The recipe is wrong: every problem found, each with its place."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        self.path, self.problems = path, tuple(problems)
        count = f"{len(problems)} problem" + ("s" if len(problems) != 1 else "")
        super().__init__("\n".join([f"{path}: {count}", *(f"  {problem}" for problem in problems)]))
