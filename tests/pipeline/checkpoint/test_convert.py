"""Conversion from files to files: what is written, and what is refused before anything is."""

import json
import subprocess  # noqa: TID251 a fresh interpreter, to measure its peak memory
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.checkpoint.rank_layout import LAYOUT_VERSION
from pipeline.checkpoint.slicing import plan
from pipeline.checkpoint.tensor_parts import Fill, Largest
from pipeline.errors import BuildFailed, SourceError
from pipeline.models.config_json import read_shape
from pipeline.weights.tensors import NUMPY_TYPES, Checkpoint, open_checkpoint, read_header
from recipes.formats import FORMATS
from recipes.precision import Precision
from tests.jobs import build_sharded as build
from tests.pipeline.checkpoint.conftest import LINEARS

LAYOUTS = [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1)]
ONE = {"BF16": 0x3F80, "F32": 0x3F800000}


def job(checkpoint, fmt="none", tp=1, pp=1, **changed) -> dict[str, Any]:
    params = {"format": fmt, "kv_cache": "auto", "tp": tp, "pp": pp, "layout_version": LAYOUT_VERSION}
    return {"params": params | changed, "places": {}, "inputs": {"checkpoint": str(checkpoint)}}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    directory = tmp_path / "out"
    directory.mkdir()
    return directory


def convert(checkpoint, out, *args, **kwargs) -> list[tuple[Any, ...]]:
    seen = []
    build(job(checkpoint, *args, **kwargs), out, lambda *event: seen.append(event))
    return seen


def read(path: Path):
    """Reads a rank file without the code under test's mapping: name -> array of unsigned integers."""
    data = path.read_bytes()
    return {
        name: np.frombuffer(data[entry.start : entry.end], NUMPY_TYPES[entry.dtype]).reshape(entry.shape)
        for name, entry in read_header(path).items()
    }


def expected(source: Checkpoint, tensor):
    parts = []
    for part in tensor.parts:
        if isinstance(part, Fill):
            parts.append(np.full(part.extent, ONE[tensor.dtype] if part.value else 0))
        elif isinstance(part, Largest):
            scales = [source.floats(each.source).reshape(1) for each in part.sources]
            parts.append(np.maximum.reduce([*scales, np.full(1, part.floor, np.float32)]))
        else:
            box = source.array(part.source)[tuple(slice(*each) for each in part.ranges)]
            parts.append(box.reshape(part.extent or (1,)))
    return np.concatenate(parts)


MIXED: dict[str, Any] = {
    "default": "fp8",
    "except": {
        "model.layers.0.mlp.down_proj": "none",
        "model.layers.0.mlp.*": "w4a8_awq",
        "model.layers.1.self_attn.o_proj": "int4_wo",
        "model.layers.1.mlp.down_proj": "fp8_rowwise",
        "*.1.mlp.*": "int8_sq",
    },
}
CASES = [(fmt, "auto") for fmt in FORMATS] + [(MIXED, "fp8"), (MIXED, "int8"), ("none", "fp8")]


@pytest.mark.slow
@pytest.mark.parametrize(("fmt", "kv_cache"), CASES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rank_files_hold_the_planned_slices(
    make_checkpoint: Callable[..., Path], config: dict[str, Any], out: Path, fmt, kv_cache: str, layout
):
    tp, pp = layout
    checkpoint = make_checkpoint(fmt, kv_cache=kv_cache)
    convert(checkpoint, out, fmt, tp, pp, kv_cache=kv_cache)
    source = open_checkpoint(checkpoint)
    for rank, tensors in enumerate(plan(read_shape(config), Precision.parse(fmt), tp, pp, kv_cache)):
        written = read(out / f"rank{rank}.safetensors")
        assert written.keys() == {tensor.name for tensor in tensors}
        for tensor in tensors:
            held = written[tensor.name]
            assert held.shape == tensor.shape
            np.testing.assert_array_equal(
                held.view(np.uint8), expected(source, tensor).astype(held.dtype).view(np.uint8)
            )
    assert len(list(out.glob("rank*"))) == tp * pp


def test_audit_accounts_for_every_tensor_of_the_checkpoint(make_checkpoint: Callable[..., Path], out: Path):
    checkpoint = make_checkpoint("fp8")
    convert(checkpoint, out, "fp8", tp=4)
    audit = json.loads((out / "audit.json").read_text())
    assert audit["sources"].keys() == open_checkpoint(checkpoint).entries.keys()
    keys = audit["sources"]["model.layers.0.self_attn.k_proj.weight"]
    assert [use["slice"][0] for use in keys["to"]] == [[0, 64], [0, 64], [64, 128], [64, 128]]
    assert keys["again_because"] == ["2 ranks share each head"]
    assert "again_because" not in audit["sources"]["model.layers.0.self_attn.q_proj.weight"]
    values = audit["sources"]["model.layers.0.self_attn.v_proj.weight_scale"]
    assert values["to"][0]["equal_to"] == "model.layers.0.self_attn.q_proj.weight_scale"
    written = sum(
        np.prod(entry.shape, dtype=int) for rank in out.glob("rank*") for entry in read_header(rank).values()
    )
    merged = sum("equal_to" in use for source in audit["sources"].values() for use in source["to"])
    made = sum(np.prod(made["shape"], dtype=int) for made in audit["made"])
    assert written == audit["elements"]["source"] + audit["elements"]["written_again"] - merged + made


def test_chat_templates_beside_the_default_one_travel_along(make_checkpoint: Callable[..., Path], out: Path):
    checkpoint = make_checkpoint()
    more = checkpoint / "additional_chat_templates"
    more.mkdir()
    (more / "tool_use.jinja").write_text("{{ tools }}")
    (more / "notes.txt").write_text("not a template")
    convert(checkpoint, out)
    found = out / "tokenizer" / "additional_chat_templates"
    assert [(path.name, path.read_text()) for path in found.iterdir()] == [("tool_use.jinja", "{{ tools }}")]


def test_tokenizer_and_generation_config_travel_along(make_checkpoint: Callable[..., Path], out: Path):
    checkpoint = make_checkpoint()
    (checkpoint / "generation_config.json").write_text('{"eos_token_id": 2}')
    (checkpoint / "README.md").write_text("not needed")
    convert(checkpoint, out)
    assert {path.name for path in (out / "tokenizer").iterdir()} == {
        "tokenizer.json",
        "generation_config.json",
    }
    assert json.loads((out / "config.json").read_text())["rotary_base"] == 500000.0


def test_progress_ends_with_every_byte_written(make_checkpoint: Callable[..., Path], out: Path):
    seen = convert(make_checkpoint(), out, tp=2)
    total = sum(entry.nbytes for rank in out.glob("rank*") for entry in read_header(rank).values())
    assert seen[-1] == (total, total, "bytes")
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


def test_the_same_checkpoint_gives_the_same_bytes(make_checkpoint: Callable[..., Path], tmp_path: Path):
    checkpoint, first, second = make_checkpoint("fp8"), tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
        convert(checkpoint, directory, "fp8", tp=2, pp=2)
    for path in (path for path in first.rglob("*") if path.is_file()):
        assert path.read_bytes() == (second / path.relative_to(first)).read_bytes()


def test_vocabulary_that_tp_does_not_divide_is_padded(
    make_checkpoint: Callable[..., Path], config: dict[str, Any], out: Path
):
    convert(make_checkpoint(config=config | {"vocab_size": 97}), out, tp=4)
    tables = [read(out / f"rank{rank}.safetensors")["lm_head.weight"] for rank in range(4)]
    assert [table.shape for table in tables] == [(25, 256)] * 4
    assert not tables[3][22:].any()
    assert tables[3][21].any()
    made = json.loads((out / "audit.json").read_text())["made"]
    assert {
        "rank": 3,
        "tensor": "lm_head.weight",
        "value": 0,
        "shape": [3, 256],
        "reason": "rows up to a multiple of tp",
    } in made


def test_tied_head_is_the_embedding(make_checkpoint: Callable[..., Path], config: dict[str, Any], out: Path):
    convert(make_checkpoint(config=config | {"tie_word_embeddings": True}), out, tp=2, pp=2)
    for tp_rank in range(2):
        first, last = (read(out / f"rank{pp_rank * 2 + tp_rank}.safetensors") for pp_rank in range(2))
        np.testing.assert_array_equal(first["transformer.vocab_embedding.weight"], last["lm_head.weight"])


def with_head(same: bool):
    def change(tensors) -> None:
        dtype, table = tensors["model.embed_tokens.weight"]
        tensors["lm_head.weight"] = (dtype, table.copy() if same else table ^ 1)

    return change


def test_a_stored_copy_of_a_tied_head_is_left_with_a_reason(
    make_checkpoint: Callable[..., Path], config: dict[str, Any], out: Path
):
    convert(make_checkpoint(config=config | {"tie_word_embeddings": True}, change=with_head(same=True)), out)
    assert "same bytes" in json.loads((out / "audit.json").read_text())["left"]["lm_head.weight"]


def test_a_tied_head_that_differs_is_refused(
    make_checkpoint: Callable[..., Path], config: dict[str, Any], out: Path
):
    checkpoint = make_checkpoint(config=config | {"tie_word_embeddings": True}, change=with_head(same=False))
    with pytest.raises(SourceError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight"):
        convert(checkpoint, out)


def setting(name: str, value: float):
    def change(tensors) -> None:
        dtype, array = tensors[f"model.layers.1.{name}"]
        tensors[f"model.layers.1.{name}"] = (dtype, np.full_like(array, value))

    return change


def removing(name: str):
    return lambda tensors: tensors.pop(name)


def adding(name: str):
    return lambda tensors: tensors.update({name: ("F32", np.ones((), np.float32))})


@pytest.mark.parametrize(
    ("fmt", "change", "said"),
    [
        ("none", removing("model.norm.weight"), "model.norm.weight: missing"),
        ("none", adding("model.layers.0.self_attn.q_proj.bias"), "q_proj.bias: not part of the layout"),
        ("fp8", adding("model.layers.0.self_attn.k_proj.k_scale"), "k_scale: not part of the layout"),
        (
            "int4_awq",
            removing("model.layers.0.mlp.down_proj.pre_quant_scale"),
            "down_proj.pre_quant_scale: missing",
        ),
        ("fp8", setting("self_attn.k_proj.weight_scale", 0.75), "k_proj.weight_scale: differs from .*q_proj"),
        ("fp8", setting("self_attn.v_proj.input_scale", 0.75), "v_proj.input_scale: differs from .*q_proj"),
        ("fp8", setting("mlp.up_proj.weight_scale", 0.75), "up_proj.weight_scale: differs from .*gate_proj"),
        (
            "int8_sq",
            setting("mlp.up_proj.pre_quant_scale", 0x3F80),
            "up_proj.pre_quant_scale: differs from .*gate",
        ),
        (
            "w4a8_awq",
            setting("mlp.up_proj.weight_scale_2", 0.75),
            "up_proj.weight_scale_2: differs from .*gate",
        ),
        ("w4a8_awq", setting("mlp.down_proj.weight_scale_2", 0), "down_proj.weight_scale_2: holds values"),
        ("w4a8_awq", removing("model.layers.0.mlp.down_proj.weight_scale_2"), "weight_scale_2: missing"),
        ("fp8_rowwise", adding("model.layers.0.mlp.down_proj.input_scale"), "input_scale: not part of"),
        ("int4_wo", adding("model.layers.0.mlp.down_proj.pre_quant_scale"), "pre_quant_scale: not part of"),
        ("fp8", setting("mlp.down_proj.weight_scale", np.nan), "down_proj.weight_scale: holds values"),
        ("int8_wo", setting("mlp.down_proj.weight_scale", 0), "down_proj.weight_scale: holds values"),
        (
            "int4_awq",
            setting("self_attn.o_proj.pre_quant_scale", 0x7F80),
            "o_proj.pre_quant_scale: holds values",
        ),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused(
    make_checkpoint: Callable[..., Path], out: Path, fmt: str, change, said: str
):
    checkpoint = make_checkpoint(fmt, change=change)
    with pytest.raises(SourceError, match=said):
        convert(checkpoint, out, fmt, tp=2)
    assert list(out.iterdir()) == []


def test_a_checkpoint_of_another_format_is_refused(make_checkpoint: Callable[..., Path], out: Path):
    with pytest.raises(
        SourceError, match="states quantization 'FP8', format 'int8_sq' is 'W8A8_SQ_PER_CHANNEL'"
    ):
        convert(make_checkpoint("fp8"), out, "int8_sq")
    with pytest.raises(SourceError, match="states quantization 'none', format 'fp8'"):
        convert(make_checkpoint("none"), out, "fp8")


def restating(checkpoint: Path, **changed) -> Path:
    """Changes what a checkpoint says of its precision."""
    config = json.loads((checkpoint / "config.json").read_text())
    config["quantization_config"] |= changed
    (checkpoint / "config.json").write_text(json.dumps(config))
    return checkpoint


def test_every_linear_of_a_mixture_is_compared(make_checkpoint: Callable[..., Path], out: Path):
    layers = {f"model.layers.{layer}.{name}": {"quant_algo": "FP8"} for layer in (0, 1) for name in LINEARS}
    checkpoint = restating(make_checkpoint(MIXED), quantized_layers=layers)
    with pytest.raises(SourceError) as caught:
        convert(checkpoint, out, MIXED)
    told = str(caught.value)
    assert "model.layers.0.mlp.down_proj: config.json states 'FP8'; by the exception" in told
    assert "by the exception 'model.layers.0.mlp.down_proj' it is 'none', 'none'" in told
    assert "by the exception '*.1.mlp.*' it is 'int8_sq', 'W8A8_SQ_PER_CHANNEL'" in told
    assert "q_proj" not in told
    assert list(out.iterdir()) == []


def test_a_linear_that_the_checkpoint_left_alone_is_named(make_checkpoint: Callable[..., Path], out: Path):
    checkpoint = restating(make_checkpoint("fp8"), ignore=["lm_head", "model.layers.1.mlp*"])
    with pytest.raises(
        SourceError, match=r"1\.mlp\.up_proj: config\.json states 'none'; by default it is 'fp8'"
    ):
        convert(checkpoint, out, "fp8")
    exempt = {"default": "fp8", "except": {"model.layers.1.mlp.*": "none"}}
    with pytest.raises(SourceError, match=r"up_proj: config\.json states 'FP8'; by the exception .* 'none'"):
        convert(make_checkpoint("fp8"), out, exempt)


def test_patterns_of_linears_left_alone_are_understood(make_checkpoint: Callable[..., Path], out: Path):
    exempt = {"default": "fp8", "except": {"model.layers.1.mlp.*": "none"}}
    convert(restating(make_checkpoint(exempt), ignore=["lm_head", "model.layers.1.mlp*"]), out, exempt)
    assert not (out / "quant_cfg.json").exists()


@pytest.mark.parametrize(
    ("held", "asked", "said"),
    [
        ("fp8", "auto", "config.json states KV cache '8-bit float', kv_cache 'auto' is 'none'"),
        ("auto", "fp8", "config.json states KV cache 'none', kv_cache 'fp8' is '8-bit float'"),
        ("fp8", "int8", "config.json states KV cache '8-bit float', kv_cache 'int8' is 'INT8'"),
    ],
)
def test_another_kv_cache_is_refused(
    make_checkpoint: Callable[..., Path], out: Path, held: str, asked: str, said: str
):
    with pytest.raises(SourceError, match=said):
        convert(make_checkpoint("fp8", kv_cache=held), out, "fp8", kv_cache=asked)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (removing("model.layers.1.self_attn.v_proj.v_scale"), "v_proj.v_scale: missing"),
        (setting("self_attn.k_proj.k_scale", np.inf), "k_proj.k_scale: holds values"),
    ],
)
def test_a_cache_without_usable_scales_is_refused(
    make_checkpoint: Callable[..., Path], out: Path, change, said: str
):
    checkpoint = make_checkpoint("fp8", kv_cache="fp8", change=change)
    with pytest.raises(SourceError, match=said):
        convert(checkpoint, out, "fp8", kv_cache="fp8")
    assert list(out.iterdir()) == []


def test_a_checkpoint_in_another_dtype_than_it_says_is_refused(
    make_checkpoint: Callable[..., Path], config: dict[str, Any], out: Path
):
    checkpoint = make_checkpoint()
    (checkpoint / "config.json").write_text(json.dumps(config | {"dtype": "float16"}))
    with pytest.raises(SourceError, match=r"BF16 \[256\], expected F16 \[256\]"):
        convert(checkpoint, out)


def test_impossible_layouts_are_refused_with_every_reason(make_checkpoint: Callable[..., Path], out: Path):
    with pytest.raises(BuildFailed, match=r"tp 3, pp 3(.*\n)+.*engine\.pp: 3(.*\n)+.*engine\.tp: 3"):
        convert(make_checkpoint(), out, tp=3, pp=3)
    assert list(out.iterdir()) == []


def test_a_truncated_weight_file_is_refused(make_checkpoint: Callable[..., Path], out: Path):
    checkpoint = make_checkpoint()
    with (checkpoint / "model.safetensors").open("r+b") as file:
        file.truncate(file.seek(0, 2) - 1000)
    with pytest.raises(SourceError, match=r"model\.safetensors: \d+ bytes expected"):
        convert(checkpoint, out)
    assert list(out.iterdir()) == []


def test_a_checkpoint_without_tokenizer_is_refused(make_checkpoint: Callable[..., Path], out: Path):
    checkpoint = make_checkpoint()
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(SourceError, match=r"no tokenizer; one of tokenizer\.json"):
        convert(checkpoint, out)


def test_another_layout_version_is_not_written(make_checkpoint: Callable[..., Path], out: Path):
    with pytest.raises(ValueError, match="layout_version 99"):
        convert(make_checkpoint(), out, layout_version=99)


def test_the_first_failure_is_the_one_reported(make_checkpoint: Callable[..., Path], out: Path):
    (out / "rank2.safetensors").touch()
    with pytest.raises(FileExistsError, match="rank2"):
        convert(make_checkpoint(), out, tp=4)


PEAK = """
import json, resource, sys
from pathlib import Path
import pipeline.checkpoint.convert
from tests.jobs import build_sharded as build
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
build(json.loads(sys.argv[1]), Path(sys.argv[2]), lambda *event: None)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
assert "torch" not in sys.modules
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_checkpoint(
    make_checkpoint: Callable[..., Path], config: dict[str, Any], out: Path
):
    big = config | {"hidden_size": 1024, "intermediate_size": 8192, "num_hidden_layers": 3}
    checkpoint = make_checkpoint(config=big)
    size_mib = (checkpoint / "model.safetensors").stat().st_size / 2**20
    assert size_mib > 150
    root = Path(__file__).parents[3]
    argv = [sys.executable, "-c", PEAK, json.dumps(job(checkpoint, tp=2)), str(out)]
    grown = subprocess.run(argv, cwd=root, check=True, capture_output=True, text=True).stdout
    assert (
        int(grown) / 1024 < 60
    )  # two writers, each with a piece of 8 MiB mapped and one copied, and the allocator


def test_weights_that_the_builder_quantizes_stay_as_they_are(make_checkpoint: Callable[..., Path], out: Path):
    spared = {"default": "int8_wo", "except": {"*.down_proj": "fp8"}}
    checkpoint = make_checkpoint({"default": "none", "except": {"*.down_proj": "fp8"}})
    convert(checkpoint, out, spared, tp=2, at_build=True)
    header = read_header(out / "rank0.safetensors")
    assert header["transformer.layers.0.attention.qkv.weight"].dtype == "BF16"
    assert header["transformer.layers.0.mlp.proj.weight"].dtype == "F8_E4M3"
    said = json.loads((out / "quant_cfg.json").read_text())["quantized_layers"]
    assert said["transformer.layers.0.attention.qkv"] == {"quant_algo": "W8A16"}
    assert said["transformer.layers.0.mlp.proj"] == {"quant_algo": "FP8"}


def test_a_draft_with_another_vocabulary_than_its_target_is_refused(
    make_checkpoint: Callable[..., Path], out: Path
):
    target, draft = make_checkpoint(), make_checkpoint()
    for checkpoint, first in ((target, "a"), (draft, "b")):
        tokens = {"model": {"vocab": {first: 0}}}
        (checkpoint / "tokenizer.json").write_text(json.dumps(tokens))
    asked = job(draft)
    asked["inputs"]["target"] = str(target)
    with pytest.raises(SourceError, match="a draft model must have the target's tokenizer"):
        build(asked, out, lambda *_: None)
    assert list(out.iterdir()) == []
    (draft / "tokenizer.json").write_bytes((target / "tokenizer.json").read_bytes())
    build(asked, out, lambda *_: None)
    assert (out / "rank0.safetensors").is_file()
