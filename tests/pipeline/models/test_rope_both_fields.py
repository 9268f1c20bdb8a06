"""Two rotary blocks in one config.json: no engine may come of the one that transformers drops."""

import json
import re
from pathlib import Path

import pytest

from pipeline.errors import SourceError
from pipeline.models.config_json import read_shape
from tests.callables import Cli
from tests.cases import lay_out
from tests.pipeline.models.config_witness import bare

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
DISAGREE = [
    (
        "LlamaForCausalLM",
        {"rope_theta": 5e5, "rope_parameters": {"rope_theta": 1e4}},
        "rope_theta 500000.0 and rope_parameters.rope_theta 10000.0 disagree",
    ),
    (
        "Qwen2ForCausalLM",
        {"rope_theta": 1e6, "rope_scaling": YARN | {"rope_theta": 1e4}},
        "rope_theta 1000000.0 and rope_scaling.rope_theta 10000.0 disagree",
    ),
    (
        "LlamaForCausalLM",
        {"original_max_position_embeddings": 64, "rope_scaling": YARN},
        "original_max_position_embeddings 64 and rope_scaling.original_max_position_embeddings 32 disagree",
    ),
    (
        "LlamaForCausalLM",
        {"original_max_position_embeddings": 64, "rope_scaling": {"type": "yarn", "factor": 4.0}},
        "original_max_position_embeddings 64 and max_position_embeddings, which rope_scaling starts from, 2048",
    ),
    (
        "LlamaForCausalLM",
        {"rope_scaling": {"rope_type": "default", "type": "linear", "factor": 4.0}},
        "rope_scaling.rope_type 'default' and rope_scaling.type 'linear' disagree",
    ),
    (
        "MistralForCausalLM",
        {"partial_rotary_factor": 0.5, "rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 1.0}},
        "partial_rotary_factor 0.5 and rope_parameters.partial_rotary_factor 1.0 disagree",
    ),
    (
        "Phi3ForCausalLM",
        {"original_max_position_embeddings": 4096, "rope_scaling": LONG | {"original_max_position_embeddings": 64}},
        "original_max_position_embeddings 4096 and rope_scaling.original_max_position_embeddings 64 disagree",
    ),
    (
        "Gemma3ForCausalLM",
        {"rope_local_base_freq": 5e3, "rope_parameters": {"sliding_attention": {"rope_theta": 1e4}}},
        "rope_local_base_freq 5000.0 and rope_parameters.sliding_attention.rope_theta 10000.0 disagree",
    ),
]  # fmt: skip
AGREE = [
    ("LlamaForCausalLM", {"rope_theta": 1e4, "rope_parameters": {"rope_theta": 10000}}),
    ("LlamaForCausalLM", {"original_max_position_embeddings": 32, "rope_scaling": YARN}),
    ("LlamaForCausalLM", {"original_max_position_embeddings": 64, "rope_scaling": None}),
    ("LlamaForCausalLM", {"rope_scaling": {"rope_type": "linear", "type": "linear", "factor": 4.0}}),
    # Phi-3's own files: the context of the first training stands beside the block, as of release 1 and of now.
    ("Phi3ForCausalLM", {"original_max_position_embeddings": 4096, "max_position_embeddings": 131072,
                         "rope_scaling": {key: value for key, value in LONG.items() if key != "rope_type"} | {"type": "longrope"}}),
    ("Phi3ForCausalLM", {"rope_scaling": LONG | {"type": "su", "original_max_position_embeddings": 4096}}),
]  # fmt: skip


@pytest.mark.parametrize(("architecture", "fields", "said"), DISAGREE)
def test_a_block_and_what_stands_beside_it_must_agree(architecture: str, fields, said: str):
    with pytest.raises(SourceError) as told:
        read_shape(bare(architecture) | fields)
    assert said in str(told.value)


@pytest.mark.parametrize(("architecture", "fields"), AGREE)
def test_what_is_said_twice_and_equal_is_read(architecture: str, fields):
    read_shape(bare(architecture) | fields)


def test_blocks_that_disagree_are_refused_by_both_names_and_values(cli: Cli, tmp_path: Path):
    recipe = lay_out("rope-both-fields", tmp_path)
    for command in ("plan", "run"):
        done = cli("--store", tmp_path / "store", command, recipe, COLUMNS="1000")
        assert done.returncode == 2, done.stderr
        assert re.search(
            rf"model: {tmp_path}/model/config\.json: rope_scaling {{'rope_type': 'yarn', 'factor': 4\.0, .*}} and "
            r"rope_parameters {'rope_theta': 50000\.0, 'rope_type': 'default'} disagree; transformers reads the first",
            done.stderr,
        )
    assert not list(tmp_path.rglob("rank0.safetensors"))


def test_the_block_that_transformers_reads_is_read_where_it_stands_alone(cli: Cli, tmp_path: Path):
    recipe = lay_out("rope-both-fields", tmp_path)
    file = tmp_path / "model" / "config.json"
    config = json.loads(file.read_text())
    del config["rope_parameters"]
    shape = read_shape(config)
    assert (shape.rope_theta, shape.rope_scaling) == (10000.0, config["rope_scaling"])
    file.write_text(json.dumps(config))
    recipe.write_text(recipe.read_text().replace("backend: tensorrt", "backend: aoti"))
    done = cli("--store", tmp_path / "store", "plan", recipe, COLUMNS="1000")
    assert done.returncode == 2
    assert "engine.backend: aoti does not compute rope_type 'yarn'" in done.stderr
