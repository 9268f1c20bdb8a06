"""Medusa's heads: which elements go to which rank, what is refused, and the files of a conversion."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.checkpoint import conversion_audit, medusa_heads
from pipeline.checkpoint.medusa_heads import Medusa
from pipeline.checkpoint.rank_layout import LAYOUT_VERSION
from pipeline.checkpoint.rank_place import Place
from pipeline.checkpoint.with_heads import PLAIN
from pipeline.drafting.heads import PREFIX, kinds, open_heads
from pipeline.errors import BuildFailed, SourceError
from pipeline.models.config_json import read_shape
from tests import medusa as made
from tests.contract import checkpoint as contract
from tests.jobs import build_sharded as build
from tests.main_job import DEMO

CONFIG = json.loads((DEMO / "model" / "config.json").read_text())
SHAPE = read_shape(CONFIG)


def heads_of(tmp_path, **change) -> Medusa:
    return medusa_heads.read(kinds(open_heads(made.demo_heads(tmp_path / "heads", **change))))


def test_heads_and_layers_are_counted_in_the_tensors(tmp_path: Path):
    found = heads_of(tmp_path, heads=3, layers=2)
    assert found == medusa_heads.Medusa(3, 2, SHAPE.hidden_size, SHAPE.vocab_size, "BF16")


@pytest.mark.parametrize("tp", [1, 2, 4])
@pytest.mark.parametrize("vocab", [2048, 2047])
def test_every_element_is_used_once_and_padding_is_told(tmp_path: Path, tp: int, vocab: int):
    shape = replace(SHAPE, vocab_size=vocab)
    directory = made.demo_heads(tmp_path / "heads", heads=2, layers=2, vocab=vocab)
    held = kinds(open_heads(directory))
    ranks = [medusa_heads.tensors(medusa_heads.read(held), shape, Place(tp, 1, rank)) for rank in range(tp)]
    found = conversion_audit.uses(ranks)
    conversion_audit.check(found, {PREFIX + name: kind for name, kind in held.items()}, ())
    assert all(len(used) == tp for used in found.values())
    padded = [
        fill
        for fill in conversion_audit.report(ranks, found, {})["made"]
        if fill["tensor"].endswith("lm_head.weight")
    ]
    assert len(padded) == (2 if tp > 1 and vocab % 2 else 0)


def test_stages_before_the_last_hold_none(tmp_path: Path):
    heads = heads_of(tmp_path)
    assert medusa_heads.tensors(heads, SHAPE, Place(2, 2, 0)) == []
    assert len(medusa_heads.tensors(heads, SHAPE, Place(2, 2, 3))) == 6


@pytest.mark.parametrize(
    ("change", "asked", "told"),
    [
        ({"hidden": 128}, {}, "speculative.draft: the heads' hidden size is 128, the model's 256"),
        ({"vocab": 999}, {}, "speculative.draft: the heads' vocabulary is 999, the model's 2048"),
        ({"dtype": torch.float16}, {}, "speculative.draft: the heads' type is F16, the model's BF16"),
        ({"heads": 5}, {}, "speculative.max_draft_len: 4 tokens leave no path through 5 Medusa heads"),
        ({}, {"pp": 2}, "engine.pp: Medusa's heads read the last stage's output"),
        ({}, {"architecture": "Gemma2ForCausalLM"}, "speculative.mode: TensorRT-LLM adds Medusa's heads to no"),
    ],
)  # fmt: skip
def test_heads_that_do_not_go_with_the_model_are_refused(
    tmp_path: Path, change: dict[str, Any], asked: dict[str, Any], told: str
):
    shape = replace(SHAPE, architecture=asked.get("architecture", SHAPE.architecture))
    found = list(medusa_heads.reasons(heads_of(tmp_path, **change), shape, 4, 1, asked.get("pp", 1)))
    assert len(found) == 1
    assert found[0].startswith(told)


def test_tensors_that_are_no_medusa_heads_are_refused():
    with pytest.raises(SourceError, match=r"Medusa's are named '0\.0\.linear\.weight'"):
        medusa_heads.read({"fc.weight": ("BF16", (8, 16))})
    held = {name: ("BF16", tuple(tensor.shape)) for name, tensor in made.tensors(8, 32).items()}
    for wrong in ({"1.0.linear.bias": ("BF16", (9,))}, {"7.x": ("BF16", (1,))}):
        with pytest.raises(SourceError, match=next(iter(wrong))):
            medusa_heads.read({**held, **wrong})
    with pytest.raises(SourceError, match=r"1\.1\.weight"):
        medusa_heads.read({name: kind for name, kind in held.items() if name != "1.1.weight"})


def job(checkpoint, heads, **params) -> dict[str, Any]:
    params = {
        "format": "none",
        "kv_cache": "auto",
        "tp": 2,
        "pp": 1,
        "layout_version": LAYOUT_VERSION,
    } | params
    params["speculative"] = {"mode": "medusa", "max_draft_len": 6}
    return {"params": params, "places": {}, "inputs": {"checkpoint": str(checkpoint), "heads": str(heads)}}


@pytest.mark.parametrize(
    ("held", "params"),
    [
        ("none", {}),
        ("fp8", {"format": "fp8"}),
        ("int4_awq", {"format": "int4_awq"}),
        ("none", {"format": "int8_wo", "at_build": True}),
    ],
)
def test_rank_files_hold_the_model_and_the_heads_as_the_loader_wants_them(
    tmp_path: Path,
    make_checkpoint: Callable[..., Path],
    held: str,
    params: dict[str, Any],
    capfd: pytest.CaptureFixture[str],
):
    source, out = make_checkpoint(held), tmp_path / "out"
    weights = made.tensors(256, 100, layers=2)
    out.mkdir()
    build(job(source, made.write(tmp_path / "heads", weights), **params), out, lambda *_: None)
    config, plain = (json.loads((out / name).read_text()) for name in ("config.json", PLAIN))
    for rank in range(2):
        contract.check(out, config, rank)
        assert "not expected" not in capfd.readouterr().out
        contract.check(out, plain, rank)
        assert "medusa_heads.1.lm_head.weight" in capfd.readouterr().out
    ranks = [load_file(out / f"rank{rank}.safetensors") for rank in range(2)]
    for name, tensor in weights.items():
        head, layer, *rest = name.split(".")
        local = "lm_head" if rest == ["weight"] else f"medusa_layers.{layer}.linear"
        there = f"medusa_heads.{head}.{local}.{rest[-1]}"
        assert torch.equal(torch.cat([one[there] for one in ranks]), tensor), name
    assert f"{PREFIX}0.2.weight" in json.loads((out / "audit.json").read_text())["sources"]


def test_quantization_is_told_to_leave_the_heads_alone(tmp_path: Path):
    base: dict[str, Any] = {
        "quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head"]},
        "architecture": "x",
    }
    found = medusa_heads.config(base, heads_of(tmp_path), 63, "llama")
    assert found["quantization"]["exclude_modules"] == ["lm_head", "medusa_heads.*"]
    assert base["quantization"]["exclude_modules"] == ["lm_head"]
    mixed = {"quantization": {"quant_algo": "MIXED_PRECISION"}}
    (tmp_path / "other").mkdir()
    assert (
        medusa_heads.config(mixed, heads_of(tmp_path / "other", heads=1), 63, "llama")["quantization"]
        == mixed["quantization"]
    )


def test_a_conversion_refuses_heads_of_another_model(tmp_path: Path):
    with pytest.raises(BuildFailed, match="the heads' vocabulary is 999"):
        build(job(DEMO / "model", made.demo_heads(tmp_path / "heads", vocab=999)), tmp_path, lambda *_: None)
