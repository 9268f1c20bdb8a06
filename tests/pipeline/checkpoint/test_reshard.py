"""An existing checkpoint for other ranks: found, checked before the first byte, written whole or not at all."""

import json
import os
import shutil
import subprocess  # noqa: TID251 the command is killed from outside
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest

from artifacts.errors import ArtifactCorrupt, DestinationTaken, NotFound
from artifacts.registry.registry import Publication, open_registry
from artifacts.store.local import LocalStore
from artifacts.store.opening import open_store
from pipeline.checkpoint.rank_layout import LAYOUT_VERSION
from pipeline.errors import SourceError
from pipeline.run.resharding import Found, Layout, Order, find, held, write
from pipeline.run.resharding import order as order_found
from pipeline.weights.tensors import read_header
from recipes.formats import FORMATS
from tests.callables import Ask, Cli
from tests.checkpoints import until
from tests.jobs import build_sharded as build
from tests.pipeline.checkpoint.conftest import CONFIG
from tests.pipeline.checkpoint.test_convert import MIXED
from tests.pipeline.checkpoint.test_tensor_names import config_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]


def order(checkpoint: Path, layout: Layout) -> Order:
    return order_found(Found(checkpoint), layout)


def quietly(*event) -> None:
    """Hears progress."""


def no_registry() -> NoReturn:
    raise AssertionError("nothing is looked up in the registry")


def files(directory):
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def stored(store: LocalStore, kind: str, fill, key):
    """Commits an artifact."""
    with store.write(key, kind=kind, step={"kind": kind, "inputs": {}, "params": {}}, host={}) as draft:
        fill(draft.path)
    return key


CASES = [(fmt, "auto") for fmt in FORMATS] + [(MIXED, "fp8"), ("none", "int8"), ("int4_awq", "fp8")]


@pytest.mark.parametrize(("fmt", "kv_cache"), CASES)
def test_precision_and_cache_are_read_from_the_checkpoint_itself(
    make_checkpoint: Callable[..., Path], fmt, kv_cache: str
):
    read = order(make_checkpoint(fmt, kv_cache=kv_cache), Layout(tp=2))
    assert read.kv_cache == kv_cache
    if isinstance(fmt, str):
        assert read.precision.as_param() == fmt
    else:
        assert {one.name for one in read.precision.formats} == {"none", *MIXED["except"].values(), "fp8"}
        assert read.precision.of("model.layers.1.self_attn.o_proj").name == "int4_wo"
        assert read.precision.of("model.layers.0.mlp.down_proj").name == "none"


def test_the_files_are_those_of_a_recipe_with_that_layout(
    make_checkpoint: Callable[..., Path], tmp_path: Path
):
    checkpoint, target, recipe = (
        make_checkpoint("int4_awq", kv_cache="fp8"),
        tmp_path / "out",
        tmp_path / "made",
    )
    usage = write(order(checkpoint, Layout(tp=2, pp=2)), target, quietly)
    recipe.mkdir()
    params = {"format": "int4_awq", "kv_cache": "fp8", "tp": 2, "pp": 2, "layout_version": LAYOUT_VERSION}
    build({"params": params, "inputs": {"checkpoint": str(checkpoint)}}, recipe, quietly)
    assert files(target) == files(recipe)
    assert usage.peak_memory_bytes > 0


def test_an_export_that_says_its_precision_beside_the_config_is_understood(
    make_checkpoint: Callable[..., Path],
):
    checkpoint = make_checkpoint("fp8", kv_cache="fp8")
    config = json.loads((checkpoint / "config.json").read_text())
    del config["quantization_config"]
    (checkpoint / "config.json").write_text(json.dumps(config))
    details = {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}
    beside = checkpoint / "hf_quant_config.json"
    beside.write_text(json.dumps({"quantization": details}))
    read = order(checkpoint, Layout())
    assert (read.precision.as_param(), read.kv_cache) == ("fp8", "fp8")
    beside.write_text("{}")
    with pytest.raises(SourceError, match=r"hf_quant_config\.json: not as ModelOpt writes it"):
        order(checkpoint, Layout())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quant_algo": "NVFP4"}, "config.json states quantization 'NVFP4'; supported: FP8, FP8_PER_CHANNEL"),
        ({"quant_algo": "", "quant_method": "gptq"}, "states quantization 'gptq'; supported"),
        ({"kv_cache_scheme": "NVFP4"}, "states KV cache 'NVFP4'; supported: none, 8-bit float, INT8"),
    ],
)
def test_precisions_that_are_not_ours_are_refused(
    make_checkpoint: Callable[..., Path], change: dict[str, Any], said: str
):
    checkpoint = make_checkpoint("fp8", kv_cache="fp8")
    config = json.loads((checkpoint / "config.json").read_text())
    config["quantization_config"] |= change
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match=said):
        order(checkpoint, Layout())


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        (Layout(tp=3), "--tp: 3 does not divide 8 attention heads"),
        (Layout(pp=4), "--pp: 4 does not divide 2 layers; choose one of 1, 2"),
        (Layout(tp=8), "--tp: 8 splits o_proj .512 input channels. into shards"),
        (Layout(ep=2), "--ep: 2 needs a model with experts, LlamaForCausalLM has none; leave it out"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused_before_anything_is_written(
    make_checkpoint: Callable[..., Path], tmp_path: Path, layout: Layout, said: str
):
    with pytest.raises(SourceError, match=said):
        order(make_checkpoint("int4_awq"), layout)
    assert not list(tmp_path.glob(".*reshard*"))


def test_a_damaged_checkpoint_leaves_nothing_behind(make_checkpoint: Callable[..., Path], tmp_path: Path):
    checkpoint = make_checkpoint("fp8", change=lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(SourceError, match=r"model\.norm\.weight: missing") as caught:
        write(order(checkpoint, Layout(tp=2)), tmp_path / "out", quietly)
    assert str(caught.value).startswith(f"{checkpoint} and config.json disagree: 1 tensors")
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]


def test_a_target_that_holds_something_is_refused_and_an_empty_one_taken(
    make_checkpoint: Callable[..., Path], tmp_path: Path
):
    asked, target = order(make_checkpoint("fp8"), Layout(tp=2)), tmp_path / "out"
    target.mkdir()
    (target / "mine").write_text("precious")
    with pytest.raises(DestinationTaken, match="out is not empty"):
        write(asked, target, quietly)
    assert files(target) == {"mine": b"precious"}
    (target / "mine").unlink()
    write(asked, target, quietly)
    assert (target / "rank1.safetensors").is_file()


def test_checkpoints_are_found_by_directory_key_and_published_name(
    make_checkpoint: Callable[..., Path], tmp_path: Path
):
    checkpoint = make_checkpoint("fp8")
    store = open_store(tmp_path / "store")
    registry = open_registry(store.registry_url)
    keys = {
        kind: stored(store, kind, lambda path: (path / "config.json").write_text("{}"), letter * 64)
        for kind, letter in (("quantized_checkpoint", "a"), ("source", "b"), ("engine", "c"))
    }
    registry.publish(
        Publication(
            name="demo/fp8", alias="prod", engine_key=keys["engine"], recipe={}, lineage=keys,
            verdict="PASS", checks=[], metrics=[], facts={},
        )
    )  # fmt: skip
    assert find(str(checkpoint), store, no_registry).path == checkpoint
    assert find("aaaaaaaa", store, no_registry).path == store.path("a" * 64)
    assert find("bbbbbbbb", store, no_registry).path == store.path("b" * 64)
    for name in ("demo/fp8", "demo/fp8@prod", "demo/fp8:1"):
        assert find(name, store, lambda: registry).path == store.path("a" * 64)
    with pytest.raises(
        SourceError, match="cccccccccccc is of kind engine; give the key of a quantized_checkpoint"
    ):
        find("cccccccc", store, no_registry)
    with pytest.raises(SourceError, match=r"\./nowhere: no such directory"):
        find("./nowhere", store, no_registry)
    with pytest.raises(NotFound, match="demo/int4"):
        find("demo/int4", store, lambda: registry)
    damaged = store.path("a" * 64) / "config.json"
    damaged.chmod(0o644)
    damaged.write_text("{} ")
    found = find("demo/fp8@prod", store, lambda: registry)
    with (
        pytest.raises(ArtifactCorrupt, match="quantized_checkpoint aaaaaaaaaaaa is damaged"),
        held(found, store),
    ):
        pytest.fail("a damaged checkpoint was given out")


def test_a_version_whose_weights_wait_for_the_builder_is_written_as_one(
    make_checkpoint: Callable[..., Path], tmp_path: Path
):
    store = open_store(tmp_path / "store")
    registry = open_registry(store.registry_url)
    checkpoint = make_checkpoint()
    source = stored(
        store, "source", lambda path: shutil.copytree(checkpoint, path, dirs_exist_ok=True), "b" * 64
    )
    registry.publish(
        Publication(
            name="demo/int8", alias="prod", engine_key="c" * 64, recipe={"format": "int8_wo"},
            lineage={"source": source}, verdict="PASS", checks=[], metrics=[], facts={"backend": "tensorrt"},
        )
    )  # fmt: skip
    asked = order_found(find("demo/int8", store, lambda: registry), Layout(tp=2))
    assert asked.at_build
    assert asked.unloadable == []
    write(asked, tmp_path / "out", quietly)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["quantization"]["quant_algo"] == "W8A16"
    header = read_header(tmp_path / "out" / "rank0.safetensors")
    assert header["transformer.layers.0.attention.qkv.weight"].dtype == "BF16"
    assert sum(asked.rank_bytes) == sum(
        entry.nbytes for rank in (tmp_path / "out").glob("rank*") for entry in read_header(rank).values()
    )


def test_the_command_says_what_it_wrote_and_what_comes_next(
    make_checkpoint: Callable[..., Path], tmp_path: Path, cli: Cli
):
    done = cli(
        "--store", tmp_path / "s", "tools", "reshard", make_checkpoint("fp8"), tmp_path / "out", "--tp", "2"
    )
    assert done.returncode == 0, done.stderr
    assert f"wrote 2 rank(s) to {tmp_path / 'out'}" in done.stdout
    assert f"trtllm-build --checkpoint_dir {tmp_path / 'out'} --output_dir" in done.stdout
    again = cli("--store", tmp_path / "s", "tools", "reshard", tmp_path, tmp_path / "out")
    assert again.returncode == 2
    assert "is not empty" in again.stderr


def test_stages_and_experts_are_split_as_the_command_is_told(
    make_checkpoint: Callable[..., Path], tmp_path: Path, ask: Ask
):
    stages = ("--pp", "2", "--tp", "2")
    code, out, err = ask(
        "--json", "tools", "reshard", str(make_checkpoint("fp8")), str(tmp_path / "pp"), *stages
    )
    assert code == 0, err
    assert (json.loads(out)["pp"], len(list((tmp_path / "pp").glob("rank*.safetensors")))) == (2, 4)
    experts: dict[str, Any] = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}
    experts |= {"num_local_experts": 4, "num_experts_per_tok": 2}
    mixture = make_checkpoint("fp8", config=CONFIG | experts)
    code, out, err = ask(
        "--json", "tools", "reshard", str(mixture), str(tmp_path / "ep"), "--tp", "2", "--ep", "2"
    )
    assert code == 0, err
    written = json.loads((tmp_path / "ep" / "config.json").read_text())["mapping"]
    assert (written["moe_ep_size"], written["moe_tp_size"], json.loads(out)["ep"]) == (2, 1, 2)
    header = read_header(tmp_path / "ep" / "rank0.safetensors")
    assert header["transformer.layers.0.mlp.fc.weight"].shape[0] == 2  # of four experts


def test_what_tensorrt_llm_would_not_load_is_said(
    make_checkpoint: Callable[..., Path], tmp_path: Path, cli: Cli
):
    done = cli(
        "--store", tmp_path / "s", "--json", "tools", "reshard", make_checkpoint("int8_wo"), tmp_path / "out"
    )
    answer = json.loads(done.stdout)
    assert answer["format"] == "int8_wo"
    assert "TensorRT-LLM does not load this: format: int8_wo weights are quantized already" in " ".join(
        done.stderr.split()
    )
    assert len(answer["unloadable"]) == 1
    assert sum(answer["rank_bytes"]) < (tmp_path / "out" / "rank0.safetensors").stat().st_size


def test_a_kill_in_the_middle_leaves_nothing_under_the_target_and_the_next_run_sweeps(
    make_checkpoint: Callable[..., Path], tmp_path: Path
):
    big = CONFIG | {"hidden_size": 1024, "intermediate_size": 8192, "num_hidden_layers": 4}
    checkpoint, target = make_checkpoint(config=big), tmp_path / "out"
    argv = [sys.executable, "-m", "pipeline.cli", "--store", str(tmp_path / "s"), "tools", "reshard"]
    argv += [str(checkpoint), str(target), "--tp", "2"]
    with subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.DEVNULL, env=os.environ) as command:
        deadline = time.monotonic() + 30
        while not (begun := list(tmp_path.glob(".out.reshard*/files/rank0.safetensors"))):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        children = psutil.Process(command.pid).children(recursive=True)
        command.kill()
    assert not target.exists()
    assert begun
    until(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))
    write(order(checkpoint, Layout(tp=2)), target, quietly)
    assert {path.name for path in target.iterdir()} >= {
        "rank0.safetensors",
        "rank1.safetensors",
        "config.json",
    }
    assert not list(tmp_path.glob(".out.reshard*"))


def test_the_names_are_those_of_the_release_that_reads_it(
    make_checkpoint: Callable[..., Path], tmp_path: Path, ask: Ask
):
    checkpoint = make_checkpoint(config=config_of("qwen2_moe"))
    code, _, err = ask("tools", "reshard", str(checkpoint), str(tmp_path / "told"), "--release", "0.15")
    assert code == 0, err
    names = read_header(tmp_path / "told" / "rank0.safetensors")
    assert "transformer.layers.0.shared_expert.fc.weight" in names
    for release, block in (
        ("0.15.0", "shared_expert"),
        ("0.16.0", "mlp.shared_expert"),
        ("", "mlp.shared_expert"),
    ):
        out = tmp_path / f"for{release}"
        write(order_found(Found(checkpoint), Layout(), release), out, quietly)
        names = read_header(out / "rank0.safetensors")
        assert f"transformer.layers.0.{block}.fc.weight" in names
    with pytest.raises(SourceError, match="--release: 'newest' is no release of TensorRT-LLM; give one like"):
        order_found(Found(checkpoint), Layout(), "newest")
