"""Fills a registry with versions as a fleet would have them: few layouts, many rebuilds."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from artifacts import digest
from artifacts.registry import tables
from artifacts.registry.database import connect

FORMATS = ("none", "fp8", "int8_sq", "int4_awq")
LAYOUTS = ((1, 1), (2, 1), (4, 1), (8, 1), (4, 2))
GPUS = {
    "h100": ("NVIDIA H100 80GB HBM3", 90),
    "h200": ("NVIDIA H200", 90),
    "a100": ("NVIDIA A100-SXM4-80GB", 80),
}
RUNTIMES = ("1.0.0", "1.2.1")
METRICS = ("tokens_per_s", "tokens_per_s_per_user", "ttft_ms_p50", "ttft_ms_p95", "itl_ms_p50", "itl_ms_p95")
START = datetime(2026, 1, 1, tzinfo=UTC)


def fill(url_or_path: str | Path, versions: int, names: int) -> None:
    """Makes `versions` versions of `names` names, 12 to 19 metrics each, and one alias per name."""
    rng = random.Random(0)
    database = connect(url_or_path)
    database.create()
    with database.writing() as db:
        series, known, rows, metrics, aliases = [], {}, [], [], []
        for number in range(versions):
            which, turn = number % names, number // names + 1
            facts = _facts(which, RUNTIMES[(turn * 2 > versions // names)])
            known[digest.of_json(facts)] = facts
            rows.append(_version(which, turn, facts))
            metrics += _metrics(which, turn, facts, rng)
        for which in range(names):
            last = len(range(which, versions, names))
            series.append({"name": _name(which), "folded": _name(which).casefold(), "last": last})
            moved = {"moved_at": START.isoformat(), "moved_by": "bench"}
            aliases.append({"name": _name(which), "alias": "prod", "number": max(1, last - 1), **moved})
        db.execute(insert(tables.series), series)
        db.execute(insert(tables.facts), [{"id": key, "facts": facts} for key, facts in known.items()])
        for table, values in ((tables.version, rows), (tables.metric, metrics), (tables.alias, aliases)):
            db.execute(insert(table), values)


def _name(which: int) -> str:
    return f"team{which % 7}/model{which % 25}/build{which}"


def _facts(which: int, runtime: str) -> dict[str, Any]:
    tp, pp = LAYOUTS[which % len(LAYOUTS)]
    target = list(GPUS)[which % len(GPUS)]
    name, sm = GPUS[target]
    return {
        "backend": "tensorrt", "format": FORMATS[which % len(FORMATS)], "dtype": "bfloat16",
        "kv_cache": "float8_e4m3fn", "tp": tp, "pp": pp, "world_size": tp * pp, "max_batch_size": 64,
        "max_seq_len": 8192, "target": target, "device": "cuda", "sm": sm, "cpu": None,
        "toolchain": {"tensorrt_llm": runtime, "tensorrt": "10.11.0", "torch": "2.8.0"},
        "gpus": [{"name": name, "sm": sm, "driver": "570.86.10"}] * tp * pp,
        "weight_bytes_per_rank": [8 << 30] * tp * pp, "memory_bytes_per_rank": [40 << 30] * tp * pp,
    }  # fmt: skip


def _version(which: int, turn: int, facts: dict[str, Any]) -> dict[str, Any]:
    key = digest.of_json([which, turn])
    engine = {
        name: facts[name] for name in ("backend", "target", "tp", "pp", "max_batch_size", "max_seq_len")
    }
    model = {"repo": f"team/model{which % 25}", "revision": "0" * 40}
    recipe = {
        "version": 1, "name": _name(which), "model": model, "format": facts["format"], "engine": engine,
        "calibration": {"data": [{"path": f"data/part{n}.jsonl", "weight": 1.0} for n in range(8)]},
        "gate": {"data": {"path": "gate.jsonl"}, "limits": {"kl": 0.1}}, "publish": {"alias": "candidate"},
    }  # fmt: skip
    return {
        "name": _name(which), "number": turn, "engine_key": key, "manifest_digest": key,
        "model": model["repo"], "origin": "built", "identity": key, "verdict": "PASS", "recipe": recipe,
        "lineage": {f"step{n}": key for n in range(8)}, "checks": [], "source": model,
        "facts_id": digest.of_json(facts), "published_by": "bench", "collected_at": None,
        "published_at": (START + timedelta(minutes=turn)).isoformat(),
    }  # fmt: skip


def _metrics(which: int, turn: int, facts: dict[str, Any], rng: random.Random) -> list[dict[str, Any]]:
    values = {name: rng.uniform(10, 1000) for name in METRICS}
    values |= {
        f"{name}@{batch}": rng.uniform(10, 1000) for name in METRICS[: 1 + which % 6] for batch in (1, 64)
    }
    values |= {"kl": rng.uniform(0, 0.1), "perplexity_ratio": 1.01, "top1_agreement": 0.95}
    values |= {"size_bytes": float(8 << 30) * facts["world_size"]}
    here = {"name": _name(which), "number": turn, "low": None, "high": None}
    return [
        {**here, "metric": name, "position": position, "value": value}
        for position, (name, value) in enumerate(values.items())
    ]
