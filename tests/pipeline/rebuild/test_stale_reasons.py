"""What makes a published version stale, and what does not."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from artifacts.version import VersionRecord
from pipeline.rebuild.host_pools import Pool
from pipeline.rebuild.stale_reasons import World, reasons

BUILT = datetime(2026, 10, 1, tzinfo=UTC)
NOW = BUILT + timedelta(days=30)
CPU = {"backend": "aoti", "device": "cpu", "cpu": "avx512f", "toolchain": {"torch": "2.13.0"}}
GPU = {
    "backend": "tensorrt", "device": "cuda", "target": "h100", "sm": 90,
    "toolchain": {"tensorrt_llm": "0.16.0", "tensorrt": "10.7.0", "torch": "2.5.1"},
    "gpus": [{"name": "NVIDIA H100 80GB HBM3", "sm": 90, "driver": "560.35.05"}],
}  # fmt: skip


def record(facts, **more) -> VersionRecord:
    return VersionRecord(
        name="llama/fp8", number=3, engine_key="1" * 64, recipe={}, verdict="PASS", facts=facts, lineage={},
        checks=[], metrics=(), published_at=BUILT, **{"aliases": ("prod",), **more},
    )  # fmt: skip


def found(
    facts: dict[str, Any], *pools, heads: dict[str, Any] | None = None, days: int = 90, **more
) -> list[str]:
    world = World(now=NOW, pools=pools, heads=heads or {}, gate_max_age=timedelta(days=days))
    return [reason.text for reason in reasons(record(facts, **more), BUILT, world)]


@pytest.mark.parametrize(
    ("facts", "pool", "texts"),
    [
        (CPU, Pool(name="p", torch="2.13.0", cpu="avx512f"), []),
        (CPU, Pool(name="p", cpu="amx_tile"), []),
        (CPU, Pool(name="p", torch="2.14.0"), ["built with torch 2.13.0; pool 'p' has 2.14.0"]),
        (CPU, Pool(name="p", cpu="avx2"), ["compiled for CPUs with avx512f; pool 'p' has avx2"]),
        (CPU, Pool(name="p", gpu="h100", torch="2.14.0"), []),
        (GPU, Pool(name="p", gpu="h100", driver="560.35.05", tensorrt_llm=("0.16.0",), tensorrt=("10.7.0",)), []),
        (GPU, Pool(name="p", gpu="h100", torch="2.9"), []),
        (GPU, Pool(name="p", gpu="h100", tensorrt_llm=("0.17.0", "1.0.0")), ["built with tensorrt_llm 0.16.0; pool 'p' has 0.17.0, 1.0.0"]),
        (GPU, Pool(name="p", gpu="h100", tensorrt=("10.8.0",)), ["built with tensorrt 10.7.0; pool 'p' has 10.8.0"]),
        (GPU, Pool(name="p", gpu="a100", tensorrt=("10.8.0",)), []),
        (GPU, Pool(name="p", gpu="a100", aliases=("prod",)), ["built for sm_90; pool 'p' has a100, sm_80"]),
        (GPU, Pool(name="p", gpu="h100", tensorrt=("10.8.0",), aliases=("canary",)), []),
    ],
)  # fmt: skip
def test_a_version_is_compared_with_the_pools_that_serve_it(
    facts: dict[str, Any], pool: Pool, texts: list[str]
):
    assert found(facts, pool) == texts


def test_an_older_driver_may_not_load_it_and_a_newer_one_was_not_measured():
    world = World(now=NOW, pools=(), heads={}, gate_max_age=timedelta(days=90))
    for driver, loads in (("550.1", False), ("580.1", True)):
        pools = (Pool(name="p", gpu="h100", driver=driver),)
        (reason,) = reasons(
            record(GPU), BUILT, World(**{**{k: getattr(world, k) for k in world.__slots__}, "pools": pools})
        )
        assert reason.loads is loads
        assert f"built with driver 560.35.05; pool 'p' has {driver}" in reason.text


def test_a_newer_commit_of_the_model_makes_it_stale():
    source = {"repo": "acme/tiny", "revision": "a" * 40}
    heads = {"acme/tiny": "b" * 40}
    assert found(CPU, heads=heads, source=source) == [
        "acme/tiny is at commit bbbbbbbbbbbb; built from aaaaaaaaaaaa"
    ]
    assert found(CPU, heads={"acme/tiny": "a" * 40}, source=source) == []
    assert found(CPU, heads=heads, source={"path": "model"}) == []


def test_a_verdict_holds_for_its_days_and_no_longer():
    assert found(CPU, days=30) == []
    assert found(CPU, days=29) == ["its accuracy was judged 30 days ago; a verdict is valid for 29 days"]


def test_a_verdict_of_a_day_to_come_is_named():
    world = World(now=BUILT - timedelta(days=2), pools=(), heads={}, gate_max_age=timedelta(days=30))
    (reason,) = reasons(record(CPU), BUILT, world)
    assert (
        reason.text
        == f"its accuracy was judged on {BUILT:%Y-%m-%d}, which is in the future: a clock is wrong"
    )


def test_what_cannot_be_loaded_comes_first():
    pool = Pool(name="p", torch="2.14.0")
    texts = found(CPU, pool, days=1, collected_at=NOW)
    assert [text.split()[0] for text in texts] == ["gc", "built", "its"]
    assert texts[0] == "gc removed its files on 2026-10-31"
