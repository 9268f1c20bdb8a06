"""Triton is told the windows of an engine's layers, and nothing that they shut out."""

from dataclasses import replace
from typing import Any

import pytest

from pipeline.backend.deployment import Deployment
from pipeline.errors import ExportRefused
from tests.pipeline.export import published
from tests.pipeline.export.exporters.test_triton import changed, export, parameters, repository
from tests.present import present


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return published.deployment(published.ENGINE_FP8_TP2, tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return published.deployment(published.ENGINE_WITH_DRAFT, tmp_path_factory.mktemp("pair"))


def test_windows_are_told_per_layer_and_shut_reuse_out(engine: Deployment):
    assert "max_attention_window_size" not in parameters(repository(export(engine))["tensorrt_llm"])
    windowed = changed(engine, windows=(512, 512, 8192))
    said = parameters(repository(export(windowed))["tensorrt_llm"])
    assert said["max_attention_window_size"] == "512,512,8192"
    assert (said["enable_kv_cache_reuse"], said["enable_chunked_context"]) == ("false", "false")
    late = replace(windowed, versions={"tensorrt_llm": "1.2.0"})
    assert parameters(repository(export(late))["tensorrt_llm"])["enable_chunked_context"] == "true"


def test_a_pair_with_a_window_is_refused(pair: Deployment):
    draft = present(pair.draft)
    draft = replace(draft, limits=replace(present(draft.limits), windows=(512, 8192)))
    with pytest.raises(ExportRefused, match="which layers with a window shut out"):
        export(replace(pair, draft=draft))


@pytest.mark.parametrize(
    ("limits", "version", "pairs", "reason"),
    [
        ({}, "1.2.0", ["kv_cache_reuse=true"], "overwrite what would be used again"),
        ({}, "0.16.0", ["chunked_context=true"], "it is known from TensorRT-LLM 0.19"),
        ({"max_beam_width": 2}, "0.16.0", [], "have no beam search; choose 1"),
    ],
)
def test_what_windows_shut_out_is_refused_where_it_is_asked_for(
    engine: Deployment, limits: dict[str, Any], version: str, pairs: list[str], reason: str
):
    deployment = changed(engine, windows=(512, 8192), **limits)
    with pytest.raises(ExportRefused) as refused:
        export(replace(deployment, versions={"tensorrt_llm": version}), *pairs)
    assert reason in str(refused.value)
