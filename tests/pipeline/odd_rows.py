"""Odd values written into a real registry, one at a time, and everything that reads it asked again.

`python -m tests.pipeline.odd_rows` tries every value in every column (about half an hour); with a number,
so many of them, chosen at random; `python -m tests.pipeline.odd_rows version.recipe` those of one column.
"""

import contextlib
import io
import json
import random
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import JSON

from artifacts.collection.registries import remember_own
from artifacts.notify.outbox import Outbox
from artifacts.registry import rows, seals, tables
from artifacts.registry.endorsement import Endorsements
from artifacts.registry.publishing import Binding
from artifacts.registry.registry import Request, open_registry, parse_policy
from artifacts.registry.retention import record_pull
from artifacts.store.local import LocalStore
from artifacts.store.opening import open_store
from artifacts.trust.provenance import Attestation
from artifacts.trust.signing import Signature
from pipeline.cli import main as cli
from pipeline.errors import EXIT_CODES
from pipeline.pages.web.registry_view import Reading
from pipeline.pages.web.web_app import application, status_of
from tests.pipeline.pages.web.conftest import Client
from tests.pipeline.published import FACTS, NAME, publication

OTHER = "other/int8"
AT = datetime(2026, 11, 20, 12, tzinfo=UTC)

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("ls",), ("ls", NAME), ("ls", OTHER), ("--json", "ls", NAME), ("show", f"{NAME}:2"), ("show", f"{NAME}@prod"),
    ("registry", "log",), ("registry", "log", NAME), ("--json", "registry", "log"), ("registry", "aliases",), ("registry", "aliases", NAME, "--history"), ("find", "--any-host"),
    ("find", "--model", "llama-8b", "--any-host", "--slo", "ttft_ms_p95=1", "--rank", "accuracy"),
    ("--json", "find", "--gpu", "h200"), ("diff", f"{NAME}:1", f"{NAME}:2"), ("registry", "policy",), ("registry", "waive",),
    ("store", "gc", "--dry-run"), ("registry", "stale", "--offline", "--all"), ("card", f"{NAME}:2"), ("registry", "subscribe",), ("registry", "notify", "--list"),
    ("promote", f"{NAME}:2", "prod", "--dry-run"), ("trust", "sign", f"{NAME}:2"), ("registry", "show"),
    ("verify", f"{NAME}:2"), ("pull", f"{NAME}:2", "{pulled}"), ("export", f"{NAME}:2", "--to", "trtllm-serve", "--out", "{out}"),
    ("verify", "--all"),
)  # fmt: skip
"""Everything that reads a registry."""

ROUTES = (
    "/", "/find", "/find?q=llama&format=fp8&sort=fastest", "/log", f"/engines/{NAME}", f"/engines/{NAME}:2",
    f"/engines/{NAME}@prod", f"/cards/{NAME}:2", f"/cards/{NAME}:2?as=markdown", f"/compare?a={NAME}:1&b={NAME}:2",
    "/metrics", "/healthz", "/api/v1/engines", "/api/v1/versions", f"/api/v1/versions/{NAME}:2",
    f"/api/v1/aliases/{NAME}", "/api/v1/events", f"/api/v1/compare?a={NAME}:1&b={NAME}:2", "/api/v1/find?tp=2",
)  # fmt: skip

TEXTS: tuple[Any, ...] = (
    None, "", 0, -1, 2**62, 1.5, float("inf"), "abc", "a\0b", b"\xff\xfe", b"a\xed\xa0\x80b", "x" * 10_000_000,
    "2026-13-45T00:00:00+00:00", "2026-01-01T00:00:00", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59",
    "../../etc/passwd", "\u202e[red]x\n", "0" * 64,
)  # fmt: skip
DOCUMENTS: tuple[Any, ...] = (
    None, 7, "", "null", "[]", "{}", "3", '"text"', "[1, 2]", "{", '{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}',
    '{"a": "\\u0000"}', "[" * 100_000, '{"a": ' + "9" * 5000 + "}", b"\xff\xfe{}", '"' + "x" * 10_000_000 + '"',
)  # fmt: skip
INSIDE: tuple[Any, ...] = (
    None,
    "text",
    "\u202e[red]x\n",
    -1,
    1e300,
    True,
    [],
    {},
    [1],
    {"a": 1},
    [[]],
    [None],
    ["a"],
)


class Case(NamedTuple):
    """One value in one column of one row."""

    table: str
    column: str
    value: Any
    what: str


@dataclass(frozen=True, slots=True)
class Place:
    """A store with its registry, as it was made; every case works on a copy of the registry."""

    root: Path
    store: LocalStore
    clients: dict[str, Client] = field(default_factory=dict)
    """The application, made once."""

    @property
    def file(self) -> Path:
        """The registry."""
        return self.store.root / "registry.db"

    @property
    def right(self) -> Path:
        """The registry as it was made."""
        return self.root / "right.db"


def make(root: Path) -> Place:
    """A store with the engines of four versions of two names, and every table with a row or more."""
    store = open_store(root / "store")
    registry = open_registry(store.registry_url)
    binding = Binding(store.id, store.url)
    for seed in (1, 2, 3):
        one = stored(
            store,
            publication(
                seed=seed,
                facts={**FACTS, "seed": seed, "gpus": [{"name": "NVIDIA H200", "driver": "570.1"}]},
                alias="candidate",
            ),
        )
        registry.publish(one, store=binding)
    registry.publish(stored(store, publication(OTHER, seed=4)), store=binding)
    registry.promote(NAME, "prod", to=1, expect=None)
    registry.promote(NAME, "prod", to=2, expect=1)
    registry.set_policy("prod", parse_policy({"max_age_days": 3000, "metrics": {"kl": {"max": 1.0}}}))
    until = datetime(2099, 1, 1, tzinfo=UTC)
    registry.waive(Request(name=NAME, number=2, alias="prod", rule="metrics", reason="agreed", until=until))
    digest_ = registry.resolve(f"{NAME}:2").manifest_digest or ""
    key = registry.resolve(f"{NAME}:2").engine_key
    kept = Endorsements(registry.database)
    said: dict[str, Any] = {"key_id": "d" * 64, "bundle": "{}", "signed_at": AT, "signed_by": "ana@ops"}
    kept.add_signature(Signature(manifest_digest=digest_, **said), key)
    kept.add_attestation(Attestation(engine_key=key, **said), digest_)
    registry.rebuild_needed(NAME, 2, ["its gate is old"])
    record_pull(registry.database, NAME, 2)
    outbox = Outbox(registry.database)
    outbox.subscribe("command", "true", names="none*")
    remember_own(store, registry.url)
    with closing(sqlite3.connect(store.root / "registry.db")) as db, db:
        db.execute("INSERT INTO delivery VALUES (1, 1, 1, NULL, NULL, 'no answer')")
    place = Place(root, store)
    shutil.copy(place.file, place.right)
    return place


def stored(store: LocalStore, one: Any) -> Any:
    """Commits an engine for a publication; returns it with the digest of its files."""
    with store.write(one.engine_key, kind="engine", step={"kind": "engine"}, host={}) as draft:
        (draft.path / "engine.json").write_text(json.dumps({"key": one.engine_key}))
    return replace(one, manifest_digest=store.manifest(one.engine_key).digest)


def cases() -> list[Case]:
    """Every odd value for every column, and odd values at every known place of a document."""
    found = []
    for table in tables.METADATA.sorted_tables:
        for column in table.c:
            document = isinstance(column.type, JSON)
            values = DOCUMENTS if document else TEXTS
            found += [Case(table.name, column.name, value, rows.printable(repr(value))) for value in values]
            if document:
                found += _inside(table.name, column.name)
    return found


KEYS = {
    "facts": (*FACTS, "target", "sm", "scored", "measured", "sequences_begin_with"),
    "recipe": ("version", "name", "format", "calibration", "model", "gate", "engine", "tune", "publish"),
    "lineage": ("source", "baseline", "engine"),
    "source": ("repo", "revision", "licence", "path", "file", "imported"),
    "detail": ("number", "alias", "was", "now", "waived", "reasons", "engine_key", "verdict", "broken"),
    "rules": ("verdict", "max_age_days", "signed_by", "metrics", "no_open_waivers", "unheard_of"),
    "kinds": (), "checks": (),
}  # fmt: skip


def _inside(table: str, column: str) -> Iterator[Case]:
    for key in KEYS[column]:
        for value in INSIDE:
            yield Case(table, column, {key: value}, f"{key}={value!r}")
    for value in INSIDE if column == "checks" else ():
        for key in ("metric", "value", "low", "limit", "outcome"):
            text = json.dumps([{"metric": "kl", "value": 0.01, "outcome": "PASS", key: value}])
            yield Case(table, column, text, f"0.{key}={value!r}")


def write(place: Place, case: Case) -> str | None:
    """Puts the value into the row of version 2, or the last one; how that is called, None if SQLite refuses."""
    key = [column.name for column in tables.METADATA.tables[case.table].primary_key]
    with closing(sqlite3.connect(place.file)) as db:
        db.execute("PRAGMA foreign_keys = OFF")
        db.row_factory = sqlite3.Row
        found = [dict(row) for row in db.execute(f'SELECT * FROM "{case.table}"')]
        row = next((one for one in found if _of_version_2(case.table, one)), found[-1])
        value = case.value
        if isinstance(value, dict):
            value = json.dumps({**json.loads(row[case.column]), **value})
        if value == row[case.column] and type(value) is type(row[case.column]):
            return None
        for trigger in ("event_no_update", "event_no_delete"):
            db.execute(f"DROP TRIGGER IF EXISTS {trigger}")
        text = isinstance(value, bytes) and case.what.startswith("b'a")
        here = " AND ".join(f'"{name}" = ?' for name in key)
        mark = "CAST(? AS TEXT)" if text else "?"
        try:
            with db:
                db.execute(
                    f'UPDATE "{case.table}" SET "{case.column}" = {mark} WHERE {here}',
                    (value, *(row[name] for name in key)),
                )
        except (sqlite3.IntegrityError, OverflowError):
            return None
    return rows.row_name(tables.METADATA.tables[case.table], row)


def _of_version_2(table: str, row: dict[str, Any]) -> bool:
    if table == "event":
        return row["kind"] == "alias_moved" and '"now": 2' in row["detail"]
    if table == "facts":
        return '"seed": 2' in row["facts"]
    return row.get("name") == NAME and row.get("number", 2) == 2


class Answer(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


def ask(place: Place, *args: str) -> Answer:
    """Runs the command line, errors included, in this process."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["enginery", "--no-color", "--store", str(place.store.root), *args]
    before, sys.argv = sys.argv, argv
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli._run()
    finally:
        sys.argv = before
    return Answer(code, out.getvalue(), err.getvalue())


def lay(place: Place, cases: Sequence[Case]) -> list[tuple[Case, str]]:
    """The registry as it was made, but for these values; those that SQLite takes, with what their rows are called."""
    shutil.copy(place.right, place.file)
    return [(case, row) for case in cases if (row := write(place, case)) is not None]


def complaints(place: Place, cases: Sequence[Case]) -> list[str]:
    """What is not as it should be once these values are there; none where all is well."""
    there = lay(place, cases)
    found = []
    folders = {name: str(place.root / name) for name in ("pulled", "out")}
    for command in COMMANDS if there else ():
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)
        done = ask(place, *(part.format(**folders) for part in command))
        said = " ".join(command)
        if done.code not in (0, 1, 2, 3, 4) or "Traceback" in done.err:
            found.append(f"{said}: exit {done.code}: {done.err[-900:]}")
        found += [f"{said}: {one}" for one in _unshown(command, there, done)]
        if command == ("verify", "--all"):
            found += [one for case, row in there for one in _unfound(case, row, done)]
    with contextlib.redirect_stderr(io.StringIO()):
        if there:
            found += [*pages(place), *_rolled_back(place)]
    return found


OF_A_VERSION = {"version", "facts", "event", "waiver", "policy", "alias", "signature", "pulled", "metric"}
"""Tables of which the row that is changed is of version 2, or of none."""


def _unshown(command: tuple[str, ...], there: list[tuple[Case, str]], done: Answer) -> Iterator[str]:
    """Good versions that a list leaves out."""
    tables_ = {case.table for case, _ in there}
    if "schema_version" in tables_:
        return
    good: dict[tuple[str, ...], list[str]] = {("ls", OTHER): [f"{OTHER}:1"]}
    if tables_ <= OF_A_VERSION:
        good[("ls", NAME)] = [f"{NAME}:1", f"{NAME}:3"]
    for one in good.get(command, ()):
        if one not in done.out:
            yield f"{one} is not shown: {done.out[-300:]} {done.err[-300:]}"


WATCHED = {table.name for table in seals.SEALED} | {"facts", "series", "metric", "schema_version"}
"""Tables of which `verify --all` finds any change; of the others it finds values that cannot be."""


NAMED = {("version", column) for column in ("verdict", "recipe", "engine_key", "published_at", "lineage")}
"""Columns that are no part of what a row is called."""


def _unfound(case: Case, row: str, done: Answer) -> list[str]:
    if case.table in WATCHED and case.column not in seals.LATER.get(case.table, ()) and done.code != 1:
        return [f"verify --all did not find {row}: {done.code} {done.out} {done.err}"]
    if (case.table, case.column) in NAMED and row not in done.err:
        return [f"verify --all did not name {row}: {done.err}"]
    return []


def pages(place: Place) -> Iterator[str]:
    """Routes of the web application that fail."""
    try:
        reading = Reading(f"sqlite:///{place.file}", place.store)
        client = place.clients.setdefault("one", Client(application(reading, None)))
    except Exception as exc:  # noqa: BLE001 whatever comes is what is looked for
        if type(exc) not in EXIT_CODES:
            yield f"the server does not start: {exc!r}"
        return
    for route in ROUTES:
        try:
            answer = client.get(route)
        except Exception as exc:  # noqa: BLE001 whatever comes is what is looked for
            yield f"GET {route}: {exc!r}"
            continue
        if answer.status_code == 500:
            yield f"GET {route}: 500"


def _rolled_back(place: Place) -> Iterator[str]:
    try:
        open_registry(f"sqlite:///{place.file}").rollback(NAME, "prod")
    except Exception as exc:  # noqa: BLE001 whatever comes is what is looked for
        try:
            status_of(exc)
        except Exception:  # noqa: BLE001 the same
            yield f"rollback: {exc!r}"


def batches(cases: Sequence[Case]) -> list[list[Case]]:
    """Cases of different tables together: they are tried at once, and one by one where something is wrong."""
    of: dict[str, list[Case]] = {}
    for case in cases:
        of.setdefault(case.table, []).append(case)
    alone = [[case] for case in of.pop("schema_version", [])]
    together = [[one for one in row if one] for row in zip_longest(*of.values())]
    return [*together, *alone]


def tried(place: Place, cases: Sequence[Case]) -> Iterator[str]:
    """Complaints about these cases, each with the value that it is about."""
    for batch in batches(cases):
        if not complaints(place, batch):
            continue
        alone = [(case, complaint) for case in batch for complaint in complaints(place, [case])]
        for case, complaint in alone:
            yield f"{case.table}.{case.column} {case.what}: {complaint}"
        if not alone:
            yield f"{[(case.table, case.column, case.what) for case in batch]}: {complaints(place, batch)}"


def chosen(asked: str) -> list[Case]:
    """All cases, so many of them at random, or those of a column."""
    every = cases()
    if asked == "all":
        return every
    if asked.isdigit():
        return random.Random(asked).sample(every, int(asked))
    table, _, column = asked.partition(".")
    return [one for one in every if one.table == table and column in ("", one.column)]


def main(asked: str = "all") -> int:
    """Tries the cases; prints what is not as it should be, and how many were tried."""
    bad, todo = 0, chosen(asked)
    with tempfile.TemporaryDirectory() as folder:
        for complaint in tried(make(Path(folder)), todo):
            bad += 1
            print(complaint, flush=True)
    print(f"{len(todo)} values tried, {bad} complaints")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
