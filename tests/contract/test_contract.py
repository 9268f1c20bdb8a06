"""The contract toolchain refuses what the real command refuses, and changes what it changes."""

import json
import subprocess  # noqa: TID251 programs of the toolchain are started as a shell would
from pathlib import Path
from typing import Any

import pytest

from tests.contract import rewrites
from tests.contract.toolchain import VERSIONS, toolchain

CONFIG = {
    "architecture": "LlamaForCausalLM", "dtype": "bfloat16", "max_position_embeddings": 4096,
    "mapping": {"world_size": 1, "tp_size": 1, "pp_size": 1},
    "quantization": {"quant_algo": None, "kv_cache_quant_algo": None},
}  # fmt: skip


def called(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [str(root / "bin" / "trtllm-build"), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("version", "arguments", "told"),
    [
        ("0.16.0", ["--builder_opt", "3"], "unrecognized arguments: --builder_opt"),
        ("0.16.0", ["--use_paged_context_fmha"], "expected one argument"),
        ("0.16.0", ["--multiple_profiles", "true"], "invalid choice: 'true'"),
        ("0.16.0", ["--max_batch_size", "many"], "invalid int value"),
        ("0.8.0", ["--output_timing_cache", "x"], "unrecognized arguments: --output_timing_cache"),
    ],
)
def test_an_option_that_the_version_has_not_ends_with_2(
    version: str, arguments: list[str], told: str, tmp_path: Path
):
    done = called(toolchain(tmp_path / "t", version), *arguments)
    assert done.returncode == 2
    assert told in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_has_its_own_options(version: str, tmp_path: Path):
    help_text = called(toolchain(tmp_path / "t", version), "--help").stdout
    assert "--max_batch_size" in help_text
    assert ("--gather_context_logits" in help_text) is True
    assert ("--kv_cache_type" in help_text) is (tuple(map(int, version.split(".")[:2])) >= (0, 13))


def effective(**changed):
    """The build_config of a few arguments of 0.16."""
    asked = {
        "max_batch_size": 8, "max_input_len": 1024, "max_seq_len": None, "max_beam_width": 1,
        "max_num_tokens": 8192, "opt_num_tokens": None, "max_draft_len": 0, "gather_context_logits": False,
        "speculative_decoding_mode": None, "reduce_fusion": "enable", "user_buffer": "enable",
        "use_paged_context_fmha": "disable", "use_fp8_context_fmha": "enable", "multiple_profiles": "disable",
        "tokens_per_block": 64, "nccl_plugin": "auto", "gpt_attention_plugin": "auto", **changed,
    }  # fmt: skip
    plugins = {
        "reduce_fusion": "switch", "user_buffer": "switch", "use_paged_context_fmha": "switch",
        "use_fp8_context_fmha": "switch", "multiple_profiles": "switch", "tokens_per_block": "int",
        "nccl_plugin": "word", "gpt_attention_plugin": "word",
    }  # fmt: skip
    options = {
        name: {"kind": "plugin" if name in plugins else "cli", "type": plugins.get(name, "int")}
        for name in asked
    }
    return rewrites.build_config(asked, options, CONFIG, "0.16.0")


def test_lengths_are_filled_in_and_clipped():
    built = effective(max_num_tokens=1 << 20)
    assert (built["max_seq_len"], built["opt_num_tokens"]) == (4096, 8)
    assert built["max_num_tokens"] == 8 * 4096
    assert effective(max_num_tokens=1)["max_num_tokens"] == 64


def test_draft_tokens_lengthen_the_engine():
    built = effective(max_seq_len=128, max_draft_len=5, speculative_decoding_mode="draft_tokens_external")
    assert (built["max_seq_len"], built["speculative_decoding_mode"]) == (133, 2)


def test_what_has_no_use_is_turned_off():
    plugins = effective()["plugin_config"]
    off = ("reduce_fusion", "user_buffer", "use_fp8_context_fmha")
    assert [plugins[name] for name in off] == [False] * 3
    assert (plugins["nccl_plugin"], plugins["gpt_attention_plugin"]) == (None, "auto")


@pytest.mark.parametrize(
    "changed",
    [
        {"multiple_profiles": "enable", "opt_num_tokens": 8},
        {"gather_context_logits": True, "max_draft_len": 3},
    ],
)
def test_what_the_command_refuses_is_refused(changed: dict[str, Any]):
    with pytest.raises(RuntimeError):
        effective(**changed)


@pytest.mark.slow
def test_the_probe_reads_its_metadata(tmp_path: Path):
    root = toolchain(tmp_path / "t", "1.2.0")
    code = (
        "from importlib import metadata; print(metadata.version('tensorrt_llm'), metadata.version('torch'))"
    )
    done = subprocess.run([root / "bin" / "python", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1.2.0", "2.9.1"]
    assert json.loads((root / "behaviour.json").read_text())["gpus"] == 2
