"""Triton repositories: read back through Triton's own schema, every value the one that was asked for."""

import json
from dataclasses import replace
from typing import Any

import pytest
import yaml
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2 as schema

from pipeline.backend.deployment import Deployment
from pipeline.errors import ExportRefused
from pipeline.export import exporters
from pipeline.export.export_settings import UNSAFE, parse_settings
from pipeline.export.triton.triton_settings import TritonSettings
from tests.pipeline.export import published
from tests.pipeline.export.golden_files import CASES, stored
from tests.present import present

MODELS = {"preprocessing", "postprocessing", "tensorrt_llm", "tensorrt_llm_bls", "ensemble"}


def parse(text):
    return text_format.Parse(text, schema.ModelConfig())


def repository(files: dict[str, Any]):
    """Model -> parsed configuration."""
    return {name.split("/")[1]: parse(text) for name, text in files.items() if name.endswith("config.pbtxt")}


def parameters(config):
    return {name: value.string_value for name, value in config.parameters.items()}


def export(deployment, *pairs, root="/models/x") -> dict[str, str]:
    return exporters.export("triton", deployment, parse_settings(TritonSettings, pairs, root=root))[0]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return published.deployment(published.ENGINE_FP8_TP2, tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return published.deployment(published.ENGINE_WITH_DRAFT, tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def torch_engine(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return published.deployment(published.TORCH_FP8_TP2, tmp_path_factory.mktemp("torch"))


def changed(deployment, **limits):
    """The deployment with other limits of its engine."""
    return replace(deployment, limits=replace(deployment.limits, **limits))


@pytest.mark.parametrize("case", [case for case in CASES if "triton" in case or case == "0.16.0/k8s"])
def test_golden_configurations_are_read_by_tritons_schema(case: str):
    models = repository(stored(case))
    assert all(config.name == name for name, config in models.items())


def test_a_misspelt_field_would_be_noticed():
    with pytest.raises(text_format.ParseError):
        parse('name: "x" max_bach_size: 4')


def test_the_five_models_of_an_engine_are_there(engine: Deployment):
    assert repository(export(engine)).keys() == MODELS


sizes = st.integers(1, 64)
choices = st.fixed_dictionaries(
    {},
    optional={
        "max_batch_size": sizes,
        "decoupled": st.booleans(),
        "scheduler_policy": st.sampled_from(["max_utilization", "guaranteed_no_evict"]),
        "queue_delay_us": st.integers(0, 10**6),
        "queue_size": st.integers(0, 10**4),
        "kv_cache_fraction": st.floats(0.05, 0.95),
        "max_kv_tokens": st.integers(1, 10**7),
        "kv_host_memory_bytes": st.integers(0, 1 << 40),
        "kv_cache_reuse": st.booleans(),
        "chunked_context": st.booleans(),
        "max_beam_width": st.integers(1, 4),
        "exclude_input": st.booleans(),
        "bls_instances": sizes,
        "decoding_mode": st.sampled_from(["top_k", "top_p", "beam_search", "medusa", "eagle"]),
        "http_port": st.integers(1024, 65535),
    },
)
engines = st.fixed_dictionaries(
    {
        "paged_context": st.booleans(),
        "max_beam_width": st.integers(1, 4),
        "logits_dtype": st.sampled_from(["float32", "float16", "bfloat16"]),
        "speculation": st.sampled_from([None, "medusa", "eagle", "lookahead_decoding"]),
    }
)
LOOKAHEAD = {"speculation": "lookahead_decoding", "max_draft_len": 11}
versions = st.sampled_from(["0.12.0", "0.16.0", "0.17.0", "0.19.0", "1.0.0", "1.2.1"])


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(chosen=choices, limits=engines, version=versions)
def test_what_validates_says_the_same_after_reading_back(engine: Deployment, chosen, limits, version):
    deployment = replace(changed(engine, **limits), versions={"tensorrt_llm": version})
    settings_ = TritonSettings.model_validate({"root": "/models/x", **chosen})
    exporter = exporters.exporter("triton")
    if exporter.reasons(deployment, settings_):
        with pytest.raises(ExportRefused, match="cannot be exported to triton"):
            exporters.export("triton", deployment, settings_)
        return
    models = repository(exporter.files(deployment, settings_))
    llm, ensemble = models["tensorrt_llm"], models["ensemble"]
    batch = chosen.get("max_batch_size", deployment.max_batch_size)
    assert {config.max_batch_size for config in models.values()} == {batch}
    assert batch <= deployment.max_batch_size
    for name in ("tensorrt_llm", "tensorrt_llm_bls"):
        assert models[name].model_transaction_policy.decoupled == chosen.get("decoupled", False)
    assert llm.dynamic_batching.max_queue_delay_microseconds == chosen.get("queue_delay_us", 0)
    assert llm.dynamic_batching.default_queue_policy.max_queue_size == chosen.get("queue_size", 0)
    said = parameters(llm)
    assert said["gpt_model_path"] == "/models/x/engine"
    assert float(said["kv_cache_free_gpu_mem_fraction"]) == chosen.get("kv_cache_fraction", 0.9)
    assert said["batch_scheduler_policy"] == chosen.get("scheduler_policy", "guaranteed_no_evict")
    assert int(said["max_beam_width"]) <= limits["max_beam_width"]
    reused = said["enable_kv_cache_reuse"] == "true"
    assert reused == chosen.get("kv_cache_reuse", limits["paged_context"])
    assert not reused or limits["paged_context"]
    assert said["enable_chunked_context"] == "false" or limits["paged_context"]
    tokenizers = {parameters(models[name])["tokenizer_dir"] for name in ("preprocessing", "postprocessing")}
    assert tokenizers == {"/models/x/engine/tokenizer"}
    wanted = schema.TYPE_FP16 if limits["logits_dtype"] == "float16" else schema.TYPE_FP32
    for config in (llm, ensemble, models["tensorrt_llm_bls"]):
        kinds = {tensor.data_type for tensor in config.output if tensor.name.endswith("_logits")}
        assert kinds == {wanted}
    assert "lookahead" not in said
    assert models["tensorrt_llm_bls"].instance_group[0].count == chosen.get("bls_instances", batch)


@pytest.mark.parametrize("version", ["0.16.0", "1.2.0"])
def test_the_ensemble_connects_tensors_that_exist_and_of_one_type(engine: Deployment, version: str):
    models = repository(export(replace(engine, versions={"tensorrt_llm": version})))
    ensemble = models["ensemble"]
    known = {tensor.name: tensor.data_type for tensor in [*ensemble.input, *ensemble.output]}
    made = {tensor.name for tensor in ensemble.input}
    for step in ensemble.ensemble_scheduling.step:
        model = models[step.model_name]
        inputs = {tensor.name: tensor for tensor in model.input}
        outputs = {tensor.name: tensor for tensor in model.output}
        for name, outer in step.input_map.items():
            assert outer in made, outer
            assert known.setdefault(outer, inputs[name].data_type) == inputs[name].data_type
        required = {name for name, tensor in inputs.items() if not tensor.optional}
        assert required <= step.input_map.keys()
        for name, outer in step.output_map.items():
            assert known.setdefault(outer, outputs[name].data_type) == outputs[name].data_type
            made.add(outer)
    assert {tensor.name for tensor in ensemble.output} <= made


@pytest.mark.parametrize(
    ("version", "has", "lacks"),
    [("0.16.0", {"min_length", "random_seed"}, {"seed"}), ("1.2.0", {"min_tokens", "seed"}, {"random_seed"})],
)
def test_tensor_names_follow_the_version(engine: Deployment, version: str, has: set[str], lacks: set[str]):
    models = repository(export(replace(engine, versions={"tensorrt_llm": version})))
    for name in ("tensorrt_llm", "ensemble", "tensorrt_llm_bls"):
        names = {tensor.name for tensor in models[name].input}
        assert has <= names
        assert not lacks & names


@pytest.mark.parametrize(
    ("limits", "version", "pairs", "reason"),
    [
        ({}, "0.16.0", ["max_batch_size=65"], "max_batch_size 65 exceeds the engine's 64"),
        ({}, "0.16.0", ["max_beam_width=2"], "max_beam_width 2 exceeds the engine's 1"),
        ({"paged_context": False}, "0.16.0", ["kv_cache_reuse=true"], "kv_cache_reuse needs an engine built with"),
        ({"paged_context": False}, "0.16.0", ["chunked_context=true"], "chunked_context needs an engine built"),
        ({"logits_dtype": "float16"}, "0.16.0", [], "declares float32; build with logits_dtype float32"),
        ({"logits_dtype": "bfloat16"}, "1.2.0", [], "logits are bfloat16; Triton takes float16, float32"),
        ({"gpus_per_node": 1}, "0.16.0", [], "2 ranks do not fit on one host of 1 GPUs"),
        ({}, "0.16.0", ["decoding_mode=medusa"], "decoding_mode medusa needs an engine built for it"),
        ({"speculation": "medusa"}, "0.16.0", ["decoding_mode=top_k"], "does not suit an engine built for medusa"),
        ({}, "0.16.0", ["decoding_mode=beam_search"], "does not suit max_beam_width 1"),
        ({}, "0.16.0", ["gpu_weights_percent=0.5"], "needs an engine built with weight_streaming"),
        ({}, "0.16.0", ["draft_choices={0}, {0, 0}"], "needs an engine built for medusa or eagle"),
        ({"speculation": "lookahead_decoding"}, "0.16.0", ["lookahead=7,7,7"], "build with 0.19 or later"),
        ({"speculation": "lookahead_decoding"}, "0.16.0", [], "cannot receive the sizes that a lookahead engine"),
        (LOOKAHEAD, "1.2.0", ["lookahead=4,3,4"], "4,3,4 proposes 15 tokens per step; the engine has room for 11"),
        ({}, "1.2.0", ["lookahead=4,3,4"], "lookahead needs an engine built for lookahead_decoding"),
        ({"speculation": "draft_tokens_external"}, "0.16.0", [], "the version has no draft engine"),
        ({}, "1.3.0", [], "known from 0.12 to 1.2"),
        ({}, "0.11.0", [], "known from 0.12 to 1.2"),
        ({}, "", [], "of no known version"),
    ],
)  # fmt: skip
def test_what_cannot_serve_is_refused_with_the_reason(
    engine: Deployment, limits, version: str, pairs: list[str], reason: str
):
    deployment = replace(changed(engine, **limits), versions={"tensorrt_llm": version})
    with pytest.raises(ExportRefused) as refused:
        export(deployment, *pairs)
    assert reason in str(refused.value)
    assert deployment.label in str(refused.value)


def test_a_draft_model_gets_its_own_engine_and_half_of_the_memory(pair: Deployment):
    models = repository(export(pair, "kv_cache_fraction=0.8"))
    assert models.keys() == MODELS | {"tensorrt_llm_draft"}
    target, draft = (parameters(models[name]) for name in ("tensorrt_llm", "tensorrt_llm_draft"))
    assert (target["gpt_model_path"], draft["gpt_model_path"]) == (
        "/models/x/engine",
        "/models/x/engine/draft",
    )
    assert target["kv_cache_free_gpu_mem_fraction"] == draft["kv_cache_free_gpu_mem_fraction"] == "0.4"
    assert parameters(models["tensorrt_llm_bls"])["tensorrt_llm_draft_model_name"] == "tensorrt_llm_draft"
    assert target["exclude_input_in_output"] == draft["exclude_input_in_output"] == "false"


@pytest.mark.parametrize(
    ("changes", "pairs", "reason"),
    [
        ({}, ["decoupled=true"], "a draft model works without it only"),
        ({}, ["exclude_input=true"], "proposals are looked for after the prompt"),
        ({}, ["kv_cache_reuse=false"], "a draft model needs kv_cache_reuse in both engines"),
        ({"tp": 2}, [], "the draft engine has tp 2, pp 1, the engine tp 1, pp 1"),
        ({"max_batch_size": 8}, [], "the draft engine serves 8 requests at once"),
    ],
)
def test_a_pair_that_does_not_go_together_is_refused(
    pair: Deployment, changes: dict[str, Any], pairs: list[str], reason: str
):
    with pytest.raises(ExportRefused) as refused:
        export(replace(pair, draft=replace(present(pair.draft), **changes)), *pairs)
    assert reason in str(refused.value)


def test_medusa_and_lookahead_engines_say_their_mode(engine: Deployment):
    built = changed(engine, speculation="medusa", max_draft_len=4, medusa_heads=1)
    assert parameters(repository(export(built))["tensorrt_llm"])["medusa_choices"] == "{0}, {1}, {2}, {3}"
    with pytest.raises(
        ExportRefused, match="2 nodes in 2 levels; the engine has room for 4 nodes, and 1 heads"
    ):
        export(built, "draft_choices={0}, {0, 0}")
    built = replace(built, limits=replace(built.limits, medusa_heads=2))
    medusa = export(built, "draft_choices={0}, {0, 0}, {1}")
    said = parameters(repository(medusa)["tensorrt_llm"])
    assert (said["decoding_mode"], said["medusa_choices"]) == ("medusa", "{0}, {0, 0}, {1}")
    late = replace(changed(engine, **LOOKAHEAD), versions={"tensorrt_llm": "1.2.0"})
    names = ("lookahead_window_size", "lookahead_ngram_size", "lookahead_verification_set_size")
    for pairs, sizes_ in ((["lookahead=3,2,5"], ["3", "2", "5"]), ([], ["3", "3", "3"])):
        said = parameters(repository(export(late, *pairs))["tensorrt_llm"])
        assert said["decoding_mode"] == "lookahead"
        assert [said[name] for name in names] == sizes_


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text(min_size=1, max_size=30))
def test_a_hostile_path_is_refused_or_arrives_unchanged(engine: Deployment, text):
    root = "/" + text
    hostile = {"", ".", ".."} & set(text.split("/")) or UNSAFE & set(text) or not text.isprintable()
    if hostile:
        with pytest.raises(ExportRefused, match="root"):
            export(engine, root=root)
        return
    files = export(engine, root=root)
    assert parameters(repository(files)["tensorrt_llm"])["gpt_model_path"] == f"{root}/engine"


@pytest.mark.parametrize(
    "root", ['/a"b', "/a\nb", "/a${x}", "/a'b", "/a`b`", "/a\\b", "rel", "/a/../b", "/a//b", "/"]
)
def test_paths_with_bad_characters_are_refused(engine: Deployment, root: str):
    with pytest.raises(ExportRefused, match="root"):
        export(engine, root=root)


def test_the_llm_api_variant_holds_the_measured_options(torch_engine: Deployment):
    files = export(torch_engine, "decoupled=true")
    document = yaml.safe_load(files["repository/tensorrt_llm/1/model.yaml"])
    assert document.pop("triton_config") == {"max_batch_size": 0, "decoupled": True}
    assert document.pop("model") == "/models/x/checkpoint"
    assert document.pop("backend") == "pytorch"
    assert document == torch_engine.llm_options
    config = parse(files["repository/tensorrt_llm/config.pbtxt"])
    assert (config.name, config.backend) == ("tensorrt_llm", "python")
    assert not config.HasField("model_transaction_policy")


@pytest.mark.parametrize(
    "pair_", ["kv_cache_fraction=0.5", "max_batch_size=4", "scheduler_policy=max_utilization"]
)
def test_the_llm_api_variant_leaves_measured_options_alone(torch_engine: Deployment, pair_: str):
    with pytest.raises(ExportRefused, match=r"llm_options.yaml, which was measured"):
        export(torch_engine, pair_)


def test_an_llm_api_engine_without_its_checkpoint_is_refused(torch_engine: Deployment):
    with pytest.raises(ExportRefused, match="its checkpoint is not in the store"):
        export(replace(torch_engine, checkpoint=None))


def test_the_request_in_the_readme_is_json_that_the_models_accept(engine: Deployment, pair: Deployment):
    for deployment in (engine, pair):
        files = export(deployment)
        line = next(line for line in files["README.md"].splitlines() if "curl" in line)
        model, body = (
            line.split("/v2/models/")[1].split("/")[0],
            json.loads(line.split("-d '")[1].rstrip("'")),
        )
        assert body.keys() <= {tensor.name for tensor in repository(files)[model].input}
