"""Kubernetes manifests: valid for the API's own schema, and of the engine that was measured."""

from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest
import yaml

from pipeline.backend.deployment import Deployment
from pipeline.errors import ExportRefused
from pipeline.export import exporters
from pipeline.export.export_settings import parse_settings
from tests.pipeline.export import published
from tests.pipeline.export.golden_files import stored

VERSION = "1.31"
GIVEN = ("image=tritonserver:24.12-trtllm-python-py3", "claim=engines")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return published.deployment(published.ENGINE_FP8_TP2, tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def torch_engine(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return published.deployment(published.TORCH_FP8_TP2, tmp_path_factory.mktemp("torch"))


def export(deployment, *pairs, **given) -> dict[str, str]:
    settings = parse_settings(exporters.exporter("k8s").settings, [*GIVEN, *pairs], **given)
    return exporters.export("k8s", deployment, settings)[0]


def manifest(files: dict[str, Any]):
    """Kind -> document."""
    return {document["kind"]: document for document in yaml.safe_load_all(files["manifest.yaml"])}


@pytest.mark.parametrize("case", ["0.16.0/k8s", "1.1.0/k8s"])
def test_golden_manifests_follow_the_schema(case: str):
    documents = list(yaml.safe_load_all(stored(case)["manifest.yaml"]))
    assert [document["kind"] for document in documents] == ["Deployment", "Service"]
    for document in documents:
        kubernetes_validate.validate(document, VERSION, strict=True)


def test_the_schema_would_notice_a_misspelt_field(engine: Deployment):
    document = manifest(export(engine))["Deployment"]
    document["spec"]["template"]["spec"]["nodeSelectors"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, VERSION, strict=True)


@pytest.mark.parametrize("server", ["triton", "trtllm-serve"])
@pytest.mark.parametrize(
    "pairs", [[], ["memory=1.5Gi", "namespace=llm", "replicas=0", "gpu_product=NVIDIA-L4"]]
)
def test_every_combination_follows_the_schema(torch_engine: Deployment, server: str, pairs: list[str]):
    files = export(torch_engine, f"server={server}", *pairs)
    for document in manifest(files).values():
        kubernetes_validate.validate(document, VERSION, strict=True)


def test_a_pod_has_a_gpu_per_rank_on_the_gpu_that_was_measured(engine: Deployment):
    pod = manifest(export(engine))["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == engine.world_size == 2
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"deployment": "/deployment", "shared-memory": "/dev/shm"}
    assert container["command"] == ["/bin/bash", "/deployment/serve.sh"]


def test_service_and_pods_agree(engine: Deployment, torch_engine: Deployment):
    for deployment, server in ((engine, "triton"), (torch_engine, "trtllm-serve")):
        documents = manifest(export(deployment, f"server={server}"))
        pod = documents["Deployment"]["spec"]["template"]
        assert documents["Service"]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        ports = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"]: port["port"] for port in documents["Service"]["spec"]["ports"]} == ports


def test_the_server_listens_where_the_manifest_asks(torch_engine: Deployment):
    files = export(torch_engine, "server=trtllm-serve", root="/srv/llm")
    assert "--host 0.0.0.0" in files["serve.sh"]
    assert "/srv/llm/checkpoint" in files["serve.sh"]
    assert (
        manifest(files)["Deployment"]["spec"]["template"]["spec"]["containers"][0]["command"][1]
        == "/srv/llm/serve.sh"
    )


def test_settings_of_the_server_go_to_the_server(engine: Deployment):
    files = export(engine, "server_options=kv_cache_fraction=0.5, decoupled=true")
    assert 'string_value: "0.5"' in files["repository/tensorrt_llm/config.pbtxt"]
    assert "decoupled: true" in files["repository/tensorrt_llm/config.pbtxt"]


@pytest.mark.parametrize(
    ("changes", "pairs", "reason"),
    [
        ({"tp": 8, "pp": 2}, [], "a pod has the GPUs of one host; 16 ranks need several"),
        ({"gpu": None}, [], "the version does not name its GPU"),
        ({}, ["files=reference"], "a pod does not see the store"),
        ({}, ["server_options=http_port=9000"], "the manifest decides that"),
        ({}, ["server_options=max_batch_size=65"], "max_batch_size 65 exceeds the engine's 64"),
        ({}, ["server_options=colour=red"], "unknown setting 'colour'"),
        ({}, ["server=trtllm-serve"], "known from 0.18 to 1.2"),
        ({"backend": "aoti", "limits": None}, [], "`enginery generate llama-3.1-8b/fp8_tp2_h100:1 PROMPT`"),
    ],
)
def test_what_no_pod_can_serve_is_refused(engine: Deployment, changes, pairs: list[str], reason: str):
    with pytest.raises(ExportRefused) as refused:
        export(replace(engine, **changes), *pairs)
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    "pair",
    ["image=a b", "image=x;rm", "claim=Upper", "claim=-x", "name=a_b", "namespace=${x}", "gpu_product=a b",
     "memory=lots", "shared_memory=2", "replicas=-1", "server=nginx", "startup_minutes=0"],
)  # fmt: skip
def test_names_that_kubernetes_refuses_are_refused_here(engine: Deployment, pair: str):
    with pytest.raises(ExportRefused, match=pair.partition("=")[0]):
        export(engine, pair)


def test_image_and_claim_must_be_given(engine: Deployment):
    with pytest.raises(ExportRefused, match="image: field required; claim: field required"):
        parse_settings(exporters.exporter("k8s").settings, [])
