"""Backend trtllm_torch and model families: only what the library computes as the model asks is served."""

from typing import Any

import pytest

from pipeline import engines
from pipeline.models.config_json import read_shape
from tests.pipeline.engines import test_trtllm_torch as plain

BACKEND = engines.backend("trtllm_torch")
WINDOW = {"sliding_window": 4096}
FAMILIES: dict[str, Any] = {
    "gemma2": {"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "head_dim": 16, **WINDOW},
    "gemma3": {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "head_dim": 16, **WINDOW},
    "mistral": {"architectures": ["MistralForCausalLM"], "model_type": "mistral", **WINDOW},
    "mixtral": {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "phi3": {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "pad_token_id": None,
        "sliding_window": 2047,
    },
}


def reasons(family: str, fmt="none", **more) -> list[str]:
    """What speaks against an engine of the family."""
    shape = read_shape(plain.CONFIG | FAMILIES[family])
    return BACKEND.reasons(plain.wanted(fmt=fmt, shape=shape, **{"max_seq_len": 2047, **more}))


@pytest.mark.parametrize(
    ("family", "fmt", "served"),
    [
        ("gemma3", "none", True), ("gemma3", "fp8", True), ("gemma3", "fp8_rowwise", True),
        ("gemma3", "int4_awq", False), ("gemma3", "w4a8_awq", True), ("mistral", "int4_awq", True),
        ("phi3", "none", True), ("phi3", "fp8", True), ("phi3", "fp8_rowwise", False),
        ("phi3", "int4_awq", False), ("phi3", "w4a8_awq", False), ("mixtral", "fp8", True),
        ("mixtral", "fp8_rowwise", False), ("gemma2", "none", False),
    ],
)  # fmt: skip
def test_a_family_is_served_in_the_formats_that_are_loaded_whole(family: str, fmt: str, served: bool):
    assert (reasons(family, fmt) == []) is served


def test_smoothing_that_would_be_dropped_is_named():
    [reason] = reasons("gemma3", "int4_awq")
    assert reason.startswith("format: int4_awq of Gemma3ForCausalLM keeps its smoothing beside the linears")
    assert "choose fp8 or w4a8_awq, or engine.backend 'tensorrt'" in reason


def test_scales_of_fused_projections_need_a_version_that_hands_them_on():
    [reason] = reasons("phi3", "fp8", version="1.0.0")
    assert "not loaded by the PyTorch backend of TensorRT-LLM 1.0.0; choose a toolchain of 1.1" in reason
    assert reasons("phi3", "none", version="1.0.0") == []


@pytest.mark.parametrize(
    ("family", "longest", "served"),
    [("mistral", 4096, True), ("mistral", 4097, False), ("phi3", 2047, True), ("phi3", 4096, False),
     ("gemma3", 8192, True)],
)  # fmt: skip
def test_windows_that_are_not_applied_limit_the_length(family: str, longest: int, served: bool):
    found = reasons(family, max_seq_len=longest)
    assert (found == []) is served
    assert all(reason.startswith("engine.max_seq_len: layers of this ") for reason in found)
    assert all(f"and all {longest} in TensorRT-LLM's PyTorch backend; lower it to" in one for one in found)


def test_a_model_without_a_class_there_is_refused():
    [reason] = reasons("gemma2")
    assert reason.startswith("model: Gemma2ForCausalLM is not served")
