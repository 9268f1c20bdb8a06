"""Models with experts, uncompiled, every rank of every layout, against transformers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.engines.aoti.arch import read_arch
from pipeline.engines.aoti.build_aoti import _check_same
from pipeline.engines.aoti.weights import bind
from pipeline.errors import SourceError
from tests.jobs import job_of
from tests.pipeline.engines import experts
from tests.pipeline.engines.ranks import Ranks
from tests.present import present

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*all_gather_tensor.* is deprecated:FutureWarning"),
]  # torch's own

LAYOUTS = [(1, 1, 1), (2, 1, 1), (2, 1, 2), (4, 1, 2), (2, 2, 2), (4, 2, 4)]
"""tp, pp, ep: experts whole or split, on all ranks, on some, or on each others."""
MIXED = {"default": "int8_wo", "except": {"*expert*": "fp8", "*.o_proj": "none"}}
CASES = [
    *(("none", layout) for layout in LAYOUTS),
    ("fp8", (1, 1, 1)), ("fp8", (4, 2, 2)), ("int8_wo", (2, 2, 2)), (MIXED, (2, 1, 2)),
    ("int4_wo", (2, 1, 1)), ("int4_wo", (2, 2, 2)),
]  # fmt: skip


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(0, 384, (3, 20), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=experts.FAMILIES)
def checkpoints(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """Makes a family's checkpoint in a format, and its reference logits; each once."""
    root = tmp_path_factory.mktemp(request.param)
    made: dict[str, Any] = {}
    checkpoint = experts.source(root / "source", request.param)

    def make(fmt, tokens):
        if str(fmt) not in made:
            place = root / f"format{len(made)}"
            place.mkdir()
            quantized = experts.quantized(place, checkpoint, fmt)
            with torch.no_grad():
                logits = experts.reference(quantized)(tokens).logits
            made[str(fmt)] = quantized, logits
        return made[str(fmt)]

    return make


@pytest.mark.parametrize(("fmt", "layout"), CASES, ids=lambda case: str(case).replace(" ", ""))
def test_every_layout_equals_transformers_in_both_graphs(
    checkpoints, fmt, layout: tuple[int, int, int], tokens: torch.Tensor, tmp_path: Path
):
    checkpoint, expected = checkpoints(fmt, tokens)
    sharded = experts.shard(checkpoint, fmt, layout, tmp_path / "sharded")
    found = Ranks(sharded, batch=3).logits(tokens)
    assert_close(found, expected, exact=fmt in ("none", "int8_wo", "int4_wo"))
    one = Ranks(sharded, batch=1)
    one.logits(tokens[:1, :2])
    steps = [one.logits(tokens[:1, at : at + 1], at) for at in range(2, 8)]
    assert_close(torch.cat(steps, 1), expected[:1, 2:8], exact=fmt in ("none", "int8_wo", "int4_wo"))


def assert_close(found: torch.Tensor, expected, *, exact: bool) -> None:
    """Compares logits (B, T, V) in float32; of rounded inputs, some take the neighbouring value.

    Sums in another order differ by 1e-6 of their size. Where an input lies that close to the boundary between
    two values of its 8-bit type, it takes the neighbouring step and moves its token's logits.
    """
    error = (found - expected).abs() / expected.std()
    assert error.amax(-1).median() < 1e-4
    assert error.mean() < (1e-4 if exact else 1e-2)


def test_the_transformers_reference_is_transformers(tokens: torch.Tensor, tmp_path: Path):
    from transformers import AutoModelForCausalLM

    for family in experts.FAMILIES:
        checkpoint = experts.source(tmp_path / family, family)
        theirs = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
        with torch.no_grad():
            torch.testing.assert_close(
                experts.reference(checkpoint)(tokens).logits, theirs(tokens).logits, rtol=1e-4, atol=1e-4
            )


def test_a_checkpoint_for_other_expert_ranks_is_refused(tmp_path: Path):
    checkpoint = experts.source(tmp_path / "source", "mixtral")
    arch = read_arch(experts.shard(checkpoint, "none", (2, 1, 2), tmp_path / "sharded"))
    assert (arch.ep, present(arch.experts).count) == (2, 4)
    with pytest.raises(SourceError, match="ep is 2, the engine asks for 1"):
        _check_same(
            job_of("engine.aoti", {"params": {"tp": 2, "pp": 1, "ep": 1, "format": "none"}}, tmp_path).params,
            arch,
        )


@pytest.mark.parametrize(
    "fmt", ["fp8", {"default": "fp8", "except": {"*.0.mlp.shared_expert.*": "none"}}, MIXED], ids=str
)
def test_the_shared_expert_of_older_rank_files_is_read_too(fmt, tmp_path: Path):
    """Engines of 0.1 hold such files, named as TensorRT-LLM 0.15 wants them."""
    quantized = experts.quantized(tmp_path, experts.source(tmp_path / "source", "qwen2_moe"), fmt)
    newest = experts.shard(quantized, fmt, (1, 1, 1), tmp_path / "newest")
    older = experts.shard(quantized, fmt, (1, 1, 1), tmp_path / "older", names="0.15")
    arch = read_arch(newest)
    assert read_arch(older).linears == arch.linears
    assert any("shared_expert" in name for name in load_file(older / "rank0.safetensors"))
    ours, theirs = (bind(each, arch, 0, torch.float32, 64) for each in (newest, older))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name].float(), theirs[name].float()) for name in ours)
