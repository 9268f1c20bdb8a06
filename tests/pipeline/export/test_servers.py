"""trtllm-serve and vLLM: the command lines, by version and by what the engine and the checkpoint say."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from pipeline.backend.deployment import Checkpoint, Deployment
from pipeline.errors import ExportRefused
from pipeline.export import exporters
from pipeline.export.export_settings import parse_settings
from pipeline.export.exporters import trtllm_serve, vllm
from tests.pipeline.export import published
from tests.present import present


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    version = published.Version(toolchain="1.2.0")
    return published.deployment(version, tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def torch_engine(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return published.deployment(published.TORCH_FP8_TP2, tmp_path_factory.mktemp("torch"))


def export(target, deployment, *pairs) -> dict[str, str]:
    settings = parse_settings(exporters.exporter(target).settings, pairs, root="/models/x")
    return exporters.export(target, deployment, settings)[0]


def words(module: ModuleType, deployment, *pairs):
    """Option -> value of a command line."""
    settings = parse_settings(module.EXPORTER.settings, pairs, root="/models/x")
    assert module.EXPORTER.reasons(deployment, settings) == []
    if module is trtllm_serve:
        files = module.EXPORTER.files(deployment, settings)
        argv = module.arguments(deployment, settings, yaml.safe_load(files.get("options.yaml", "{}")))
    else:
        argv = module.arguments(deployment, settings)
    flags = [*argv[1:], "--"]
    return {
        one: None if two.startswith("--") else two for one, two in pairwise(flags) if one.startswith("--")
    }


def checkpoint_of(
    deployment: Deployment, *, architecture: str = "LlamaForCausalLM", **algorithms
) -> Checkpoint:
    return Checkpoint(path=deployment.engine, architecture=architecture, **algorithms)


def version(deployment: Deployment, text: str) -> Deployment:
    return replace(deployment, versions={**deployment.versions, "tensorrt_llm": text})


def test_limits_of_the_command_line_are_the_engines(engine: Deployment):
    said = words(trtllm_serve, engine)
    assert said["--max_batch_size"] == str(engine.max_batch_size)
    assert said["--max_seq_len"] == str(engine.max_seq_len)
    assert said["--max_num_tokens"] == str(present(engine.limits).max_num_tokens)
    assert (said["--tp_size"], said["--pp_size"]) == ("2", "1")


@pytest.mark.parametrize(
    ("text", "has", "lacks"),
    [
        ("0.18.2", set(), {"--backend", "--extra_llm_api_options", "--no-telemetry"}),
        ("1.0.0", {"--backend", "--extra_llm_api_options"}, {"--no-telemetry"}),
        ("1.2.1", {"--backend", "--extra_llm_api_options"}, {"--no-telemetry"}),
    ],
)
def test_options_follow_the_version(engine: Deployment, text: str, has, lacks: set[str]):
    said = words(trtllm_serve, version(engine, text)).keys()
    assert has <= said
    assert not lacks & said


def test_telemetry_is_off_where_there_is_some(torch_engine: Deployment):
    assert "--no-telemetry" in words(trtllm_serve, version(torch_engine, "1.3.0"))
    assert "TRTLLM_NO_USAGE_STATS=1" in export("trtllm-serve", torch_engine)["serve.sh"]


def test_the_yaml_file_and_the_command_line_agree(torch_engine: Deployment):
    said = words(trtllm_serve, torch_engine)
    document = yaml.safe_load(export("trtllm-serve", torch_engine)["options.yaml"])
    assert document == torch_engine.llm_options
    for name in ("max_batch_size", "max_seq_len", "max_num_tokens"):
        assert said[f"--{name}"] == str(document[name])
    assert said["--tp_size"] == str(document["tensor_parallel_size"])


def test_windows_are_told_and_shut_reuse_out(engine: Deployment):
    def cache(deployment):
        return yaml.safe_load(export("trtllm-serve", deployment)["options.yaml"])["kv_cache_config"]

    assert "max_attention_window" not in cache(engine)
    assert cache(engine)["enable_block_reuse"] is True
    told = cache(replace(engine, limits=replace(present(engine.limits), windows=(512, 8192))))
    assert (told["max_attention_window"], told["enable_block_reuse"]) == ([512, 8192], False)


def test_an_old_release_reads_no_yaml_file(engine: Deployment):
    assert "options.yaml" not in export("trtllm-serve", version(engine, "0.18.2"))


@pytest.mark.parametrize(
    ("text", "limits", "pairs", "reason"),
    [
        ("0.16.0", {}, [], "options for engines are known from 0.18 to 1.2"),
        ("1.3.0", {}, [], "options for engines are known from 0.18 to 1.2"),
        ("0.18.2", {}, ["chunked_context=true"], "takes it from no YAML file"),
        (
            "1.2.0",
            {"paged_context": False},
            ["kv_cache_reuse=true"],
            "kv_cache_reuse needs an engine built with",
        ),
        ("1.2.0", {"speculation": "medusa"}, [], "the engine is built for medusa; serve it with Triton"),
        (
            "0.21.0",
            {"windows": (512, 8192)},
            [],
            "windows, which TensorRT-LLM 0.21.0 takes from no YAML file",
        ),
        ("1.2.0", {"windows": (512, 8192)}, ["kv_cache_reuse=true"], "overwrite what would be used again"),
        ("1.2.0", {"gpus_per_node": 1}, [], "2 ranks do not fit on one host of 1 GPUs"),
    ],
)
def test_engines_that_trtllm_serve_cannot_serve_are_refused(
    engine: Deployment, text: str, limits, pairs: list[str], reason: str
):
    deployment = version(replace(engine, limits=replace(present(engine.limits), **limits)), text)
    with pytest.raises(ExportRefused) as refused:
        export("trtllm-serve", deployment, *pairs)
    assert reason in str(refused.value)


def test_measured_options_are_not_overridden(torch_engine: Deployment):
    with pytest.raises(ExportRefused, match=r"kv_cache_fraction: llm_options.yaml sets it"):
        export("trtllm-serve", torch_engine, "kv_cache_fraction=0.5")


@pytest.mark.parametrize(
    ("algo", "kv", "expected"),
    [
        ("FP8", "FP8", {"--quantization": "modelopt", "--kv-cache-dtype": "fp8"}),
        ("FP8", None, {"--quantization": "modelopt", "--kv-cache-dtype": "auto"}),
        ("FP8_PER_CHANNEL_PER_TOKEN", None, {"--quantization": "modelopt", "--kv-cache-dtype": "auto"}),
        (None, None, {"--kv-cache-dtype": "auto"}),
    ],
)
def test_vllm_gets_the_formats_it_loads(
    engine: Deployment, algo: str | None, kv: str | None, expected: dict[str, Any]
):
    checkpoint = checkpoint_of(engine, quant_algo=algo, kv_cache_quant_algo=kv)
    said = words(vllm, replace(engine, checkpoint=checkpoint))
    assert expected.items() <= said.items()
    assert ("--quantization" in said) == (algo is not None)
    assert (said["--max-model-len"], said["--max-num-seqs"]) == ("8192", "64")
    assert said["--tensor-parallel-size"] == "2"


@pytest.mark.parametrize("algo", ["W4A16_AWQ", "W4A8_AWQ", "W8A8_SQ_PER_CHANNEL", "W8A16", "MIXED_PRECISION"])
def test_vllm_is_refused_the_formats_it_does_not_load(engine: Deployment, algo: str):
    checkpoint = checkpoint_of(engine, quant_algo=algo, kv_cache_quant_algo=None)
    with pytest.raises(ExportRefused, match=f"vLLM loads no ModelOpt checkpoint of {algo}; it loads FP8,"):
        export("vllm", replace(engine, checkpoint=checkpoint))


def test_vllm_is_refused_int8_scales_of_the_kv_cache(engine: Deployment):
    checkpoint = checkpoint_of(engine, quant_algo="FP8", kv_cache_quant_algo="INT8")
    with pytest.raises(ExportRefused, match="vLLM takes no INT8 scales for the KV cache"):
        export("vllm", replace(engine, checkpoint=checkpoint))


def test_vllm_is_refused_scales_beside_unquantized_weights(engine: Deployment):
    checkpoint = checkpoint_of(engine, quant_algo=None, kv_cache_quant_algo="FP8")
    with pytest.raises(ExportRefused, match="scales of the KV cache from quantized checkpoints only"):
        export("vllm", replace(engine, checkpoint=checkpoint))


@pytest.mark.parametrize(
    ("architecture", "algo", "kv", "reason"),
    [
        ("Gemma2ForCausalLM", "FP8", None, ""),
        ("Gemma3ForCausalLM", "FP8_PER_CHANNEL_PER_TOKEN", None, ""),
        ("Gemma3ForCausalLM", "FP8", "FP8", "scales of the KV cache for Gemma3ForCausalLM; build with kv_cache"),
        ("Phi3ForCausalLM", "FP8", None, ""),
        ("Phi3ForCausalLM", "FP8_PER_CHANNEL_PER_TOKEN", None, "scales per channel for Phi3ForCausalLM; build"),
        ("MixtralForCausalLM", "FP8", None, ""),
        ("MixtralForCausalLM", "FP8_PER_CHANNEL_PER_TOKEN", None, "scales per channel for MixtralForCausalLM"),
        ("Qwen2MoeForCausalLM", "FP8", "FP8", "scales of the KV cache for Qwen2MoeForCausalLM"),
        ("Qwen2MoeForCausalLM", None, None, ""),
    ],
)  # fmt: skip
def test_vllm_gets_of_a_family_what_its_loader_takes(
    engine: Deployment, architecture: str, algo: str | None, kv: str | None, reason: str
):
    checkpoint = checkpoint_of(engine, architecture=architecture, quant_algo=algo, kv_cache_quant_algo=kv)
    deployment = replace(engine, checkpoint=checkpoint)
    if not reason:
        assert "--quantization" in words(vllm, deployment) or algo is None
        return
    with pytest.raises(ExportRefused) as refused:
        export("vllm", deployment)
    assert reason in str(refused.value)


def test_a_draft_of_the_pytorch_backend_is_named_by_its_place(torch_engine: Deployment):
    speculation: dict[str, Any] = {
        "decoding_type": "DraftTarget",
        "max_draft_len": 4,
        "speculative_model_dir": "draft",
    }
    deployment = replace(
        torch_engine, llm_options={**present(torch_engine.llm_options), "speculative_config": speculation}
    )
    document = yaml.safe_load(export("trtllm-serve", deployment)["options.yaml"])
    assert document["speculative_config"] == {**speculation, "speculative_model_dir": "/models/x/draft"}
    (deployment.engine / "draft").mkdir()
    settings = parse_settings(trtllm_serve.ServeSettings, [], root="/models/x")
    assert "draft" in trtllm_serve.EXPORTER.trees(deployment, settings)


def test_vllm_needs_the_checkpoint_in_the_store(engine: Deployment):
    with pytest.raises(ExportRefused, match="vLLM loads no tensorrt engine but the quantized checkpoint"):
        export("vllm", replace(engine, checkpoint=None))


@pytest.mark.parametrize(("ep", "flag"), [(1, False), (2, True)])
def test_vllm_spreads_experts_over_all_ranks_or_none(engine: Deployment, ep: int, flag: bool):
    assert ("--enable-expert-parallel" in words(vllm, replace(engine, ep=ep))) is flag
    with pytest.raises(ExportRefused, match="vLLM knows ep 1 or ep 4"):
        export("vllm", replace(engine, tp=4, ep=2))


@pytest.mark.parametrize("target", ["triton", "trtllm-serve"])
def test_engines_of_our_own_runtime_are_refused_with_the_command_that_serves_them(
    target: str, tmp_path: Path
):
    deployment = published.deployment(published.AOTI, tmp_path)
    with pytest.raises(ExportRefused, match="`enginery generate demo/int8:1 PROMPT` serves it here"):
        export(target, deployment)


def test_unknown_targets_list_the_known_ones():
    with pytest.raises(ExportRefused, match="unknown target 'tgi'; have k8s, triton, trtllm-serve, vllm"):
        exporters.exporter("tgi")


def test_a_missing_package_is_an_instruction(run_python: Callable[[str], str]):
    code = """
import sys
sys.modules["tritonclient"] = None
from pipeline.export import exporters
from pipeline.errors import BackendUnavailable
try:
    exporters.exporter("triton")
except BackendUnavailable as exc:
    print(exc)
for target in ("vllm", "trtllm-serve", "k8s"):
    exporters.exporter(target)
"""
    wanted = "exporting to triton needs the package tritonclient; install enginery[triton]"
    assert run_python(code).strip() == wanted
