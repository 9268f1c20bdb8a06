"""Weights of another floating type become those of config.json's, bit for bit as transformers loads them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from pipeline.checkpoint import source_checkpoint
from pipeline.checkpoint.rank_layout import LAYOUT_VERSION
from pipeline.models.config_json import readers
from pipeline.weights.casting import narrowed, widened
from pipeline.weights.tensors import read_header
from tests import hub as hubs
from tests import tiny
from tests.checkpoints import Reports, held, hub_job, local_job, refused
from tests.jobs import build_quantized, build_sharded, build_source

TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}


def stored(directory):
    return load_file(directory / "model.safetensors")


def mixed(architecture: str, directory: Path, dtype: str, **changes) -> Path:
    """A checkpoint of which config.json says one type, and every other tensor has another one."""
    tiny.source(architecture, directory, torch.float64, **changes)
    others = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
    tensors = {
        name: tensor.to(others[number % 4]).clone()
        for number, (name, tensor) in enumerate(stored(directory).items())
    }
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"dtype": dtype}))
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_every_value_is_rounded_as_pytorch_rounds_it(dtype: str):
    wanted = {torch_dtype: name for name, torch_dtype in TYPES.items()}[getattr(torch, dtype)]
    bits = torch.arange(0, 1 << 16, dtype=torch.int32).to(torch.uint16)
    values = {
        "F16": bits.view(torch.float16),
        "BF16": bits.view(torch.bfloat16),
        "F32": torch.cat([torch.randn(1 << 16), torch.randn(1 << 16) * 1e-7, torch.randn(999) * 1e-40]),
        "F64": torch.randn(1 << 16, dtype=torch.float64),
    }
    # Between two neighbours of float32, as close to the middle as float64 comes: rounded once or twice differs.
    middle = torch.tensor([1 + 2**-8 + 2**-30, 1 + 2**-11 + 2**-30], dtype=torch.float64)
    values["F64"] = torch.cat([values["F64"], middle])
    for name, tensor in values.items():
        tensor = tensor[torch.isfinite(tensor.to(getattr(torch, dtype)))]
        raw = tensor.view(torch.uint8).numpy()
        found = torch.from_numpy(
            np.ascontiguousarray(narrowed(widened(raw, name), wanted)).view(np.uint8).copy()
        )
        assert torch.equal(found, tensor.to(getattr(torch, dtype)).view(torch.uint8)), name


@pytest.mark.slow
@pytest.mark.parametrize("architecture", sorted(readers()))
def test_the_source_holds_what_transformers_loads(architecture: str, tmp_path: Path, out: Path):
    model = mixed(architecture, tmp_path / "model", "bfloat16", num_hidden_layers=1)
    before = {file.name: file.read_bytes() for file in model.iterdir()}
    reports = Reports()
    build_source(local_job(model), out, reports)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model, dtype="auto")
    loaded.save_pretrained(tmp_path / "loaded")
    expected, found = stored(tmp_path / "loaded"), stored(out)
    assert found.keys() == expected.keys()
    assert all(found[name].dtype == torch.bfloat16 for name in found)
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert {file.name: file.read_bytes() for file in model.iterdir()} == before
    report = json.loads((out / source_checkpoint.REPORT).read_text())
    odd = {
        name: one.dtype
        for name, one in read_header(model / "model.safetensors").items()
        if one.dtype != "BF16"
    }
    assert report == {"dtype": "BF16", "cast": odd, "not_read": {}}
    assert reports[-1][0] == reports[-1][1]
    assert reports[-1][2] == "bytes cast"


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_other_types_of_the_model_are_as_transformers_loads_them(dtype: str, tmp_path: Path, out: Path):
    model = mixed("LlamaForCausalLM", tmp_path / "model", dtype, num_hidden_layers=1)
    build_source(local_job(model), out, Reports())
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model, dtype="auto").state_dict()
    found = stored(out)
    assert found.keys() == loaded.keys()
    assert all(torch.equal(found[name], loaded[name]) for name in found)


def test_a_download_is_cast_in_the_copy_and_stays_in_the_cache_as_it_came(tmp_path: Path, out: Path):
    model = mixed("LlamaForCausalLM", tmp_path / "model", "bfloat16", num_hidden_layers=1)
    files = {file.name: file.read_bytes() for file in model.iterdir()}
    local = tmp_path / "local"
    local.mkdir()
    build_source(local_job(model), local, Reports())
    with hubs.serve(files) as hub:
        build_source(hub_job(hub, tmp_path), out, Reports())
    assert held(out) == held(local)
    (kept,) = (tmp_path / "cache").rglob("model.safetensors")
    assert kept.read_bytes() == files["model.safetensors"]


def test_a_file_without_other_types_keeps_its_bytes(tmp_path: Path, out: Path):
    tiny.source("LlamaForCausalLM", tmp_path / "model", torch.bfloat16, num_hidden_layers=1)
    build_source(local_job(tmp_path / "model"), out, Reports())
    name = "model.safetensors"
    assert (out / name).read_bytes() == (tmp_path / "model" / name).read_bytes()
    assert not (out / source_checkpoint.REPORT).exists()


def test_a_value_beyond_the_models_type_is_refused_by_the_users_file(tmp_path: Path, out: Path):
    model = mixed("LlamaForCausalLM", tmp_path / "model", "float16", num_hidden_layers=1)
    tensors = stored(model) | {"model.norm.weight": torch.full((256,), 70000.0)}
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    refused(
        local_job(model), out, f"{model}/model.safetensors", "'model.norm.weight' of type F32", "range of F16"
    )


@pytest.mark.parametrize("same", [True, False])
def test_a_head_beside_the_table_that_it_is_tied_to_must_equal_it(same: bool, tmp_path: Path, out: Path):
    model = tmp_path / "model"
    tiny.source("LlamaForCausalLM", model, torch.bfloat16, num_hidden_layers=1, tie_word_embeddings=True)
    tensors = stored(model)
    head = tensors["model.embed_tokens.weight"].float()
    head[0, 0] += not same
    save_file(tensors | {"lm_head.weight": head}, model / "model.safetensors", {"format": "pt"})
    if not same:
        refused(
            local_job(model),
            out,
            f"{model}/model.safetensors: tie_word_embeddings is true, but lm_head.weight",
        )
        return
    build_source(local_job(model), out, Reports())
    report = json.loads((out / source_checkpoint.REPORT).read_text())
    assert report["cast"] == {"lm_head.weight": "F32"}
    assert list(report["not_read"]) == ["lm_head.weight"]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Qwen2MoeForCausalLM", "Gemma2ForCausalLM"])
def test_rank_files_of_mixed_weights_are_those_of_weights_that_were_cast_first(
    architecture: str, tmp_path: Path
):
    model = mixed(architecture, tmp_path / "mixed", "bfloat16")
    first = shutil.copytree(model, tmp_path / "first")
    cast = {name: tensor.to(torch.bfloat16) for name, tensor in stored(model).items()}
    save_file(cast, first / "model.safetensors", {"format": "pt"})
    params = {
        "format": "none",
        "kv_cache": "auto",
        "tp": 2,
        "pp": 1,
        "ep": 1,
        "layout_version": LAYOUT_VERSION,
    }
    made = []
    for directory in (model, first):
        own, ranks = directory.with_suffix(".own"), directory.with_suffix(".ranks")
        own.mkdir()
        ranks.mkdir()
        build_source(local_job(directory), own, Reports())
        build_sharded({"params": params, "inputs": {"checkpoint": str(own)}}, ranks, Reports())
        made.append([(ranks / f"rank{rank}.safetensors").read_bytes() for rank in (0, 1)])
    assert made[0] == made[1]


def test_a_quantized_checkpoint_of_mixed_weights_is_that_of_weights_that_were_cast_first(tmp_path: Path):
    model = mixed("Qwen2ForCausalLM", tmp_path / "mixed", "bfloat16")
    first = shutil.copytree(model, tmp_path / "first")
    cast = {name: tensor.to(torch.bfloat16) for name, tensor in stored(model).items()}
    save_file(cast, first / "model.safetensors", {"format": "pt"})
    made = []
    for directory in (model, first):
        own, quantized = directory.with_suffix(".own"), directory.with_suffix(".quantized")
        own.mkdir()
        quantized.mkdir()
        build_source(local_job(directory), own, Reports())
        build_quantized(
            {"params": {"format": "int8_wo"}, "inputs": {"source": str(own)}}, quantized, Reports()
        )
        made.append(stored(quantized))
    assert made[0].keys() == made[1].keys()
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert made[0]["model.layers.0.mlp.up_proj.weight"].dtype == torch.int8
