"""A store and a registry as enginery 0.1 wrote them; the folder's README says how they were made."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from artifacts.registry.database import connect
from tests.cases import BASE

KEPT = Path(__file__).resolve().parent / "published_0_1"

BUILDERS: list[str] = json.loads((KEPT / "builders.json").read_text())
"""Every `module:function` that 0.1 wrote into a step or a job."""


def lay_out(where: Path) -> Path:
    """Copies the inputs, the recipes and the store into `where`; returns the store."""
    shutil.copytree(BASE, where, dirs_exist_ok=True)
    for recipe in KEPT.glob("*.yaml"):
        shutil.copy(recipe, where)
    store = where / "store"
    shutil.copytree(KEPT / "store", store)
    with closing(sqlite3.connect(store / "registry.db")) as db:
        db.executescript((store / "registry.sql").read_text())
    (store / "registry.sql").unlink()
    connect(store / "registry.db").upgrade()
    return store
