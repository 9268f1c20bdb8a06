"""A checkpoint's tensors against its config.json; the witness is transformers, which writes and loads them."""

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from pipeline.checkpoint.header_comparison import compare
from pipeline.checkpoint.named import source_tensors
from pipeline.errors import SourceError
from pipeline.models.config_json import read_shape, readers
from pipeline.sources.snapshot import unread
from pipeline.weights.tensors import Checkpoint, TensorEntry, open_checkpoint
from tests.tiny import config, source

ARCHITECTURES = sorted(readers())
ODD_SIZES = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "head_dim": 16,
    "vocab_size": 37,
}
"""Sizes of which no two are equal, so that none can stand for another."""


def written(architecture: str, directory: Path, **changes: object) -> Checkpoint:
    source(architecture, directory, torch.bfloat16, **changes)
    return open_checkpoint(directory)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_transformers_saves_is_what_is_asked_for(architecture: str, tied: bool, tmp_path: Path):
    sizes = ODD_SIZES | ({"head_dim": 12} if architecture == "Phi3ForCausalLM" else {})
    if architecture == "Qwen2MoeForCausalLM":
        sizes |= {"moe_intermediate_size": 24, "shared_expert_intermediate_size": 56}
    opened = written(architecture, tmp_path, tie_word_embeddings=tied, **sizes)
    shape = read_shape(opened.config)
    assert source_tensors(shape) == {name: entry.shape for name, entry in opened.entries.items()}
    found = compare(shape, opened, "here")
    assert (found.problems, found.left_out, found.cast) == ((), {}, {})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_transformers_reads_over_is_left_out_and_nothing_else(architecture: str, tmp_path: Path):
    written(architecture, tmp_path, tie_word_embeddings=True, num_hidden_layers=1)
    tensors = load_file(tmp_path / "model.safetensors")
    extra = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(32),
        "model.rotary_emb.inv_freq": torch.ones(32),
        "model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(2, 256),
        "model.embed_positions.weight": torch.ones(2, 2),
    }
    head = {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    save_file({**tensors, **head, **extra}, tmp_path / "model.safetensors", {"format": "pt"})
    opened = open_checkpoint(tmp_path)
    found = compare(read_shape(opened.config), opened, "here")
    _, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == set()
    refused = {name for name in extra if any(name in problem for problem in found.problems)}
    assert refused == set(info["unexpected_keys"])
    assert set(found.left_out) == {*extra, *head} - refused


def test_no_supported_class_keeps_weights_in_float32():
    for architecture in ARCHITECTURES:
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config(architecture), dtype=torch.float16)
        assert not model._keep_in_fp32_modules
        assert not model._keep_in_fp32_modules_strict
        assert not model._keys_to_ignore_on_load_unexpected


def llama(directory: Path, **changes: object) -> Checkpoint:
    """A checkpoint of two layers, without a byte of weights."""
    made = config("LlamaForCausalLM", tie_word_embeddings=False, **changes).to_dict() | {"dtype": "bfloat16"}
    shape = read_shape(made)
    return Checkpoint(directory, made, {n: entry(n, size) for n, size in source_tensors(shape).items()})


def entry(name: str, size: tuple[int, ...], dtype: str = "BF16") -> TensorEntry:
    return TensorEntry(
        name, dtype, size, Path("/store/model-00002-of-00003.safetensors"), 0, 2 * math.prod(size)
    )


def renamed(prefix: str, old: str = "") -> dict[str, Any]:
    def change(held: dict[str, TensorEntry]) -> dict[str, TensorEntry]:
        names = {name: prefix + name.removeprefix(old) if name.startswith(old) else name for name in held}
        return {names[name]: dataclasses.replace(one, name=names[name]) for name, one in held.items()}

    return {"change": change}


def set_to(*changed: TensorEntry) -> dict[str, Any]:
    return {"change": lambda held: held | {one.name: one for one in changed}}


def without(*names: str) -> dict[str, Any]:
    return {"change": lambda held: {name: one for name, one in held.items() if name not in names}}


FILE = "/home/me/model/model-00002-of-00003.safetensors"
CONFIG = "/home/me/model/config.json"
UP = "model.layers.1.mlp.up_proj.weight"
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "one layer too many": (
        {"config": {"num_hidden_layers": 3}},
        [f"{CONFIG}: num_hidden_layers is 3, the weights have 2 layers (model.layers.0 to 1)"],
    ),
    "one layer too few": (
        {"config": {"num_hidden_layers": 1}},
        [f"{CONFIG}: num_hidden_layers is 1, the weights have 2 layers (model.layers.0 to 1)"],
    ),
    "missing": (without(UP), [f"/home/me/model: {UP} is missing"]),
    "of another shape": (
        set_to(entry(UP, (512, 255))),
        [f"{FILE}: {UP} is [512, 255], config.json makes it [512, 256]"],
    ),
    "no head": (without("lm_head.weight"), ["lm_head.weight is missing, and config.json does not tie it"]),
    "another width everywhere": (
        {"config": {"intermediate_size": 640}},
        [
            f"{FILE}: model.layers.0.mlp.gate_proj.weight (and 1 more like it) is [512, 256], "
            "config.json makes it [640, 256]",
            "model.layers.0.mlp.up_proj.weight (and 1 more like it)",
            "model.layers.0.mlp.down_proj.weight (and 1 more like it)",
        ],
    ),
    "a bias": (
        set_to(entry("model.layers.0.self_attn.q_proj.bias", (256,))),
        [f"{FILE}: model.layers.0.self_attn.q_proj.bias is no tensor of LlamaForCausalLM"],
    ),
    "an adapter": (
        set_to(entry("model.layers.0.self_attn.q_proj.lora_A.weight", (8, 256))),
        ["q_proj.lora_A.weight is of an adapter; merge it"],
    ),
    "fp8 that nothing says": (
        set_to(entry(UP, (512, 256), "F8_E4M3"), entry(f"{UP}_scale_inv", (4, 2), "F32")),
        [f"{UP} is F8_E4M3, and weights must be BF16, F16 or F32", f"{UP}_scale_inv is of a quantized checkpoint"],
    ),
    "integers": (set_to(entry(UP, (512, 256), "I8")), [f"{UP} is I8, and weights must be BF16, F16 or F32"]),
    "two at once in one tensor": (set_to(entry(UP, (1, 1), "I8")), ["is [1, 1]", "is I8"]),
    "torch.compile": (renamed("_orig_mod."), [f"{FILE}: 21 of 21 names begin with the foreign prefix '_orig_mod.'"]),
    "a wrapper": (renamed("module."), ["'module.' (as module.model.embed_tokens.weight); DataParallel and FSDP put it there: save `model.module`"]),
    "peft": (renamed("base_model.model."), ["peft puts it there: save what `merge_and_unload()`"]),
    "within a model of more": (renamed("language_model."), ["'language_model.' (as language_model.model.embed"]),
    "in another place": (
        renamed("model.language_model.", "model."),
        ["20 of 21 names begin with the foreign prefix 'model.language_model.' in the place of 'model.'"],
    ),
    "under another name": (renamed("transformer.", "model."), ["'transformer.' in the place of 'model.'"]),
    "the base model": (renamed("", "model."), ["20 of 21 names lack 'model.' at their beginning (as embed_tokens.weight)"]),
    "torch.compile of each layer": (
        renamed("model.layers.0._orig_mod.", "model.layers.0."),
        ["9 of 21 names hold '._orig_mod.' (as model.layers.0._orig_mod."],
    ),
    "a head of other rows than what it is tied to": (
        {"config": {"tie_word_embeddings": True}, **set_to(entry("lm_head.weight", (336, 256)))},
        [f"{FILE}: tie_word_embeddings is true, but lm_head.weight is [336, 256] of BF16 and model.embed_tokens"],
    ),
    "a head of another type than what it is tied to": (
        {
            "config": {"tie_word_embeddings": True},
            "change": lambda held: held | {"lm_head.weight": dataclasses.replace(held["lm_head.weight"], dtype="F32")},
        },
        ["] of F32 and model.embed_tokens.weight is ["],
    ),
    "a name of many characters": (set_to(entry("x" * 100_000, (1,))), ["'" + "x" * 99 + "... is no tensor of"]),
    "a name of two lines": (set_to(entry("two\nlines", (1,))), ["'two\\nlines' is no tensor of"]),
    "more than anyone reads": (
        set_to(*(entry(f"extra{number}", (1,)) for number in range(20_000))),
        [*(f"extra{number} is no tensor of" for number in (0, 1, 10)), *[""] * 17, "and 19980 more problems"],
    ),
    "quantized, as config.json says": (
        {"config": {"quantization_config": {"quant_method": "fp8"}, "num_hidden_layers": 3}},
        [f"{CONFIG}: the checkpoint is quantized already (quantization_config, quant_method 'fp8')"],
    ),
    "weights of another name": ({"config": {"transformers_weights": "a.safetensors"}}, ["transformers_weights"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_problem_is_told_once_by_the_users_file_and_tensor(case: str):
    changed, said = CASES[case]
    made = llama(Path("/store"))
    made = Checkpoint(
        made.directory,
        made.config | changed.get("config", {}),
        changed.get("change", lambda held: held)(made.entries),
    )
    problems = compare(read_shape(made.config), made, "/home/me/model").problems
    told = "\n".join(problems)
    assert [text for text in said if text not in told] == []
    assert len(problems) == len(said), told
    assert "/store" not in told
    assert len(told.splitlines()) == len(problems)
    assert len(told) < 20_000


def test_a_prefix_and_what_is_wrong_behind_it_are_told_at_once():
    made = llama(Path("/store"))
    held = {f"module.{name}": one for name, one in made.entries.items() if name != UP}
    held["module.lm_head.weight"] = entry("module.lm_head.weight", (300, 256))
    problems = compare(
        read_shape(made.config), Checkpoint(made.directory, made.config, held), "here"
    ).problems
    said = (
        "20 of 20 names begin with the foreign prefix 'module.'",
        f"{UP} is missing",
        "module.lm_head.weight is [300, 256]",
    )
    assert len(problems) == len(said)
    for problem, text in zip(problems, said, strict=True):
        assert problem.partition(": ")[2].startswith(text)


def test_another_models_layers_are_no_prefix_of_this_ones():
    made = llama(Path("/store"))
    tower = "vision_tower.encoder.layers.0.self_attn.q_proj.weight"
    held = made.entries | {tower: entry(tower, (9, 9))}
    problems = compare(
        read_shape(made.config), Checkpoint(made.directory, made.config, held), "here"
    ).problems
    assert len(problems) == 1
    assert f"{tower} is no tensor of LlamaForCausalLM" in problems[0]


@pytest.mark.parametrize(
    ("architecture", "field", "said"),
    [
        ("LlamaForCausalLM", "num_hidden_layers", "asks for 1000 layers, and the weights have 12 tensors"),
        (
            "MixtralForCausalLM",
            "num_local_experts",
            "asks for 1 layers of 1000 experts, and the weights have",
        ),
    ],
)
def test_what_is_absurd_is_refused_before_it_is_listed(architecture: str, field: str, said: str):
    made = config(architecture, num_hidden_layers=1).to_dict() | {"dtype": "bfloat16"}
    held = {name: entry(name, size) for name, size in source_tensors(read_shape(made)).items()}
    absurd = made | {field: 1000}
    with pytest.raises(SourceError, match=said):
        compare(read_shape(absurd), Checkpoint(Path("/store"), absurd, held), "here")


def test_other_floating_types_are_cast_and_said():
    made = llama(Path("/store"))
    norms = [entry(f"model.layers.{n}.input_layernorm.weight", (256,), "F32") for n in (0, 1)]
    held = made.entries | {norm.name: norm for norm in norms}
    found = compare(read_shape(made.config), Checkpoint(made.directory, made.config, held), "here")
    assert found.problems == ()
    assert found.cast == {norm.name: "F32" for norm in norms}
    assert list(found.notes("bfloat16")) == [
        "model.layers.0.input_layernorm.weight and 1 more tensors are F32, cast to bfloat16 as config.json says"
    ]


@pytest.mark.parametrize("whole", [True, False])
def test_the_file_that_is_read_is_the_one_that_transformers_reads(whole: bool, tmp_path: Path):
    kept = tmp_path / "kept"
    written("LlamaForCausalLM", tmp_path, num_hidden_layers=1)
    tensors = load_file(tmp_path / "model.safetensors")
    shutil.move(tmp_path / "model.safetensors", kept)
    shard = "model-00001-of-00001.safetensors"
    save_file({n: torch.zeros_like(one) for n, one in tensors.items()}, tmp_path / shard, {"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, shard)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    if whole:
        shutil.move(kept, tmp_path / "model.safetensors")
    else:
        (tmp_path / "model-00001-of-00009.safetensors").write_bytes(b"")
    opened = open_checkpoint(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    ours = opened.floats("model.norm.weight")
    assert model.model.norm.weight.float().tolist() == ours.tolist()
    assert bool(ours.any()) == whole
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    read = {one.file.name for one in opened.entries.values()}
    adapter, said = unread([path.name for path in tmp_path.iterdir()], read)
    assert adapter.startswith("adapter_model.safetensors not read: the model is built without its adapter")
    spare = f"{shard}, model.safetensors.index.json" if whole else "model-00001-of-00009.safetensors"
    assert said.startswith(f"{spare} not read")
