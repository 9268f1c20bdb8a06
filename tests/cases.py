"""Inputs that failed for users, each a folder of `tests/cases/` with its README: `lay_out` puts one together."""

import shutil
from pathlib import Path

CASES = Path(__file__).resolve().parent / "cases"
BASE = CASES / "base"
"""The tiny model and the data that cases share; a case's folder holds what is its own."""

LACKING = {"sentencepiece-only": ("model/tokenizer.json", "model/chat_template.jinja")}
"""Files of the base that a case's model does not have."""


def lay_out(name: str, where: Path) -> Path:
    """Copies the case into `where`, the base first; returns its recipe."""
    for layer in (BASE, CASES / name):
        shutil.copytree(layer, where, dirs_exist_ok=True)
    for file in LACKING.get(name, ()):
        (where / file).unlink()
    return where / "recipe.yaml"
