"""Engines that the engine step really wrote, with the contract toolchain, go through every exporter of theirs."""

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as schema

from artifacts.version import VersionRecord
from pipeline.backend.deployment import Deployment
from pipeline.export import exporters
from pipeline.export.engine_reader import read_engine
from pipeline.export.export_settings import parse_settings
from recipes.schema import Model, Speculative
from tests.contract.toolchain import toolchain
from tests.pipeline.engines import trt
from tests.pipeline.engines.checkpoints import shard
from tests.pipeline.engines.checkpoints import source as source_of
from tests.pipeline.export import published
from tests.present import present

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory):
    """A source, and its ranks for tp 1."""
    root = tmp_path_factory.mktemp("checkpoint")
    source = source_of(root / "source")
    return source, shard(source, 1, 1, root / "sharded")


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> VersionRecord:
    """What the registry knows of a version."""
    return published.publish(published.ENGINE_FP8_TP2, tmp_path_factory.mktemp("record"))[1]


def built(tmp_path: Path, checkpoint, record: VersionRecord, version: str, **asked) -> Deployment:
    """The deployment of an engine that the engine step wrote."""
    source, ranks = checkpoint
    found = trt.found(toolchain(tmp_path / "trtllm", version))
    trt.run(trt.job(found, source, ranks, **asked), tmp_path / "out")
    return read_engine(tmp_path / "out", record)


def export(target: str, deployment: Deployment, *pairs) -> dict[str, str]:
    settings = parse_settings(exporters.exporter(target).settings, pairs, root="/models/x")
    return exporters.export(target, deployment, settings)[0]


@pytest.mark.parametrize("version", ["0.16.0", "1.2.0"])
def test_a_built_engine_is_exported_with_its_own_limits(
    tmp_path: Path, checkpoint, record: VersionRecord, version: str
):
    deployment = built(tmp_path, checkpoint, record, version)
    assert (deployment.sm, deployment.gpu) == (90, "NVIDIA H100 80GB HBM3")
    assert present(deployment.limits).context_logits
    files = export("triton", deployment)
    config = text_format.Parse(files["repository/tensorrt_llm/config.pbtxt"], schema.ModelConfig())
    assert config.max_batch_size == deployment.max_batch_size == 4
    reuse = config.parameters["enable_kv_cache_reuse"].string_value
    assert reuse == ("true" if present(deployment.limits).paged_context else "false")
    if deployment.release >= (0, 18):
        assert "--max_batch_size 4" in export("trtllm-serve", deployment)["serve.sh"]


def test_a_built_pair_is_exported_as_a_pair(tmp_path: Path, checkpoint, record: VersionRecord):
    source, ranks = checkpoint
    mode = Speculative(mode="draft_tokens_external", max_draft_len=3, draft=Model(path=str(source)))
    deployment = built(
        tmp_path, checkpoint, record, "0.16.0", speculative=mode, drafting=(source, ranks),
        options={"use_paged_context_fmha": "enable"},
    )  # fmt: skip
    assert present(deployment.limits).speculation == "draft_tokens_external"
    assert present(deployment.limits).max_draft_len == 3
    assert present(present(deployment.draft).limits).speculation is None
    files = export("triton", deployment)
    assert '"num_draft_tokens": 3' in files["README.md"]
    assert "repository/tensorrt_llm_draft/config.pbtxt" in files
    assert exporters.exporter("triton").trees(deployment, None) == {"engine": deployment.engine}
