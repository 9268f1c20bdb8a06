"""The stage module, run eagerly: every fmt and family against transformers."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.engines.aoti.arch import read_arch
from pipeline.engines.aoti.decoder import Stage
from pipeline.engines.aoti.gemv_tuning import Times, Tuning, cpu_name, known, use_faster_ways
from pipeline.engines.aoti.linear import Linear
from pipeline.engines.aoti.sizes import Limits, new_caches
from pipeline.engines.aoti.weights import bind
from recipes.formats import FORMATS
from recipes.precision import Precision
from tests.pipeline.engines import checkpoints
from tests.pipeline.engines.sharded import MIXED, Toy
from tests.present import present

pytestmark = pytest.mark.slow

LIMITS = Limits(max_batch_size=3, max_seq_len=32)


def stages(directory: Path, pp: int = 1, *, single: bool):
    arch = read_arch(directory)
    for stage in range(pp):
        module = Stage(arch, torch.float32, stage, LIMITS.capacity, single=single)
        tensors = bind(directory, arch, stage, torch.float32, LIMITS.capacity)
        module.load_state_dict({name: tensors[name] for name in module.state_dict()}, assign=True)
        yield module


def run(modules, tokens: torch.Tensor, start: int, caches):
    """Logits (B, T, V) of tokens (B, T) at positions from `start`."""
    batch, time = tokens.shape
    positions = torch.arange(start, start + time).repeat(batch, 1)
    x = tokens
    with torch.no_grad():
        for module, cache in zip(modules, caches, strict=True):
            x = module(x, positions, torch.arange(start + time), torch.arange(batch * time), cache)
    return x.unflatten(0, (batch, time))


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(0, 251, (3, 20), generator=torch.Generator().manual_seed(1))


def caches_of(modules, batch: int):
    return [new_caches(m.arch, torch.float32, batch, LIMITS.capacity) for m in modules]


CASES = [
    *((fmt, "auto") for fmt in FORMATS),
    (MIXED, "auto"),
    (MIXED, "fp8"),
    ("none", "fp8"),
    ("none", "int8"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("fmt", "kv_cache"), CASES)
def test_each_format_equals_its_emulation_in_both_graphs(
    fmt, kv_cache: str, tokens: torch.Tensor, tmp_path: Path
):
    toy = Toy(checkpoints.source(tmp_path / "source"), Precision.parse(fmt), kv_cache)
    sharded = toy.write(tmp_path / "sharded")
    expected = toy.logits(tokens)
    many = [*stages(sharded, single=False)]
    assert_close(run(many, tokens, 0, caches_of(many, 3)), expected)

    single = [*stages(sharded, single=True)]
    caches = caches_of(single, 1)
    run(many, tokens[:1, :12], 0, caches)
    steps = [run(single, tokens[:1, at : at + 1], at, caches) for at in range(12, 20)]
    assert_close(torch.cat(steps, 1), expected[:1, 12:])


def assert_close(found, expected) -> None:
    """Compares logits (B, T, V) in float32: most tokens equal, the rest within a rounding step.

    Sums in another order differ by 1e-6 of their size. Where an input lies that close to the boundary
    between two values of its 8-bit type, it takes the neighbouring step and moves its token's logits.
    """
    error = (found - expected).abs() / expected.std()
    assert error.amax(-1).median() < 1e-4
    assert error.mean() < 1e-2


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_each_family_equals_transformers_over_two_stages(family: str, tokens: torch.Tensor, tmp_path: Path):
    source = checkpoints.source(tmp_path / "source", family)
    sharded = checkpoints.shard(source, 1, 2, tmp_path / "sharded")
    expected = Toy(source, Precision.parse("none")).logits(tokens)
    modules = [*stages(sharded, 2, single=False)]
    found = run(modules, tokens, 0, caches_of(modules, 3))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)  # float32 sums in another order


def test_known_times_decide_without_being_measured_again(tmp_path: Path):
    source = checkpoints.source(tmp_path / "source")
    sharded = checkpoints.shard(source, 1, 1, tmp_path / "sharded")
    [module] = stages(sharded, single=True)
    layers = [each for each in module.modules() if hasattr(each, "way")]
    fast = {"dot": 1.0, "matmul": 2.0}
    times = {layer.key: fast for layer in layers} | {module.lm_head.key: {"dot": 2.0, "matmul": 1.0}}
    keep_times(tmp_path / "earlier", times)
    ways = use_faster_ways(module, Tuning(tmp_path / "kept", tmp_path / "earlier"), {})
    assert module.lm_head.way == "matmul"
    assert {layer.way for layer in layers if layer is not module.lm_head} == {"dot"}
    assert ways == {layer.key: layer.way for layer in layers}
    kept = [Times.model_validate_json(file.read_bytes()) for file in (tmp_path / "kept").rglob("*.json")]
    assert {each.layer: each.seconds for each in kept} == times


def keep_times(directory: Path, times: dict[str, Any], cpu: str | None = None) -> None:
    """Writes times as a build on the CPU keeps them."""
    for layer, seconds in times.items():
        found = Times(cpu=cpu or cpu_name(), layer=layer, seconds=seconds)
        (directory / found.file).parent.mkdir(parents=True, exist_ok=True)
        (directory / found.file).write_text(found.model_dump_json())


def test_times_of_another_cpu_of_other_ways_and_damaged_ones_hold_for_no_layer(tmp_path: Path):
    layer, seconds = Linear(64, 128, torch.float32), {"dot": 1.0, "matmul": 2.0}
    tuning = Tuning(tmp_path / "kept", tmp_path / "earlier")
    assert known(layer, cpu_name(), tuning) is None
    keep_times(tmp_path / "earlier", {layer.key: seconds}, cpu="another one")
    assert known(layer, cpu_name(), tuning) is None
    assert present(known(layer, "another one", tuning)).seconds == seconds
    for wrong in ({"dot": 1.0}, {"dot": 1.0, "matmul": 2.0, "guess": 0.1}):
        keep_times(tmp_path / "earlier", {layer.key: wrong})
        assert known(layer, cpu_name(), tuning) is None
    keep_times(tmp_path / "earlier", {layer.key: seconds})
    right = known(layer, cpu_name(), tuning)
    assert present(right).seconds == seconds
    text = (tmp_path / "earlier" / present(right).file).read_text()
    for damaged in (text[:-9], text.replace("1.0", "-1.0"), text.replace("64x128", "64x129"), ""):
        (tmp_path / "earlier" / present(right).file).write_text(damaged)
        assert known(layer, cpu_name(), tuning) is None
