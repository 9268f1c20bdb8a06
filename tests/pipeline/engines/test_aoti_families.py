"""Every family in every layout: all ranks of the plain modules together against transformers, unsharded."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from calibration.model.checkpoint_reader import Source
from calibration.modelopt.calibrate import load
from pipeline.engines.aoti.arch import read_arch
from pipeline.engines.aoti.build_aoti import _role
from pipeline.engines.aoti.weights import rotary_tables
from pipeline.errors import SourceError
from tests.calibration import reference
from tests.calibration.recorded import record
from tests.jobs import build_quantized as quantize
from tests.pipeline.engines import checkpoints
from tests.pipeline.engines.ranks import Ranks

# The compiled collective; torch 2.13 warns of it outside its compiler only.
pytestmark = pytest.mark.filterwarnings("ignore:.*all_gather_tensor. is deprecated:FutureWarning")

LAYOUTS = [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1)]
"""Tensor-parallel ranks, of which 4 repeat both key heads, and pipeline stages."""
PROMPT, LENGTH = 20, 30


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory):
    """Returns a function that gives a family's checkpoint, tokens, and transformers' logits of them."""
    made = {}

    def make(family) -> tuple[Path, torch.Tensor, Any]:
        if family not in made:
            directory = checkpoints.source(tmp_path_factory.mktemp(family), family)
            tokens = torch.randint(0, 251, (2, LENGTH), generator=torch.manual_seed(1))
            model = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager").eval()
            with torch.no_grad():
                made[family] = directory, tokens, model(tokens, use_cache=False).logits
        return made[family]

    return make


@pytest.mark.slow
@pytest.mark.parametrize(("tp", "pp"), LAYOUTS)
@pytest.mark.parametrize("family", checkpoints.CONFIGS)
def test_a_family_in_a_layout_equals_transformers(family: str, tp: int, pp: int, source, tmp_path: Path):
    directory, tokens, expected = source(family)
    sharded = checkpoints.shard(directory, tp, pp, tmp_path / "sharded")
    close(Ranks(sharded, batch=2).logits(tokens), expected)

    one = Ranks(sharded, batch=1)
    one.logits(tokens[:1, :PROMPT])
    for at in range(PROMPT, LENGTH):
        close(one.logits(tokens[:1, at : at + 1], at), expected[:1, at : at + 1])


@pytest.mark.slow
@pytest.mark.parametrize("fmt", ["fp8", "fp8_rowwise", "int8_sq", "int8_wo", "int4_awq", "w4a8_awq"])
@pytest.mark.parametrize("family", ["gemma2", "gemma3", "phi3"])
def test_a_quantized_family_equals_its_checkpoint_in_transformers(
    family: str, fmt: str, source, tmp_path: Path
):
    directory, tokens, _ = source(family)
    model = load(Source.open(directory))
    statistics = record(model, tokens, tmp_path / "statistics", batch_size=2)
    quantized = tmp_path / "quantized"
    quantized.mkdir()
    inputs = {"source": str(directory), "statistics": str(statistics)}
    job = {"params": {"format": fmt, "smoothing": 0.5}, "places": {}, "inputs": inputs}
    quantize(job, quantized, lambda *_: None)
    tokens = tokens[:, :12]
    with torch.no_grad():
        expected = reference.model(quantized)(tokens, use_cache=False).logits
    tp = 1 if fmt == "fp8_rowwise" else 2  # each rank scales its part of a token by itself
    ranks = Ranks(checkpoints.shard(quantized, tp, 1, tmp_path / "sharded", fmt), batch=2)
    # As in test_aoti_model.py: an input at the boundary of two 8-bit values may take either.
    error = (ranks.logits(tokens) - expected).abs() / expected.std()
    assert error.amax(-1).median() < 1e-4
    assert error.mean() < 1e-2


def close(found: torch.Tensor, expected) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)  # float32 sums in another order


@pytest.mark.slow
def test_every_family_has_something_that_the_plain_one_does_not(source):
    """A switch that changed nothing here would not be tested: each family's logits are its own."""
    found = [source(family)[2] for family in checkpoints.CONFIGS]
    assert all(not torch.allclose(a, b, atol=1e-2) for i, a in enumerate(found) for b in found[:i])


def test_stages_share_their_code_only_where_their_windows_are_the_same(tmp_path: Path):
    directory = checkpoints.source(tmp_path / "source", "gemma3", num_hidden_layers=8)
    assert len(roles(checkpoints.shard(directory, 1, 4, tmp_path / "even"), 4)) == 3  # first, middle, last
    uneven = checkpoints.source(tmp_path / "uneven", "qwen2_windows", num_hidden_layers=4)
    assert len(roles(checkpoints.shard(uneven, 1, 4, tmp_path / "each"), 4)) == 3
    assert (
        len(roles(checkpoints.shard(directory, 1, 8, tmp_path / "single"), 8)) == 4
    )  # middle ones of two kinds


def roles(directory: Path, pp: int):
    arch = read_arch(directory)
    return {_role(arch, stage) for stage in range(pp)}


def test_longrope_is_refused_beyond_its_short_factors(source, tmp_path: Path):
    directory, *_ = source("phi3_longrope")
    arch = read_arch(checkpoints.shard(directory, 1, 1, tmp_path / "sharded"))
    assert len(rotary_tables(arch, 33)[0]) == 33  # the last position is padding
    with pytest.raises(SourceError, match="max_seq_len 33 exceeds 32"):
        rotary_tables(arch, 34)
