"""Rank files of Gemma 2, Gemma 3 and Phi-3 against ModelOpt's TensorRT-LLM export, byte by byte.

Of these families ModelOpt 0.47 makes the tensors, but says of the config.json that TensorRT-LLM itself must
write it. So it is told to leave that file out. Both sides start from one calibrated model; ours passes
through our own quantized checkpoint.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.checkpoint.rank_layout import LAYOUT_VERSION
from recipes.formats import FORMATS
from tests.jobs import build_sharded as build
from tests.pipeline.checkpoint.test_oracle import LAYOUTS, quiet, rank_files

pytestmark = pytest.mark.slow

DECODERS = {"gemma2": "gemma2", "gemma3_text": "gemma3", "phi3": "phi3"}
"""`model_type` -> ModelOpt's name."""
SIZES = {
    "vocab_size": 256, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "head_dim": 64,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip

EXCEPTIONS = {
    "mlp.fc": (
        "Phi-3 over tp ranks: the oracle cuts up and gate projection as if they were one, so that the first "
        "ranks hold nothing but up; each rank multiplies the halves of what it holds, so here it holds a part "
        "of both"
    ),
    "lm_head": "Gemma: the embedding again; the oracle leaves a tied head to share_embedding_table",
}
"""What differs from the oracle's files, and why; the test says what it is instead."""


def random_checkpoint(family, directory: Path) -> None:
    """Writes a tiny model whose norms are not trivial."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SIZES)
    made = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    for name, parameter in made.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, -0.5, 0.5)
    made.save_pretrained(directory)
    (directory / "tokenizer.json").write_text("{}")


def calibrated(directory: Path, fmt):
    """ModelOpt's calibrated model of a checkpoint, and what our quantized checkpoint is made with."""
    import modelopt.torch.quantization as mtq
    import torch
    from modelopt.torch.export.quant_utils import preprocess_linear_fusion

    from calibration.model.checkpoint_reader import Source
    from calibration.model.linears import layout
    from calibration.modelopt.calibrate import configuration, load
    from calibration.modelopt.findings import find, weight_maxima
    from recipes.precision import Precision

    model, precision = load(Source.open(directory)), Precision.parse(fmt)
    if fmt == "none":
        return model, None
    maxima = weight_maxima(model, FORMATS[fmt])
    settings = configuration(precision, "auto", 1.0, layout(model.config.to_dict()))
    mtq.quantize(model, settings, lambda m: m(torch.arange(96).view(3, 32)))
    findings = find(model, precision, maxima, 1.0)
    for layer in model.model.layers if hasattr(model.model.layers[0].mlp, "up_proj") else ():
        preprocess_linear_fusion([layer.mlp.gate_proj, layer.mlp.up_proj])
    return model, findings


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    """Returns a function that gives a family's calibrated model and quantized checkpoint, made once."""
    sources, cases = {}, {}

    def make(family, fmt) -> tuple[Any, Path]:
        from calibration.model.checkpoint_reader import Source
        from calibration.quantize.checkpoint_export import write

        if family not in sources:
            sources[family] = tmp_path_factory.mktemp(family)
            random_checkpoint(family, sources[family])
        if (family, fmt) not in cases:
            model, findings = calibrated(sources[family], fmt)
            directory = sources[family]
            if findings is not None:
                directory = tmp_path_factory.mktemp("quantized")
                write(Source.open(sources[family]), findings, directory, lambda *_: None)
            cases[family, fmt] = model, directory
        return cases[family, fmt]

    return make


def described_by_rank(model_config, quant_config, **_) -> dict[str, Any]:
    """What the export asks of a config.json before it writes tensors."""
    world = {"world_size": model_config.tensor_parallel * model_config.pipeline_parallel}
    return {"rank": model_config.rank, "mapping": world, "quantization": quant_config, "decoder": "none"}


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, made):
    """Returns a function that gives the oracle's rank files and ours for one case."""

    def make(family, fmt, tp, pp):
        with quiet():
            from modelopt.torch.export import export_tensorrt_llm_checkpoint, model_config_export

            monkeypatch.setattr(model_config_export, "convert_to_tensorrt_llm_config", described_by_rank)
            model, quantized = made(family, fmt)
            export_tensorrt_llm_checkpoint(
                copy.deepcopy(model), DECODERS[family], export_dir=tmp_path / "theirs",
                inference_tensor_parallel=tp, inference_pipeline_parallel=pp,
            )  # fmt: skip
        ours = tmp_path / "ours"
        ours.mkdir()
        params = {"format": fmt, "tp": tp, "pp": pp, "layout_version": LAYOUT_VERSION}
        build({"params": params, "inputs": {"checkpoint": str(quantized)}}, ours, lambda *_: None)
        return rank_files(tmp_path / "theirs", tp * pp), rank_files(ours, tp * pp)

    return make


@pytest.mark.parametrize(("tp", "pp"), LAYOUTS)
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("family", DECODERS)
def test_every_byte_is_the_oracles(both, family: str, fmt: str, tp: int, pp: int):
    theirs, ours = both(family, fmt, tp, pp)
    fused = family == "phi3" and tp > 1
    for rank, (oracle, mine) in enumerate(zip(theirs, ours, strict=True)):
        head = {"lm_head.weight"} if family != "phi3" and rank >= tp * (pp - 1) else set()
        assert mine.keys() == oracle.keys() | head
        differ = {name for name in oracle if not same(oracle[name], mine[name])}
        assert all(fused and ".mlp.fc." in name for name in differ), differ
        assert bool(differ) == fused
    if pp == 1 and family != "phi3":
        assert all(same(rank["lm_head.weight"], rank["transformer.vocab_embedding.weight"]) for rank in ours)
    for stage in range(pp) if fused else ():
        assert_same_halves(*(ranks[stage * tp : (stage + 1) * tp] for ranks in (theirs, ours)))


def assert_same_halves(theirs, ours) -> None:
    """The ranks' up projections in their order, and then their gate projections, are what the oracle cut."""
    for name in (name for name in theirs[0] if ".mlp.fc." in name):
        pieces = [rank[name][1] for rank in ours]
        if pieces[0].size == 1 or "prequant" in name or "activation" in name:
            assert all(same(a[name], b[name]) for a, b in zip(theirs, ours, strict=True))
            continue
        halves = [np.split(piece, 2) for piece in pieces]
        whole = np.concatenate([half[side] for side in (0, 1) for half in halves])
        assert whole.tobytes() == np.concatenate([rank[name][1] for rank in theirs]).tobytes(), name


def same(theirs, ours):
    return (
        theirs[0] == ours[0] and theirs[1].shape == ours[1].shape and theirs[1].tobytes() == ours[1].tobytes()
    )
