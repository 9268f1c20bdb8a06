"""push and import from the shell, to a directory and an OCI layout: which part goes, and that it comes back."""

import fnmatch
import json
from pathlib import Path

import pytest

from artifacts.client import Client
from tests.callables import Ask
from tests.pipeline.exchange.conftest import NAME

PARTS = {"engine": "engine", "checkpoint": "quantized_checkpoint"}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("target", ["hf", "oci"])
def test_the_part_that_is_asked_for_goes_and_comes_back(
    ask: Ask, client: Client, tmp_path: Path, target: str, part: str
):
    where = f"{target}:{tmp_path / 'out'}" + (":v1" if target == "oci" else "")
    code, out, err = ask("--json", "registry", "push", f"{NAME}@prod", where, "--part", part)
    assert code == 0, err
    assert json.loads(out)["part"] == part
    source = where if target == "oci" else str(tmp_path / "out")
    code, out, err = ask("--json", "registry", "import", source, "team/back")
    assert code == 0, err
    answer = json.loads(out)
    assert (answer["kind"], answer["verdict"], answer["version"]) == (PARTS[part], "UNVERIFIED", 1)
    ours = client.store.manifest(client.resolve(NAME).lineage[PARTS[part]]).files
    theirs = client.store.manifest(answer["key"]).files
    weights = {"engine": "*.engine", "checkpoint": "*.safetensors"}[part]
    assert fnmatch.filter(sorted(theirs), weights) == fnmatch.filter(sorted(ours), weights) != []
    assert {name: theirs[name].sha256 for name in theirs.keys() & ours.keys()} == {
        name: ours[name].sha256 for name in theirs.keys() & ours.keys()
    }


def test_what_goes_where_nobody_says_so(ask: Ask, client: Client, tmp_path: Path):
    for target, part in (("hf", "checkpoint"), ("oci", "engine")):
        code, out, err = ask("--json", "registry", "push", NAME, f"{target}:{tmp_path / target}")
        assert (code, json.loads(out)["part"]) == (0, part), err
