"""Two rotary blocks in one config.json: no engine may come of the one that transformers drops."""

import json
import re

from pipeline.config_json import read_shape
from tests.cases import lay_out


def test_blocks_that_disagree_are_refused_by_both_names_and_values(cli, tmp_path):
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


def test_the_block_that_transformers_reads_is_read_where_it_stands_alone(cli, tmp_path):
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
