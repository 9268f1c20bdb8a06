"""Everything that is refused, or warned of, before the first second of work."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artifacts.store.opening import open_store
from pipeline.errors import BackendUnavailable
from pipeline.plan.facts import gather
from pipeline.plan.plan import plan
from pipeline.plan.refusals import capacity, warnings
from pipeline.step.realize import Site
from recipes.errors import RecipeError
from recipes.load import load
from tests.pipeline.plans import DATA, DEMO, HOST, TOOLS, planned, recipe_file


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty store on a host that is always the same."""
    return Site(store=open_store(tmp_path / "store"), host=HOST)


def refused(file: Path, site: Site, kind: type[Exception]) -> str:
    """What a refused plan says."""
    with pytest.raises(kind, match=r"\w") as caught:
        planned(file, site)
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"engine.tp": 3}, "engine.tp: 3 does not divide 8 attention heads"),
        ({"engine.tp": 4}, "whole 128"),
        ({"engine.pp": 3}, "3 does not divide 4 layers"),
        ({"engine.max_seq_len": 4096}, "more than the model's 2048 positions"),
        ({"gate.seq_len": 1024}, "gate.seq_len: 1024 does not fit engine.max_seq_len 512"),
        ({"calibration.seq_len": 4096}, "calibration.seq_len: 4096"),
        ({"gate.max_sequences": 7}, "gate.max_sequences: 7 samples can never decide"),
        ({"engine.target": "h1000"}, "unknown target 'h1000'"),
        ({"format": "fp8", "engine.target": "a100"}, "format: fp8 needs sm_89; a100 is sm_80"),
        ({"engine.options": {"max_autotun": True}}, "engine.options.max_autotun"),
        (
            {"tune": {"space": {"max_seq_len": [512, 128]}}},
            "gate.seq_len: 256 does not fit engine.max_seq_len 128",
        ),
        ({"engine.max_seq_len": 3}, "too short to measure"),
        ({"calibration.data": [{"path": "none.jsonl"}]}, "no such data file"),
        ({"calibration.data": [{"path": "/dev"}]}, "has neither dataset_dict.json nor state.json"),
        (
            {"calibration.data": [{"path": "recipe.yaml"}]},
            "unknown kind of data file '.yaml'; have .jsonl, .csv",
        ),
        (
            {"calibration.total": {"samples": 900}},
            "calibration.jsonl has 272 rows; its share is 900: add rows",
        ),
        ({"gate.data.split": "test"}, "a file has no splits; remove 'split'"),
        ({"gate.data.template": "none.jinja"}, "template: "),
        ({"gate.data.column": "body"}, "no field 'body'; there is 'text'"),
        ({"gate.data.samples": 100000}, "the recipe asks for 100000"),
        ({"model.path": "nowhere"}, "model: "),
        (
            {"format": {"default": "fp8", "except": {"model.layers.0.mlp.dwn_proj": "none"}}},
            "did you mean 'model.layers.0.mlp.down_proj'",
        ),
        (
            {
                "format": {"default": "fp8", "except": {"*.down_proj": "int8_wo"}},
                "calibration.method": "modelopt",
            },
            "knows one format at a time, not fp8, int8_wo",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_its_place(
    tmp_path: Path, site: Site, change: dict[str, Any], said: str
):
    assert said in refused(recipe_file(tmp_path, **change), site, RecipeError)


def test_every_problem_is_told_at_once(tmp_path: Path, site: Site):
    said = refused(
        recipe_file(tmp_path, **{"engine.tp": 3, "engine.pp": 3, "gate.seq_len": 600}), site, RecipeError
    )
    assert all(word in said for word in ("engine.tp", "engine.pp", "gate.seq_len"))


@pytest.mark.parametrize(
    ("tools", "change", "said"),
    [
        ({"c++": None}, {}, "C++ compiler"),
        ({"nvidia-modelopt": None}, {}, "nvidia-modelopt is not installed"),
        (
            {"nvidia-modelopt": None},
            {"format": "none", "kv_cache": "fp8"},
            "nvidia-modelopt is not installed",
        ),
        ({"jinja2": None}, {}, "jinja2 is not installed"),
        ({}, {"engine.backend": "tensorrt"}, "backend tensorrt needs a TensorRT-LLM toolchain"),
    ],
)
def test_what_this_host_lacks_is_refused_as_such(
    tmp_path: Path, site: Site, tools: dict[str, Any], change: dict[str, Any], said: str
):
    have = {name: version for name, version in {**TOOLS, **tools}.items() if version}
    poor = dataclasses.replace(site, host=dataclasses.replace(HOST, tools=have))
    assert said in refused(recipe_file(tmp_path, **change), poor, BackendUnavailable)


def test_a_host_with_too_little_memory_is_refused(tmp_path: Path, site: Site):
    small = dataclasses.replace(site, host=dataclasses.replace(HOST, memory_bytes=1 << 20))
    assert "memory: " in refused(recipe_file(tmp_path), small, BackendUnavailable)


def test_a_declared_cap_that_no_sequence_fits_is_the_recipes_problem(tmp_path: Path, site: Site):
    said = refused(recipe_file(tmp_path, **{"calibration.memory": {"host_gb": 0.3}}), site, RecipeError)
    assert "calibration.memory: host_gb is 0.30, but one sequence of 256 tokens needs at least 0." in said


def test_a_truncated_weight_file_is_refused(tmp_path: Path, site: Site):
    model = tmp_path / "model"
    shutil.copytree(DEMO / "model", model)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    said = refused(recipe_file(tmp_path, **{"model.path": str(model)}), site, RecipeError)
    assert "model.safetensors" in said
    assert "bytes" in said


def test_a_checkpoint_of_pickles_is_refused(tmp_path: Path, site: Site):
    model = tmp_path / "model"
    shutil.copytree(DEMO / "model", model)
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert "safetensors" in refused(recipe_file(tmp_path, **{"model.path": str(model)}), site, RecipeError)


def test_an_unsupported_architecture_is_refused_with_the_supported_ones(tmp_path: Path, site: Site):
    model = tmp_path / "model"
    shutil.copytree(DEMO / "model", model)
    config = json.loads((model / "config.json").read_text()) | {"architectures": ["FalconForCausalLM"]}
    (model / "config.json").write_text(json.dumps(config))
    said = refused(recipe_file(tmp_path, **{"model.path": str(model)}), site, RecipeError)
    assert "FalconForCausalLM" in said
    assert "LlamaForCausalLM" in said


@pytest.mark.parametrize(
    ("line", "said"),
    [(b'{"text": "a"\n', ":2"), (b'{"txt": "a"}\n', "txt"), (b"[1]\n", ":2"), (b'{"text": 3}\n', ":2")],
)
def test_a_broken_calibration_row_is_refused_with_its_line(
    tmp_path: Path, site: Site, line: bytes, said: str
):
    (tmp_path / "data.jsonl").write_bytes(b'{"text": "good"}\n' + line)
    found = refused(
        recipe_file(tmp_path, **{"calibration.data": [{"path": "data.jsonl"}]}), site, RecipeError
    )
    assert "calibration.data.0" in found
    assert "data.jsonl" in found
    assert said in found


def test_an_empty_calibration_file_is_refused(tmp_path: Path, site: Site):
    (tmp_path / "data.jsonl").write_bytes(b"")
    assert "empty" in refused(
        recipe_file(tmp_path, **{"calibration.data": [{"path": "data.jsonl"}]}), site, RecipeError
    )


def test_a_full_disk_is_foreseen(tmp_path: Path, site: Site):
    (loaded,) = load(recipe_file(tmp_path))
    facts = dataclasses.replace(gather(loaded, HOST, site.store), free_bytes=1 << 20)
    steps = plan(loaded, facts).steps
    (said,) = capacity(steps, facts)
    assert said.startswith("disk: the steps to build need about 0.3 GB; the store has 0.0 GB free")
    assert capacity((), facts) == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"calibration.data": [DATA | {"weight": 2}]}, "'weight' divides a total"),
        (
            {"calibration.data": [DATA | {"samples": 2}], "calibration.total": {"tokens": 9}},
            "use 'weight' instead",
        ),
        ({"calibration.total": {}}, "give exactly one of 'samples' and 'tokens'"),
        ({"calibration.pack": False, "calibration.method": "modelopt"}, "would measure padding as text"),
        ({"calibration.data": [{"path": "a", "repo": "b/c"}]}, "exactly one of 'path' and 'repo'"),
        ({"calibration.data": [{"repo": "b/c"}]}, "'repo' and 'revision' go together"),
        ({"calibration.data": [{"repo": "b/c", "revision": "main"}]}, "not a full commit hash"),
        ({"calibration.data": [DATA | {"config": "x"}]}, "they go with 'repo'"),
        ({"calibration.data": [DATA | {"columns": {"prompt": "x"}}]}, "or 'prompt' and 'completion'"),
        (
            {"calibration.data": [DATA | {"columns": {"text": "x", "tools": "y"}}]},
            "'tools' goes with 'messages'",
        ),
        (
            {"calibration.data": [DATA | {"column": "x", "columns": {"text": "x"}}]},
            "one of 'column' and 'columns'",
        ),
        (
            {"calibration.data": [DATA | {"bad_rows": {"skip": 0}}]},
            "bad_rows.skip: input should be greater than 0",
        ),
        ({"gate.data.weight": 2}, "data.weight is for calibration"),
    ],
)
def test_data_that_contradicts_itself_is_refused_when_the_recipe_is_read(
    tmp_path: Path, change: dict[str, Any], said: str
):
    with pytest.raises(RecipeError, match=r"\w") as caught:
        load(recipe_file(tmp_path, **change))
    assert said in str(caught.value)


def test_sequences_shorter_than_what_is_served_are_warned_of(tmp_path: Path):
    short, long, none = (
        load(recipe_file(tmp_path, **change))[0].recipe
        for change in ({"calibration.seq_len": 128}, {"calibration.seq_len": 512}, {"format": "int8_wo"})
    )
    assert warnings(short) == (
        "calibration.seq_len: ranges are measured on 128 tokens, the engine will serve up to 512; later "
        "positions are not measured",
    )
    assert warnings(long) == warnings(none) == ()


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1 is not all of it", b"text,more\n1,2\n"])
def test_a_parquet_file_that_is_none_is_refused_at_once(tmp_path: Path, site: Site, data: bytes):
    (tmp_path / "data.parquet").write_bytes(data)
    said = refused(
        recipe_file(tmp_path, **{"calibration.data": [{"path": "data.parquet"}]}), site, RecipeError
    )
    assert f"data.parquet: not a whole Parquet file ({len(data)} bytes)" in said


@pytest.mark.parametrize("inside", [b"\xff" * 100, bytes(100), b"\xff" * 96 + b"\x10\0\0\0"])
def test_a_parquet_file_without_the_footer_that_it_names_is_refused_at_once(
    tmp_path: Path, site: Site, inside: bytes
):
    (tmp_path / "data.parquet").write_bytes(b"PAR1" + inside + b"PAR1")
    said = refused(recipe_file(tmp_path, **{"gate.data": {"path": "data.parquet"}}), site, RecipeError)
    length = int.from_bytes(inside[-4:], "little")
    assert f"data.parquet: not a Parquet file, for its last 8 bytes name a footer of {length} bytes" in said


def test_a_parquet_file_that_pyarrow_writes_is_taken(tmp_path: Path, site: Site):
    pq.write_table(pa.table({"text": ["one", "two"] * 40}), tmp_path / "data.parquet")
    planned(recipe_file(tmp_path, **{"gate.data": {"path": "data.parquet"}}), site)
