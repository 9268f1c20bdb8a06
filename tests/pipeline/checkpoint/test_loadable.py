"""What TensorRT-LLM cannot load, version by version, and what it quantizes by itself."""

import pytest

from pipeline.checkpoint.loadable import UNTOUCHED, numbers, stored, unloadable
from pipeline.checkpoint.rank_layout import engine_config
from pipeline.models.config_json import read_shape
from recipes.formats import FORMATS
from recipes.precision import Precision
from tests.pipeline.checkpoint.test_layout_checks import CONFIG

V016 = "0.16.0"


def said(fmt="none", tp=1, pp=1, version=V016, **change) -> list[str]:
    return unloadable(read_shape(CONFIG | change), Precision.parse(fmt), tp, pp, version)


@pytest.mark.slow
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize(("tp", "pp"), [(1, 1), (2, 1), (4, 2), (8, 8)])
@pytest.mark.parametrize("version", ["0.12.0", V016, "1.2.0", ""])
def test_one_format_for_all_linears_loads_everywhere(fmt: str, tp: int, pp: int, version: str):
    assert said(fmt, tp, pp, version) == []


@pytest.mark.parametrize(
    ("version", "told"),
    [
        (
            "0.12.0",
            "engine.pp: TensorRT-LLM 0.12.0 gives each of 3 stages 2 layers and silently drops the last 2",
        ),
        ("0.17.0.dev20241217", "silently drops the last 2; choose one of 1, 2, 4, 8"),
        ("1.0.0", "engine.pp: TensorRT-LLM expects one more layer in the first 2 of 3 stages"),
    ],
)
def test_layers_that_the_stages_do_not_divide_are_refused_for_what_each_version_does(version: str, told: str):
    (found,) = said(pp=3, version=version)
    assert told in found


ALIKE = {"default": "fp8", "except": {"*.down_proj": "int4_awq"}}
FIRST = {"default": "fp8", "except": {"model.layers.0.*": "none"}}


def test_a_mixture_loads_where_every_stage_is_alike():
    assert said(ALIKE) == said(ALIKE, pp=2) == []
    assert said(FIRST) == []
    assert said(FIRST, pp=2) == [
        "format.except: layer 4 has other formats than layer 0, and TensorRT-LLM looks both up as layer 0 of a "
        "stage of 4; set engine.pp to 1, or give every stage the same formats"
    ]
    both = {"default": "fp8", "except": {"model.layers.[04].*": "none"}}
    assert said(both, pp=2) == []
    assert len(said(both, pp=4)) == 1


def test_rows_of_fp8_have_no_neighbours():
    for other in ("none", "fp8"):
        (told,) = said({"default": "fp8_rowwise", "except": {"*.down_proj": other}})
        assert told.startswith(
            f"format.except: TensorRT-LLM knows fp8_rowwise for a whole model only, not beside {other}"
        )


def test_int4_shards_are_whole_tiles_of_the_kernels():
    assert said("int4_awq", tp=8) == []
    told, dense = said("int4_awq", tp=2, num_attention_heads=8, num_key_value_heads=2, head_dim=40)
    assert "160 inputs and 1024 outputs of attention.dense" in dense
    assert told.startswith("engine.tp: 2 gives each rank 1024 inputs and 240 outputs of attention.qkv;")
    assert "take multiples of 64" in told
    assert said("fp8", tp=2, num_attention_heads=8, num_key_value_heads=2, head_dim=40) == []


def test_int8_weights_wait_for_the_builder_and_nothing_else_does():
    assert stored(Precision.parse("int8_wo")) == Precision.parse("none")
    mixed = Precision.parse({"default": "fp8", "except": {"*.down_proj": "int8_wo", "*.o_proj": "int4_wo"}})
    waiting = stored(mixed)
    assert waiting.of("model.layers.0.mlp.down_proj").name == "none"
    assert waiting.of("model.layers.0.self_attn.o_proj").name == "int4_wo"
    assert waiting.of("model.layers.0.mlp.up_proj").name == "fp8"
    for fmt in FORMATS.keys() - {"int8_wo"}:
        assert stored(Precision.parse(fmt)) == Precision.parse(fmt)


def test_linears_that_int8_spares_are_named_as_modules_and_as_weights():
    shape = read_shape(CONFIG)
    block = engine_config(shape, Precision.parse("int8_wo"), 1, 1)["quantization"]
    assert block["exclude_modules"] == list(UNTOUCHED)
    spared = Precision.parse({"default": "int8_wo", "except": {"model.layers.1.mlp.down_proj": "none"}})
    names = engine_config(shape, spared, 1, 1)["quantization"]["exclude_modules"]
    assert names[:2] == ["transformer.layers.1.mlp.proj", "transformer.layers.1.mlp.proj.weight"]
    assert names[2:] == list(UNTOUCHED)


@pytest.mark.parametrize(
    ("version", "read"),
    [
        ("0.16.0", (0, 16, 0)),
        ("1.2.0rc3", (1, 2, 0)),
        ("0.17", (0, 17)),
        ("0.17.0.dev1", (0, 17, 0)),
        ("", (99,)),
    ],
)
def test_versions_are_read_as_numbers(version: str, read: tuple[int, ...]):
    assert numbers(version) == read


@pytest.mark.parametrize(
    ("version", "loads"), [("0.12.0", False), (V016, False), ("1.0.0", True), ("", True)]
)
def test_experts_in_blocks_need_a_version_that_has_them(version: str, loads: bool):
    sizes = {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
    }
    told = said("int4_wo", version=version, **sizes)
    assert told == [] if loads else f"experts of TensorRT-LLM {version} have no scales per block" in told[0]
    assert said({"default": "int4_wo", "except": {"*experts*": "fp8"}}, version=version, **sizes) == []


def test_networks_without_stages_are_refused_over_stages():
    phi3 = {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "pad_token_id": None,
        "num_key_value_heads": 8,
    }
    gemma2 = {
        "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "query_pre_attn_scalar": 48,
        "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 8, "tie_word_embeddings": True,
    }  # fmt: skip
    for version in ("0.10.0", V016, "1.2.0", ""):
        (told,) = said(pp=2, version=version, **phi3)
        assert told.startswith(
            "engine.pp: TensorRT-LLM's Phi3ForCausalLM has embedding, norm and head on every"
        )
    (told,) = said(pp=2, version="0.15.0", **gemma2)
    assert told.startswith("engine.pp: TensorRT-LLM 0.15.0 shares the embedding table of Gemma2ForCausalLM")
    assert said(pp=2, **gemma2) == said(version="0.15.0", **gemma2) == []


def test_phi3_of_0_10_has_no_grouped_heads():
    grouped = {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "pad_token_id": None}
    (told,) = said(version="0.10.0", **grouped)
    assert told.startswith(
        "model: TensorRT-LLM 0.10.0 gives Phi3ForCausalLM as many key heads as query heads"
    )
    assert said(version="0.11.0", **grouped) == []


def test_what_is_left_of_int8_wo_is_quantized_before_0_13():
    mixed = {"default": "int8_wo", "except": {"*.down_proj": "none"}}
    (told,) = said(mixed, version="0.12.0")
    assert told.startswith(
        "format: TensorRT-LLM 0.12.0 quantizes the linears of format none too when it loads"
    )
    assert said(mixed, version="0.13.0") == []
