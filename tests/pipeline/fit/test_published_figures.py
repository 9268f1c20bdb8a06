"""The planner's formulas against what users and maintainers of TensorRT-LLM logged.

Each figure names its source; a tolerance is as wide as the worst of the figures that its formula stands for.
"""

import dataclasses

import pytest

from pipeline.backend import memory_formulas as formulas
from pipeline.backend.engine_memory import Limits
from pipeline.checkpoint.slicing import rank_bytes
from pipeline.fit.planner import Planner
from pipeline.models.shape import ModelShape
from pipeline.process.gpus import TARGETS
from recipes.precision import Precision
from tests.pipeline.fit.shapes import LLAMA2_7B, LLAMA3_8B, LLAMA3_70B, QWEN_05B, QWEN_15B, wanted

MIB, GIB = 1 << 20, 1 << 30


def test_keys_and_values_of_llama_2_7b_are_those_of_the_memory_guide():
    """docs/source/reference/memory.md: 63.44 GiB hold 259,840 tokens in 4060 blocks of 64; exact."""
    assert formulas.kv_token_bytes(LLAMA2_7B, "fp8", 1, 1) == 262_144
    assert formulas.kv_token_bytes(LLAMA2_7B, "auto", 2, 1) == 262_144


def test_the_pool_of_the_memory_guide_has_4060_blocks():
    """memory.md: 70.48 GiB are left, of which 0.9 are taken; exact."""
    planner = Planner(wanted(LLAMA2_7B, "fp8", kv_cache="fp8", max_batch_size=256), TARGETS["h100"])
    left = dataclasses.replace(planner.fit().ranks[0], kv_pool=int(0.9 * 70.48 * GIB))
    assert planner.tokens(left) == 4060 * 64 == 259_840


def test_keys_and_values_of_gemma_7b_are_those_of_a_triton_log():
    """triton-inference-server/tensorrtllm_backend issue 456: 54,022,635,520 bytes for 117,760 tokens; exact."""
    gemma = dataclasses.replace(LLAMA2_7B, num_layers=28, num_heads=16, num_kv_heads=16, head_dim=256)
    assert formulas.kv_token_bytes(gemma, "auto", 1, 1) == 458_752 == 54_022_635_520 / 117_760


@pytest.mark.parametrize(
    ("shape", "kv_cache", "bytes_per_token"),
    [
        (LLAMA2_7B, "auto", 69_524_783_104 / 132_608),  # issue 1400
        (QWEN_05B, "auto", 12_288),  # issue 1188: 4.53 GiB for 395,776 tokens
        (LLAMA3_70B, "fp8", 80 * 2048),  # README of examples/llama, 0.16: 32K tokens take about 5 GB
    ],
)
def test_keys_and_values_of_other_logs(shape: ModelShape, kv_cache: str, bytes_per_token: float):
    assert formulas.kv_token_bytes(shape, kv_cache, 1, 1) == bytes_per_token


@pytest.mark.parametrize(
    ("shape", "fmt", "tokens", "rows", "mib", "tolerance"),
    [
        # TensorRT-LLM issue 3636: max_num_tokens 128000, context logits gathered.
        (LLAMA3_8B, "none", 128_000, 128_000, 37_812.51, 1e-5),
        # issue 1188: Qwen2.5-Coder-0.5B in int8 with the default limits, then with 512 tokens of one request.
        (QWEN_05B, "int8_wo", 8192, 2048, 773.51, 1e-4),
        (QWEN_05B, "int8_wo", 512, 1, 43.26, 1e-3),
        # A public log of DeepSeek-R1-Distill-Qwen-1.5B in int4 with 0.17 and the default limits.
        (QWEN_15B, "int4_wo", 8192, 2048, 921.51, 1e-4),
        # memory.md, and a public benchmark of Llama-2-7B in FP8 with 0.11 (batch 256).
        (LLAMA2_7B, "fp8", 8192, 256, 1134.01, 0.03),
        (LLAMA2_7B, "fp8", 8192, 256, 1112.00, 0.03),
    ],
)
def test_execution_contexts_of_logs(
    shape: ModelShape, fmt: str, tokens: int, rows: int, mib: float, tolerance: float
):
    tensors = formulas.activation_bytes(shape, Precision.parse(fmt), 1, 1, tokens)
    assert (tensors + formulas.head_bytes(shape, 1, rows)) / MIB == pytest.approx(mib, rel=tolerance)


LOGGED = [
    # batch, positions, vocabulary; runtime buffers and decoder in GiB as logged
    (2048, 32768, 151_936, 2.66, 5.76),  # issue 1188
    (4096, 4098, 50_400, 1.14, 4.35),  # a public trtllm-bench log of GPT-J
    (256, 2048, 32_000, 43.29 / 1024, 180.30 / 1024),  # memory.md
]


@pytest.mark.parametrize(("batch", "length", "vocab", "runtime", "decoder"), LOGGED)
def test_runtime_buffers_and_decoders_of_logs(
    batch: int, length: int, vocab: int, runtime: float, decoder: float
):
    """Runtime buffers to 1 %; decoders to 17 %, and never more than 1 % too small."""
    assert formulas.runtime_bytes(batch, vocab, batch, length) / GIB == pytest.approx(runtime, rel=0.01)
    assert 0.99 < formulas.decoder_bytes(batch, vocab) / GIB / decoder < 1.17


@pytest.mark.parametrize(
    ("shape", "fmt", "mib", "tolerance"),
    [
        (LLAMA2_7B, "fp8", 6695, 0.004),  # memory.md: loaded engine size
        (LLAMA3_8B, "none", 15_388, 0.01),  # issue 3636
        (QWEN_05B, "int8_wo", 875, 0.02),  # issue 1188
        (LLAMA3_8B, "fp8", 8.46 * 1024, 0.001),  # issue 6294: "Rank 0 uses 8.46 GB for model weights"
    ],
)
def test_engines_are_as_large_as_the_checkpoint_of_their_rank(
    shape: ModelShape, fmt: str, mib: float, tolerance: float
):
    assert rank_bytes(shape, Precision.parse(fmt), 1, 1)[0] / MIB == pytest.approx(mib, rel=tolerance)


def test_a_build_takes_the_host_memory_of_a_logged_one():
    """TensorRT-LLM issue 2324: Gemma-2-9B, 19,386 MiB on the GPU, 40,291 MiB of host memory."""
    assert formulas.build_host_bytes(19_386 * MIB) / MIB == pytest.approx(40_291, rel=0.02)


def test_quantizing_70b_in_fp8_takes_more_than_its_weights():
    """README of examples/llama: the BF16 weights alone are 140 GB."""
    assert rank_bytes(LLAMA3_70B, Precision.parse("none"), 1, 1)[0] / 1e9 == pytest.approx(140, rel=0.01)


def test_the_log_of_the_memory_guide_from_its_recipe():
    """memory.md from the recipe alone: 259,840 tokens on an H100; within 1 %.

    Its engine gathers no context logits: it is planned with the rows of its batch.
    """
    plan = Planner(
        wanted(LLAMA2_7B, "fp8", kv_cache="fp8", max_batch_size=256, max_seq_len=2048), TARGETS["h100"]
    )
    sizes = Limits(
        batch=256, seq_len=2048, num_tokens=8192, logit_rows=256, tokens_per_block=64, free_fraction=0.9
    )
    (rank,) = plan.stages(plan.request, sizes)
    assert plan.tokens(rank) == pytest.approx(259_840, rel=0.01)
