"""Speculative decoding from a recipe to what serves it, with contract toolchains."""

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from safetensors.torch import load_file, save_file

from artifacts.manifest import unseal
from artifacts.trust.papers import extra_names
from tests import eagle
from tests.callables import Cli
from tests.contract import runtime
from tests.main_job import DEMO, write_recipe
from tests.medusa import demo_heads

if TYPE_CHECKING:
    from artifacts.trust.papers import PulledVersion

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SMALL = {
    "format": "none", "calibration": None, "engine__target": "h100", "engine__max_seq_len": 40,
    "engine__max_batch_size": 1,
    "gate__seq_len": 32, "gate__max_sequences": 8, "gate__limits": {"kl": 0.1},
}  # fmt: skip


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model's first layer, with its tokenizer: a smaller model of the same family."""
    directory = tmp_path_factory.mktemp("draft")
    config = json.loads((DEMO / "model" / "config.json").read_text()) | {"num_hidden_layers": 1}
    (directory / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / "model" / name, directory)
    whole = {
        name: tensor
        for file in (DEMO / "model").glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }
    kept = {name: whole[name] for name in whole if ".layers." not in name or ".layers.0." in name}
    save_file(kept, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@pytest.fixture
def heads(tmp_path: Path) -> Path:
    """Two Medusa heads of one layer for the demo model."""
    return demo_heads(tmp_path / "heads")


@pytest.fixture
def tool(cli: Cli, tmp_path: Path):
    """Makes a program that answers `enginery ARGS` in JSON with a toolchain of one version."""

    def of(version):
        place = runtime.toolchain(tmp_path / "trtllm", version)
        env: dict[str, Any] = {"PATH": f"{place / 'bin'}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}

        def call(*args):
            done = cli("--store", tmp_path / "store", "--json", *args, **env)
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        return call

    return of


def pair(draft: Path) -> dict[str, Any]:
    return {"mode": "draft_tokens_external", "max_draft_len": 4, "draft": {"path": str(draft)}}


def size(directory: Path):
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def test_a_pair_of_engines_is_one_version_that_is_scored_by_its_twin_and_served_without_it(
    tool, draft: Path, tmp_path: Path
):
    call = tool("0.16.0")
    recipe = write_recipe(
        tmp_path / "r.yaml", engine__backend="tensorrt", engine__tp=2, speculative=pair(draft), **SMALL
    )
    verdict = call("run", recipe)["verdict"]
    assert (verdict["outcome"], verdict["scored"]) == ("PASS", "scoring")

    record = call("show", "test/fp8:1")
    assert {"draft_source", "draft_sharded_checkpoint"} <= record["lineage"].keys()
    assert (record["facts"]["scored"], record["facts"]["measured"]) == ("scoring", "without drafts")
    pulled = tmp_path / "pulled"
    call("pull", "test/fp8:1", pulled)
    assert call("verify", pulled)["problems"] == []
    files = ("rank0.engine", "rank1.engine")
    each = [(pulled / name).stat().st_size + (pulled / "draft" / name).stat().st_size for name in files]
    assert record["facts"]["weight_bytes_per_rank"] == each
    assert all(a > b for a, b in zip(record["facts"]["memory_bytes_per_rank"], each, strict=True))
    told = {metric["name"]: metric["value"] for metric in record["metrics"]}
    assert told["scoring_bytes"] == size(pulled / "scoring") > 0

    call("export", "test/fp8:1", "--to", "triton", "--out", tmp_path / "served")
    assert (tmp_path / "served" / "engine" / "draft" / "rank1.engine").is_file()
    assert not (tmp_path / "served" / "engine" / "scoring").exists()
    version = unseal((pulled / "version.json").read_text(), "version.json")
    written = size(pulled) - sum(
        (pulled / name).stat().st_size for name in extra_names(cast("PulledVersion", version))
    )
    assert told["size_bytes"] == written - told["scoring_bytes"]


def test_a_lookahead_engine_is_loaded_and_served_with_the_sizes_it_has_room_for(tool, tmp_path: Path):
    call = tool("1.2.0")
    asked = {"mode": "lookahead_decoding", "max_draft_len": 11}
    recipe = write_recipe(tmp_path / "r.yaml", engine__backend="tensorrt", speculative=asked, **SMALL)
    assert call("run", recipe)["verdict"]["scored"] == "scoring"
    call("export", "test/fp8:1", "--to", "triton", "--out", tmp_path / "served")
    said = (tmp_path / "served" / "repository" / "tensorrt_llm" / "config.pbtxt").read_text()
    assert "lookahead_window_size" in said


def test_medusa_heads_are_served_with_the_model_and_its_twin_is_scored_without_them(
    tool, heads: Path, tmp_path: Path
):
    call = tool("1.2.0")
    asked = {"mode": "medusa", "max_draft_len": 6, "draft": {"path": str(heads)}}
    recipe = write_recipe(
        tmp_path / "r.yaml",
        **SMALL,
        engine__backend="tensorrt",
        engine__tp=2,
        speculative=asked,
    )
    verdict = call("run", recipe)["verdict"]
    assert (verdict["outcome"], verdict["scored"]) == ("PASS", "scoring")
    assert "heads_source" in call("show", "test/fp8:1")["lineage"]
    pulled = tmp_path / "pulled"
    call("pull", "test/fp8:1", pulled)
    built, twin = (
        json.loads((place / "config.json").read_text())["pretrained_config"]
        for place in (pulled, pulled / "scoring")
    )
    assert (built["architecture"], built["num_medusa_heads"]) == ("MedusaForCausalLM", 2)
    assert (built["num_medusa_layers"], built["max_draft_len"]) == (1, 6)
    assert (twin["architecture"], twin.get("num_medusa_heads")) == ("LlamaForCausalLM", None)
    call("export", "test/fp8:1", "--to", "triton", "--out", tmp_path / "served")
    said = (tmp_path / "served" / "repository" / "tensorrt_llm" / "config.pbtxt").read_text()
    assert "{0}, {0, 0}, {1}, {0, 1}, {2}, {1, 0}" in said


def test_an_eagle_net_is_served_with_the_model_and_its_twin_is_scored_without_it(tool, tmp_path: Path):
    call = tool("1.2.0")
    net = eagle.write(tmp_path / "net", eagle.sizes())
    asked = {"mode": "eagle", "max_draft_len": 6, "draft": {"path": str(net)}}
    recipe = write_recipe(
        tmp_path / "r.yaml",
        **SMALL,
        engine__backend="tensorrt",
        engine__tp=2,
        speculative=asked,
    )
    verdict = call("run", recipe)["verdict"]
    assert (verdict["outcome"], verdict["scored"]) == ("PASS", "scoring")
    pulled = tmp_path / "pulled"
    call("pull", "test/fp8:1", pulled)
    built, twin = (
        json.loads((place / "config.json").read_text())["pretrained_config"]
        for place in (pulled, pulled / "scoring")
    )
    assert (built["architecture"], built["num_eagle_layers"]) == ("EagleForCausalLM", 3)
    assert twin["architecture"] == "LlamaForCausalLM"
    call("export", "test/fp8:1", "--to", "triton", "--out", tmp_path / "served")
    said = (tmp_path / "served" / "repository" / "tensorrt_llm" / "config.pbtxt").read_text()
    assert "{0}, {0, 0}, {1}, {0, 1}, {2}, {0, 0, 0}" in said


def test_the_library_gets_an_eagle_3_net_as_it_is(tool, tmp_path: Path):
    call = tool("1.3.0rc15")
    net = eagle.write(
        tmp_path / "net",
        eagle.sizes("midlayer", captured=3),
        architectures=["LlamaForCausalLMEagle3"],
        draft_vocab_size=100,
    )
    asked = {"mode": "eagle", "max_draft_len": 3, "draft": {"path": str(net)}}
    recipe = write_recipe(tmp_path / "r.yaml", engine__backend="trtllm_torch", speculative=asked, **SMALL)
    assert call("run", recipe)["verdict"]["outcome"] == "PASS"
    call("pull", "test/fp8:1", tmp_path / "pulled")
    options = (tmp_path / "pulled" / "llm_options.yaml").read_text()
    assert "decoding_type: Eagle3" in options
    assert "speculative_model_dir: draft" in options
    kept = tmp_path / "pulled" / "draft" / "model.safetensors"
    assert kept.read_bytes() == (net / "model.safetensors").read_bytes()


def test_the_library_gets_the_draft_model_as_a_checkpoint(tool, draft: Path, tmp_path: Path):
    call = tool("1.3.0rc15")
    recipe = write_recipe(
        tmp_path / "r.yaml", engine__backend="trtllm_torch", speculative=pair(draft), **SMALL
    )
    assert call("run", recipe)["verdict"]["outcome"] == "PASS"
    call("pull", "test/fp8:1", tmp_path / "pulled")
    about = json.loads((tmp_path / "pulled" / "engine.json").read_text())
    assert about["weight_bytes"]["draft/model.safetensors"] == (draft / "model.safetensors").stat().st_size
    assert "speculative_model_dir: draft" in (tmp_path / "pulled" / "llm_options.yaml").read_text()
    assert call("verify", "test/fp8:1")["problems"] == []
