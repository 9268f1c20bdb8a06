"""Versions for tests of cards and pages: published for real, with what only other hands write put in by SQL."""

import dataclasses
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from artifacts import digest
from artifacts.registry.registry import Registry
from artifacts.version import Metric, Publication, VersionRecord

NAME = "llama/fp8_tp2"

FACTS: dict[str, Any] = {
    "backend": "aoti", "format": "fp8", "dtype": "bfloat16", "kv_cache": "bfloat16", "tp": 2, "pp": 1,
    "world_size": 2, "max_batch_size": 8, "max_seq_len": 1024, "device": "cpu", "cpu": "avx2",
    "toolchain": {"torch": "2.13.0", "cpu": "avx2", "cores": 2}, "gpus": [],
    "weight_bytes_per_rank": [3_000_000, 3_000_000], "memory_bytes_per_rank": [5_000_000, 5_000_000],
}  # fmt: skip


def publication(name: str = NAME, *, seed: int = 1, **changed: Any) -> Publication:
    """A version that differs from those of other seeds: a little slower and closer to its source each."""
    kl = 0.02 / seed
    key = digest.of_json([name, seed])
    accuracy = Metric("kl", kl, 0.9 * kl, 1.1 * kl)
    speeds = [Metric(f"{figure}@{batch}", value) for batch in (1, 4) for figure, value in speed(batch, seed)]
    whole = Publication(
        name=name,
        engine_key=key,
        recipe={"version": 1, "name": name, "format": "fp8", "calibration": {"seed": seed}},
        lineage={"source": digest.of_json("source"), "baseline": digest.of_json("baseline"), "engine": key},
        verdict="PASS",
        checks=[{"metric": "kl", "value": kl, "low": accuracy.low, "high": accuracy.high, "limit": 0.05,
                 "outcome": "PASS", "why": "", "more_samples": None}],
        metrics=[accuracy, *(Metric(figure, value) for figure, value in speed(4, seed)), *speeds,
                 Metric("size_bytes", 6e6 + seed)],
        facts=FACTS,
        model="acme/llama-8b",
        manifest_digest=digest.of_json(["manifest", name, seed]),
        source={"repo": "acme/llama-8b", "revision": "a" * 40, "licence": {"id": "apache-2.0"}},
    )  # fmt: skip
    return dataclasses.replace(whole, **changed)


def record(**changed: Any) -> VersionRecord:
    """The version that such a publication becomes, without a registry."""
    of = publication(**changed)
    return VersionRecord(
        name=of.name,
        number=1,
        engine_key=of.engine_key,
        recipe=dict(of.recipe),
        verdict=of.verdict,
        facts=dict(of.facts),
        lineage=dict(of.lineage),
        checks=[dict(check) for check in of.checks],
        metrics=tuple(of.metrics),
        aliases=(),
        published_at=datetime(2026, 11, 21, tzinfo=UTC),
    )


def speed(batch: int, seed: int) -> list[tuple[str, float]]:
    """Figures of one batch size."""
    return [
        ("tokens_per_s", 100.0 * batch / seed),
        ("tokens_per_s_per_user", 120.0 / batch / seed),
        ("ttft_ms_p50", 10.0 * seed),
        ("ttft_ms_p95", 20.0 * seed),
        ("itl_ms_p50", 5.0),
        ("itl_ms_p95", 9.0),
    ]


def write(file: Path, statement: str, *values: Any) -> None:
    """Changes rows as another program could."""
    with closing(sqlite3.connect(file)) as db, db:
        db.execute(statement, values)


def insert(file: Path, table: str, row: Mapping[str, Any]) -> None:
    """Adds a row."""
    columns, marks = ", ".join(f'"{name}"' for name in row), ", ".join("?" for _ in row)
    write(file, f"INSERT INTO {table} ({columns}) VALUES ({marks})", *row.values())


def waive(file: Path, name: str, number: int, *, days: int = 3, reason: str = "re-gating is queued") -> None:
    """A waiver of a rule for @prod; over already where `days` is negative."""
    now = datetime.now(UTC)
    insert(file, "waiver", {
        "name": name, "number": number, "alias": "prod", "rule": "max_age_days", "reason": reason,
        "granted_at": (now - timedelta(days=9)).isoformat(), "granted_by": "ana@ops",
        "until": (now + timedelta(days=days)).isoformat(),
    })  # fmt: skip


def sign(file: Path, manifest_digest: str) -> None:
    """A signature as it is stored; whether it is a good one is not for pages to say."""
    insert(file, "signature", {
        "manifest_digest": manifest_digest, "key_id": "key-of-ana", "bundle": "{}",
        "signed_at": datetime.now(UTC).isoformat(), "signed_by": "ana@ops",
    })  # fmt: skip


def collect(file: Path, name: str, number: int) -> None:
    """What gc notes when it took the files of a version."""
    at = datetime.now(UTC).isoformat()
    write(file, "UPDATE version SET collected_at = ? WHERE name = ? AND number = ?", at, name, number)


def imported(file: Path, name: str, number: int) -> None:
    """Makes a version one that was built elsewhere."""
    write(
        file,
        "UPDATE version SET origin = 'imported', verdict = 'UNVERIFIED' WHERE name = ? AND number = ?",
        name,
        number,
    )


def rename(file: Path, old: str, new: str) -> None:
    """Gives a name that no registry of today would take."""
    for table, column in (("series", "name"), ("version", "name"), ("metric", "name"), ("alias", "name")):
        write(file, f"UPDATE {table} SET {column} = ? WHERE {column} = ?", new, old)


def three(registry: Registry) -> None:
    """Versions 1 to 3; @candidate at 3, @prod at 2 and before that at 1."""
    for seed in (1, 2, 3):
        registry.publish(publication(seed=seed, alias="candidate"))
    registry.promote(NAME, "prod", to=1, expect=None)
    registry.promote(NAME, "prod", to=2, expect=1)
