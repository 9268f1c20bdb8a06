"""Our rank files against ModelOpt's `export_tensorrt_llm_checkpoint`, tensor by tensor, byte by byte.

The quantized checkpoint comes from the same calibrated model by ModelOpt's `export_hf_checkpoint`. That one
rounds FP8 weights of one scale twice, so they are rounded again, once and from float32. Both exports see a model whose
gate and up projections already share their scales, as quantized checkpoints promise.
"""

import contextlib
import copy
import io
import json
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.checkpoint.loadable import UNTOUCHED
from pipeline.checkpoint.rank_layout import LAYOUT_VERSION
from pipeline.weights.tensors import NUMPY_TYPES, read_header
from recipes.formats import FORMATS
from tests.jobs import build_sharded as build

DECODERS = {"Llama": "llama", "Mistral": "llama", "Qwen2": "qwen", "Qwen3": "qwen"}
LAYOUTS = [(1, 1), (2, 1), (1, 2), (2, 2)]
VOCAB = 250
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
}
FUSED = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"), ("mlp.down_proj",),
)  # fmt: skip

EXCEPTIONS = {
    "prequant_scaling_factor of qkv, fc, gate": (
        "AWQ: ones here, because the quantized checkpoint folds the smoothing into the norm; "
        "the oracle keeps norm and factor apart"
    ),
    "input_layernorm, post_layernorm": "AWQ: the folded norm, the oracle's norm times its factor",
    "vocab_embedding, lm_head": (
        "int4: the oracle pads the vocabulary to a multiple of 64 although the head is not quantized, "
        "and changes vocab_size; here rows are padded up to a multiple of tp, as in every format"
    ),
    "k_cache_scaling_factor, v_cache_scaling_factor": (
        "absent: TensorRT-LLM reads their maximum, kv_cache_scaling_factor"
    ),
}
"""Tensors whose bytes differ from the oracle's, and why; each has a test that says what they are instead."""

CONFIG_EXCEPTIONS = {
    "producer": "we wrote it",
    "logits_dtype": "TensorRT-LLM's default float32; the oracle says float16",
    "vocab_size": "int4: see EXCEPTIONS",
}
"""Fields of `config.json` that differ. `rank` is only the oracle's; it loses rotary base and scaling."""

BLOCK_EXCEPTIONS = {
    "int4_wo": {"pre_quant_scale": False},  # the oracle promises factors that it does not write
    "fp8_rowwise": {"exclude_modules": ["*ln_f", "lm_head"]},  # the final norm must stay as it is
    "int8_wo": {"exclude_modules": [*UNTOUCHED]},  # what is not named would be quantized, embeddings too
}
"""Format -> fields of the block `quantization` that differ."""

INT4 = [name for name, fmt in FORMATS.items() if fmt.weight == "int4"]
AWQ = [name for name in INT4 if FORMATS[name].smoothed]

MIXED: dict[str, Any] = {
    "default": "fp8",
    "except": {
        "model.layers.0.self_attn.o_proj": "int8_wo",
        "model.layers.0.mlp.down_proj": "int4_wo",
        "model.layers.1.self_attn.[qkv]_proj": "none",
        "model.layers.1.mlp.down_proj": "fp8_rowwise",
    },
}
KV_AMAX = ((40.0, 2.0), (700.0, 900.0))
"""Largest key and value per layer: below and above what e4m3 holds."""


@contextlib.contextmanager
def quiet():
    """ModelOpt and transformers warn about deprecations and print progress; none of it is about our code.

    One thread: these models are so small that threads only wait for one another.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)


@cache
def calibrated(family, fmt, *, tied=False, kv_cache="auto"):
    """A tiny random model, calibrated by ModelOpt, whose gate and up projections share their scales."""
    with quiet():
        import modelopt.torch.quantization as mtq
        import torch
        import transformers
        from modelopt.torch.export.quant_utils import preprocess_linear_fusion

        torch.manual_seed(0)
        head = {"head_dim": 64} if family == "Qwen3" else {}
        config = getattr(transformers, f"{family}Config")(**SIZES, **head, tie_word_embeddings=tied)
        config.architectures = [f"{family}ForCausalLM"]
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:  # they start as ones and zeros, which would hide mistakes
                torch.nn.init.uniform_(parameter, 0.5, 1.5)
        if fmt != "none":
            ids = torch.randint(0, VOCAB, (1, 32))
            mtq.quantize(model, preset(fmt, kv_cache), lambda m: m(ids))
            for layer, amax in zip(model.model.layers, KV_AMAX, strict=True):
                preprocess_linear_fusion([layer.mlp.gate_proj, layer.mlp.up_proj])
                if kv_cache != "auto":
                    layer.self_attn.k_bmm_quantizer.amax = torch.tensor(amax[0])
                    layer.self_attn.v_bmm_quantizer.amax = torch.tensor(amax[1])
    return model


def preset(fmt, kv_cache):
    """ModelOpt's preset of a format; of MIXED, with the rules of other presets for the exceptions."""
    import modelopt.torch.quantization as mtq

    mixed = fmt == "mixed"
    made = copy.deepcopy(getattr(mtq, FORMATS["fp8" if mixed else fmt].modelopt_cfg))
    for pattern, name in MIXED["except"].items() if mixed else ():
        rules = getattr(mtq, FORMATS[name].modelopt_cfg)["quant_cfg"] if name != "none" else ()
        for kind in ("weight_quantizer", "input_quantizer"):
            own = [rule["cfg"] for rule in rules if rule["quantizer_name"] == f"*{kind}" and "cfg" in rule]
            setting = {"cfg": copy.deepcopy(own[0])} if own else {"enable": False}
            made["quant_cfg"].append({"quantizer_name": f"{pattern}.{kind}", **setting})
    if kv_cache != "auto":
        bits = {"num_bits": (4, 3) if kv_cache == "fp8" else 8, "axis": None}
        made["quant_cfg"].append({"quantizer_name": "*[kv]_bmm_quantizer", "cfg": bits})
    return made


def write_quantized(model, fmt, directory) -> None:
    """Writes the unified Hugging Face layout."""
    with quiet():
        from modelopt.torch.export import export_hf_checkpoint

        if fmt == "none":
            model.save_pretrained(directory)
        else:
            export_hf_checkpoint(copy.deepcopy(model), export_dir=directory)
    if fmt in ("fp8", "mixed"):
        round_once(model, directory / "model.safetensors")
    (directory / "tokenizer.json").write_text("{}")


def round_once(model, path) -> None:
    """Rewrites FP8 weights of one scale, rounded once, with the scales that fused modules share."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors, one_channel = load_file(path), torch.zeros(1)
    for index, layer in enumerate(model.model.layers):
        for group in FUSED:
            modules = {f"model.layers.{index}.{name}": layer.get_submodule(name) for name in group}
            if any(tensors.get(f"{name}.weight_scale", one_channel).dim() for name in modules):
                continue
            largest = max(m.weight_quantizer.amax for m in modules.values()).float() / 448
            input_scale = max(m.input_quantizer.amax for m in modules.values()).float() / 448
            for name, module in modules.items():
                rounded = (module.weight.detach().float() / largest).to(torch.float8_e4m3fn)
                tensors |= {f"{name}.weight": rounded, f"{name}.weight_scale": largest.clone()}
                tensors[f"{name}.input_scale"] = input_scale.clone()
    save_file(tensors, path, metadata={"format": "pt"})


def write_quantized_int8_cache(model, fmt, directory: Path) -> None:
    """Writes the layout with int8 scales of keys and values, which ModelOpt's own export cannot."""
    from safetensors.torch import load_file, save_file

    other = copy.deepcopy(model)
    for layer in other.model.layers:
        for quantizer in (layer.self_attn.k_bmm_quantizer, layer.self_attn.v_bmm_quantizer):
            quantizer.disable()
            quantizer.reset_amax()
    write_quantized(other, fmt, directory)
    tensors = load_file(directory / "model.safetensors")
    for index, layer in enumerate(model.model.layers):
        for kind in ("k", "v"):
            amax = getattr(layer.self_attn, f"{kind}_bmm_quantizer").amax.float()
            tensors[f"model.layers.{index}.self_attn.{kind}_proj.{kind}_scale"] = amax / 127
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    config["quantization_config"]["kv_cache_scheme"] = "INT8"
    (directory / "config.json").write_text(json.dumps(config))


def rank_files(directory, count):
    """Per rank: name -> (dtype, array of unsigned integers)."""
    ranks: list[Any] = []
    for rank in range(count):
        path = directory / f"rank{rank}.safetensors"
        data = path.read_bytes()
        ranks.append(
            {
                name: (e.dtype, np.frombuffer(data[e.start : e.end], NUMPY_TYPES[e.dtype]).reshape(e.shape))
                for name, e in read_header(path).items()
            }
        )
    return ranks


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Path]]:
    """Returns a function that gives the oracle's directory and ours for one case."""
    quantized = {}

    def make(family, fmt, tp, pp, *, tied=False, kv_cache="auto"):
        model, case = calibrated(family, fmt, tied=tied, kv_cache=kv_cache), (family, fmt, tied, kv_cache)
        if case not in quantized:
            quantized[case] = tmp_path_factory.mktemp("quantized")
            if kv_cache == "int8":
                write_quantized_int8_cache(model, fmt, quantized[case])
            else:
                write_quantized(model, fmt, quantized[case])
        theirs, ours = tmp_path_factory.mktemp("theirs"), tmp_path_factory.mktemp("ours")
        with quiet():
            from modelopt.torch.export import export_tensorrt_llm_checkpoint

            export_tensorrt_llm_checkpoint(
                copy.deepcopy(model),
                DECODERS[family],
                export_dir=theirs,
                inference_tensor_parallel=tp,
                inference_pipeline_parallel=pp,
            )
        asked = {"format": MIXED if fmt == "mixed" else fmt, "kv_cache": kv_cache}
        params = asked | {"tp": tp, "pp": pp, "layout_version": LAYOUT_VERSION}
        build({"params": params, "inputs": {"checkpoint": str(quantized[case])}}, ours, lambda *event: None)
        return theirs, ours

    return make


def excepted(fmt, name):
    """The row of EXCEPTIONS that a tensor falls under, if any."""
    if fmt in AWQ and name.endswith(
        ("qkv.prequant_scaling_factor", "fc.prequant_scaling_factor", "gate.prequant_scaling_factor")
    ):
        return "prequant_scaling_factor of qkv, fc, gate"
    if fmt in AWQ and name.endswith(("input_layernorm.weight", "post_layernorm.weight")):
        return "input_layernorm, post_layernorm"
    if name.endswith(("k_cache_scaling_factor", "v_cache_scaling_factor")) and ".kv_" not in name:
        return ABSENT
    return "vocab_embedding, lm_head" if fmt in INT4 and name in TABLES else None


ABSENT = "k_cache_scaling_factor, v_cache_scaling_factor"
TABLES = ("transformer.vocab_embedding.weight", "lm_head.weight")


def assert_same(fmt: str, theirs, ours) -> int:
    """Compares every tensor of every rank; returns how many were excepted."""
    skipped = 0
    for oracle, mine in zip(theirs, ours, strict=True):
        assert mine.keys() == {name for name in oracle if excepted(fmt, name) != ABSENT}
        for name, (dtype, array) in oracle.items():
            if excepted(fmt, name):
                assert excepted(fmt, name) in EXCEPTIONS
                skipped += 1
                continue
            assert mine[name][0] == dtype, name
            assert mine[name][1].shape == array.shape, name
            assert mine[name][1].tobytes() == array.tobytes(), name
    return skipped


@pytest.mark.slow
@pytest.mark.parametrize(("tp", "pp"), LAYOUTS)
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("family", DECODERS)
def test_every_byte_is_the_oracles(
    both: Callable[..., tuple[Path, Path]], family: str, fmt: str, tp: int, pp: int
):
    theirs, ours = both(family, fmt, tp, pp)
    skipped = assert_same(fmt, rank_files(theirs, tp * pp), rank_files(ours, tp * pp))
    assert skipped == tp * ((2 * 5 if fmt in AWQ else 0) + (2 if fmt in INT4 else 0))


@pytest.mark.parametrize("fmt", ["none", "fp8"])
def test_repeated_key_heads_are_the_oracles(both: Callable[..., tuple[Path, Path]], fmt: str):
    """The oracle refuses to repeat heads that have per-channel or per-block scales; we do not."""
    theirs, ours = both("Llama", fmt, 4, 1)
    assert assert_same(fmt, rank_files(theirs, 4), rank_files(ours, 4)) == 0


@pytest.mark.parametrize(("tp", "pp"), [(1, 1), (2, 2)])
def test_tied_heads_are_the_oracles(both: Callable[..., tuple[Path, Path]], tp: int, pp: int):
    theirs, ours = both("Llama", "fp8", tp, pp, tied=True)
    assert assert_same("fp8", rank_files(theirs, tp * pp), rank_files(ours, tp * pp)) == 0


def bfloat16(array):
    return (array[1].astype(np.uint32) << 16).view(np.float32)


@pytest.mark.parametrize("fmt", AWQ)
@pytest.mark.parametrize("family", DECODERS)
def test_folded_awq_norms_are_the_oracles_norm_times_its_factor(
    both: Callable[..., tuple[Path, Path]], family: str, fmt: str
):
    theirs, ours = (rank_files(each, 1)[0] for each in both(family, fmt, 1, 1))
    for layer in (f"transformer.layers.{index}" for index in range(2)):
        for norm, linears in (
            ("input_layernorm", ["attention.qkv"]),
            ("post_layernorm", ["mlp.fc", "mlp.gate"]),
        ):
            factors = [bfloat16(theirs[f"{layer}.{name}.prequant_scaling_factor"]) for name in linears]
            folded = bfloat16(theirs[f"{layer}.{norm}.weight"]) * factors[0]
            # bfloat16 keeps 8 bits: rounding the product once is off by at most half a unit in the last place
            np.testing.assert_allclose(bfloat16(ours[f"{layer}.{norm}.weight"]), folded, rtol=2**-8)
            assert not np.allclose(factors[0], 1)
            for name in linears:
                assert (bfloat16(ours[f"{layer}.{name}.prequant_scaling_factor"]) == 1).all()


@pytest.mark.parametrize("fmt", INT4)
@pytest.mark.parametrize("tp", [1, 2])
def test_int4_vocabulary_is_the_oracles_without_its_padding(
    both: Callable[..., tuple[Path, Path]], fmt: str, tp: int
):
    theirs, ours = (rank_files(each, tp) for each in both("Llama", fmt, tp, 1))
    for name in TABLES:
        oracle, mine = (np.concatenate([rank[name][1] for rank in ranks]) for ranks in (theirs, ours))
        np.testing.assert_array_equal(mine, oracle[:VOCAB])
        assert oracle.shape[0] == 256
        assert not oracle[VOCAB:].any()


@pytest.mark.slow
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("family", DECODERS)
def test_config_says_what_the_oracles_says_and_keeps_the_rotary_base(
    both: Callable[..., tuple[Path, Path]], family: str, fmt: str
):
    theirs, ours = (json.loads((each / "config.json").read_text()) for each in both(family, fmt, 2, 2))
    assert {key for key in theirs if key not in ours} == {"rank"}
    theirs["quantization"] = theirs["quantization"] | BLOCK_EXCEPTIONS.get(fmt, {})
    differ = {key for key in theirs if key in ours and theirs[key] != ours[key]}
    assert differ <= CONFIG_EXCEPTIONS.keys()
    assert ("vocab_size" in differ) == (fmt in INT4)
    assert "rotary_base" not in theirs
    assert ours["rotary_base"] == 500000.0


@pytest.mark.slow
@pytest.mark.parametrize("kv_cache", ["auto", "fp8", "int8"])
@pytest.mark.parametrize(("tp", "pp"), LAYOUTS)
def test_every_byte_of_a_mixture_is_the_oracles(
    both: Callable[..., tuple[Path, Path]], kv_cache: str, tp: int, pp: int
):
    theirs, ours = both("Llama", "mixed", tp, pp, kv_cache=kv_cache)
    skipped = assert_same("mixed", rank_files(theirs, tp * pp), rank_files(ours, tp * pp))
    assert skipped == (0 if kv_cache == "auto" else tp * 2 * 2)


def test_the_cache_has_one_scale_per_layer_and_it_is_the_larger_one(both: Callable[..., tuple[Path, Path]]):
    for kv_cache, expected in (("fp8", (1.0, 900 / 448)), ("int8", (40 / 127, 900 / 127))):
        _, ours = both("Llama", "mixed", 1, 1, kv_cache=kv_cache)
        tensors = rank_files(ours, 1)[0]
        for layer, scale in enumerate(expected):
            _, held = tensors[f"transformer.layers.{layer}.attention.kv_cache_scaling_factor"]
            assert held.view(np.float32).tolist() == [np.float32(scale)]
        audit = json.loads((ours / "audit.json").read_text())
        names = [f"model.layers.0.self_attn.{kind}_proj.{kind}_scale" for kind in "kv"]
        assert audit["computed"][0]["largest_of"] == names
        assert all(audit["sources"][name]["to"] for name in names)


@pytest.mark.parametrize("kv_cache", ["auto", "fp8"])
def test_a_mixture_is_described_as_the_oracle_does(both: Callable[..., tuple[Path, Path]], kv_cache: str):
    theirs, ours = both("Llama", "mixed", 1, 1, kv_cache=kv_cache)
    oracle, mine = (json.loads((each / "quant_cfg.json").read_text()) for each in (theirs, ours))
    oracle["quantized_layers"]["transformer.layers.0.mlp.proj"]["pre_quant_scale"] = False  # BLOCK_EXCEPTIONS
    assert mine == oracle
    oracle, mine = (json.loads((each / "config.json").read_text()) for each in (theirs, ours))
    assert mine["quantization"] == oracle["quantization"]


def test_a_mixture_over_stages_is_described_as_without_them(both: Callable[..., tuple[Path, Path]]):
    """The oracle's last stage, all fp8 but for what it excludes, speaks for the others too."""
    _, whole = both("Llama", "mixed", 1, 1)
    theirs, ours = both("Llama", "mixed", 1, 2)
    assert (ours / "quant_cfg.json").read_bytes() == (whole / "quant_cfg.json").read_bytes()
    last = json.loads((theirs / "quant_cfg.json").read_text())["quantized_layers"]
    assert {name.split(".")[2] for name in last} == {"0"}
