"""What was built elsewhere: recognised, taken as it is, or refused."""

import json
from pathlib import Path

import pytest

from artifacts.client import Client
from artifacts.errors import ArtifactCorrupt
from pipeline.engines.tensorrt.tensorrt_files import format_of
from pipeline.errors import ExchangeRefused, SourceError
from pipeline.exchange.foreign import UNKNOWN_GPU, recognise
from pipeline.exchange.register import adopt
from pipeline.process.host import Host
from tests.checkpoints import CONFIG, checkpoint, lay
from tests.pipeline.exchange.conftest import NAME
from tests.pipeline.export.published import ENGINE_FP8_TP2, write_engine


@pytest.fixture
def tensorrt(tmp_path: Path) -> Path:
    """What trtllm-build leaves, without anything of ours."""
    write_engine(ENGINE_FP8_TP2, tmp_path / "trt")
    (tmp_path / "trt" / "engine.json").unlink()
    (tmp_path / "trt" / "rank1.engine").write_text("stands for the plan of rank 1\n")
    return tmp_path / "trt"


def test_an_engine_of_tensorrt_llm_is_read_from_its_own_description(
    tensorrt: Path, elsewhere: Client, host: Host
):
    made = adopt(tensorrt, "team/trt", {"from": "elsewhere"}, elsewhere, host)
    record = elsewhere.resolve("team/trt")
    facts = record.facts
    assert (facts["backend"], facts["format"], facts["kv_cache"]) == ("tensorrt", "fp8", "fp8")
    assert (facts["tp"], facts["pp"], facts["world_size"], facts["max_batch_size"]) == (2, 1, 2, 64)
    assert facts["toolchain"] == {"tensorrt_llm": "0.16.0"}
    assert record.model == "LlamaForCausalLM"
    (dropped,) = elsewhere.find(gpus=["NVIDIA H200"] * 2)
    assert UNKNOWN_GPU in dropped.dropped[0]
    assert elsewhere.verify("team/trt") == []
    assert elsewhere.store.manifest(made.key).step["builder"] == "import"


def test_a_rank_that_is_missing_is_told(tensorrt: Path):
    (tensorrt / "rank1.engine").unlink()
    with pytest.raises(ExchangeRefused, match=r"1 rank\(s\) are there, config.json says 2"):
        recognise(tensorrt)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"pretrained_config": {"mapping": 3}, "build_config": {}}', "\x00"]
)
def test_an_engine_whose_description_is_broken_is_refused(tensorrt: Path, text: str):
    (tensorrt / "config.json").write_text(text)
    with pytest.raises(ExchangeRefused, match=r"config\.json"):
        recognise(tensorrt)
    (tensorrt / "engine.json").write_text(text)
    with pytest.raises(ExchangeRefused, match=r"engine\.json"):
        recognise(tensorrt)


def test_names_of_formats_are_ours_where_we_have_one():
    assert (format_of("W4A8_AWQ"), format_of("FP8"), format_of(None)) == ("w4a8_awq", "fp8", "none")
    assert format_of("NVFP5") == "NVFP5"


def test_a_pulled_version_is_checked_and_keeps_what_it_claims(
    client: Client, elsewhere: Client, host: Host, tmp_path: Path
):
    pulled = client.pull(NAME, tmp_path / "pulled")
    made = adopt(pulled, "team/theirs", {"from": str(pulled)}, elsewhere, host)
    claims = elsewhere.resolve("team/theirs").source["imported"]["claims"]
    assert (claims["name"], claims["number"], claims["key"]) == (NAME, 1, client.resolve(NAME).engine_key)
    assert "version.json" not in elsewhere.store.manifest(made.key).files
    (pulled / "rank0.engine").write_text("other bytes")
    with pytest.raises(ArtifactCorrupt, match=r"not as it was pulled:\n  rank0\.engine"):
        recognise(pulled)


def test_an_unquantized_checkpoint_is_a_source(tmp_path: Path):
    found = recognise(lay(tmp_path / "plain", checkpoint()))
    assert (found.kind, found.facts["format"], found.facts["kv_cache"]) == ("source", "none", "auto")
    assert "LICENSE" in found.names


def test_a_checkpoint_of_an_unknown_quantization_is_refused(tmp_path: Path):
    odd = CONFIG | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    lay(tmp_path / "odd", checkpoint() | {"config.json": json.dumps(odd).encode()})
    with pytest.raises(SourceError, match=r"'gptq'; supported: .*; nothing was imported"):
        recognise(tmp_path / "odd")


def test_links_and_directories_without_a_model_are_refused(tensorrt: Path, tmp_path: Path):
    with pytest.raises(ExchangeRefused, match="no such directory"):
        recognise(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExchangeRefused, match="neither an engine"):
        recognise(tmp_path / "empty")
    (tensorrt / "shadow").symlink_to("/etc/passwd")
    with pytest.raises(ExchangeRefused, match=r"shadow is not a plain file; .*cp -rL"):
        recognise(tensorrt)


def test_a_snapshot_of_a_hub_cache_is_imported_and_other_links_are_not(
    elsewhere: Client, host: Host, tmp_path: Path
):
    repo = tmp_path / "hub" / "models--acme--tiny"
    snapshot, blobs = repo / "snapshots" / ("a" * 40), lay(repo / "blobs", checkpoint())
    snapshot.mkdir(parents=True)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(f"../../blobs/{blob.name}")
    made = adopt(snapshot, "team/theirs", {"from": str(snapshot)}, elsewhere, host)
    files = elsewhere.store.manifest(made.key).files
    assert set(files) == set(checkpoint())
    assert not elsewhere.store.file(made.key, "config.json").is_symlink()
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(lay(tmp_path / "aside", checkpoint()) / "config.json")
    with pytest.raises(SourceError, match=r"a link leads out of it: config\.json -> .*aside"):
        recognise(snapshot)


def test_compiled_code_is_said(tmp_path: Path):
    about = {
        **dict.fromkeys(("format", "dtype", "kv_cache", "device"), "x"),
        **dict.fromkeys(("tp", "pp", "world_size", "max_batch_size", "max_seq_len"), 1),
        "backend": "aoti",
        "toolchain": {},
        "weight_bytes": {},
        "memory_bytes_per_rank": [1],
    }
    lay(tmp_path / "aoti", {"engine.json": json.dumps(about).encode()})
    assert recognise(tmp_path / "aoti").code
