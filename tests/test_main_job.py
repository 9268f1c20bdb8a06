"""The main job, whole: one recipe becomes a registered engine that another process finds, verifies and runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from artifacts.client import Client
from artifacts.manifest import RESERVED
from artifacts.store.opening import open_store
from tests.callables import Cli
from tests.jobs import build_tuned
from tests.main_job import DEMO, write_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_the_version_is_published_under_its_alias(cli: Cli, built: tuple[Path, dict[str, Any]]):
    root, answer = built
    rows = json.loads(cli("--store", root / "store", "--json", "ls").stdout)
    assert [(row["version"], row["aliases"], row["verdict"]) for row in rows] == [
        ("test/mixed:1", "@candidate", "PASS")
    ]
    assert answer["version"] == 1
    assert answer["verdict"]["outcome"] == "PASS"


def test_running_again_builds_nothing_and_publishes_nothing(cli: Cli, built: tuple[Path, dict[str, Any]]):
    root, _ = built
    before = open_store(root / "store").keys()
    again = json.loads(cli("--store", root / "store", "--json", "run", root / "recipe.yaml").stdout)
    assert all(step["cached"] for step in again["steps"])
    assert again["version"] == 1
    assert open_store(root / "store").keys() == before


def test_plan_says_that_all_is_cached(cli: Cli, built: tuple[Path, dict[str, Any]]):
    root, _ = built
    answer = json.loads(cli("--store", root / "store", "--json", "plan", root / "recipe.yaml").stdout)
    assert {step["status"] for step in answer["steps"]} == {"cached"}


def test_every_artifact_verifies(built: tuple[Path, dict[str, Any]]):
    root, _ = built
    store = open_store(root / "store")
    assert len(store.keys()) == 10
    assert [problem for key in store.keys() for problem in store.verify(key)] == []  # noqa: SIM118 a store is no dict


def test_another_process_finds_pulls_and_verifies_through_the_python_client(
    built: tuple[Path, dict[str, Any]], run_python: Callable[[str], str]
):
    root, _ = built
    code = f"""
from artifacts.client import Client
from artifacts.manifest import RESERVED
client = Client({str(root / "store")!r})
[found] = client.find(tp=2, format="mixed", kv_cache="float8_e4m3fn")
assert found.dropped == () and found.record.number == 1, found
assert client.find(kv_cache="bfloat16")[0].dropped
path = client.pull("test/mixed@candidate", {str(root / "pulled")!r})
print(sorted(p.name for p in path.iterdir() if p.suffix == ".safetensors"), client.verify(path))
"""
    assert run_python(code).strip() == "['rank0.safetensors', 'rank1.safetensors'] []"
    about = json.loads((root / "pulled" / "engine.json").read_text())
    assert about["linears"] == {"fp8": 10, "int4_awq": 3, "int8_sq": 2, "none": 5}
    assert about["kv_cache"] == "float8_e4m3fn"
    assert (
        about["kv_bytes_per_token"] == 4 * 2 * 2 * 32
    )  # layers, keys and values, heads of a rank, a byte each


def test_the_published_engine_continues_a_prompt(cli: Cli, built: tuple[Path, dict[str, Any]]):
    root, _ = built
    done = cli(
        "--store", root / "store", "--json", "generate", "test/mixed@candidate", "def main(", "-n", "12"
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["new_tokens"] == 12
    assert answer["text"].strip()


def test_a_chat_is_rendered_with_the_day_that_is_asked_for_and_within_limits(
    cli: Cli, built: tuple[Path, dict[str, Any]], tmp_path: Path
):
    root, _ = built
    engine = tmp_path / "engine"
    Client(root / "store").pull("test/mixed", engine)
    tokenizer = engine / "tokenizer"
    assert (tokenizer / "additional_chat_templates" / "tool_use.jinja").read_text() == "{{ tools }}"
    template = tokenizer / "chat_template.jinja"
    template.chmod(0o644)
    template.write_text("{{ strftime_now('%d %B %Y') }}: {{ messages[0].content }}")
    made_elsewhere(engine)
    at = ("--store", tmp_path / "store", "--json")
    assert cli(*at, "registry", "import", engine, "test/dated").returncode == 0
    command = (*at, "generate", "test/dated", "def main(", "-n", "2", "--chat")
    leap = cli(*command, "--date", "2024-02-29")
    assert leap.returncode == 0, leap.stderr
    assert json.loads(leap.stdout)["date"] == "2024-02-29"
    assert "the chat template's date is 2024-02-29" in leap.stderr
    template.write_text("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}")
    assert cli(*at, "registry", "import", engine, "test/dated").returncode == 0
    endless = cli(*command)
    assert endless.returncode == 2
    assert (
        "the chat template 'default' takes more than 5 s, for the prompt as a user's message"
        in endless.stderr
    )


def made_elsewhere(engine: Path) -> None:
    """Takes away what says that a pulled directory was published, so that its files may change."""
    for name in RESERVED:
        (engine / name).unlink(missing_ok=True)


def test_sampling_with_the_same_seed_gives_the_same_text(cli: Cli, built: tuple[Path, dict[str, Any]]):
    root, _ = built
    command = (
        "--store",
        root / "store",
        "--json",
        "generate",
        "test/mixed",
        "import ",
        "-n",
        "8",
        "--temperature",
        "0.9",
        "--seed",
        "3",
    )
    assert json.loads(cli(*command).stdout)["text"] == json.loads(cli(*command).stdout)["text"]


def test_a_chat_goes_through_the_template_and_a_pulled_directory_talks_too(
    cli: Cli, built: tuple[Path, dict[str, Any]]
):
    root, _ = built
    here = ("--store", root / "store", "--json")
    plain = json.loads(cli(*here, "generate", "test/mixed", "Close the file.", "-n", "4").stdout)
    chat = json.loads(cli(*here, "generate", "--chat", "test/mixed", "Close the file.", "-n", "4").stdout)
    assert chat["prompt_tokens"] > plain["prompt_tokens"]  # roles and turns around the same words
    assert cli("--store", root / "store", "pull", "test/mixed", root / "talks").returncode == 0
    talks = ("--json", "--store", root / "none", "generate", root / "talks", "Close the file.", "-n", "4")
    pulled = cli(*talks, ENGINERY_CACHE=str(root / "cache"))
    assert json.loads(pulled.stdout)["text"] == plain["text"]


def test_find_names_what_suits_and_says_why_a_version_does_not(cli: Cli, built: tuple[Path, dict[str, Any]]):
    root, _ = built
    found = cli("--store", root / "store", "--json", "find", "--tp", "2", "--kv-cache", "float8_e4m3fn")
    assert [row["version"] for row in json.loads(found.stdout)["suits"]] == ["test/mixed:1"]
    done = cli("--store", root / "store", "--json", "find", "--tp", "1")
    answer = json.loads(done.stdout)
    assert answer["suits"] == []
    assert answer["dropped"][0]["reasons"] == [{"fact": "tp", "text": "tp is 2, not 1"}]


def test_promote_refuses_when_the_alias_is_not_where_it_was_expected(
    cli: Cli, built: tuple[Path, dict[str, Any]]
):
    root, _ = built
    assert cli("--store", root / "store", "promote", "test/mixed:1", "prod", "--new").returncode == 0
    lost = cli("--store", root / "store", "promote", "test/mixed:1", "prod", "--expect", "7")
    assert lost.returncode == 1
    assert "7" in lost.stderr


def test_a_changed_byte_is_found_named_and_built_again(
    cli: Cli, built: tuple[Path, dict[str, Any]], tmp_path: Path
):
    root, answer = built
    shutil.copytree(root / "store", tmp_path / "store")
    store = open_store(tmp_path / "store")
    sharded = next(step["key"] for step in answer["steps"] if step["kind"] == "sharded_checkpoint")
    target = store.path(sharded) / "rank1.safetensors"
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 1
    target.chmod(0o644)
    target.write_bytes(data)
    assert any("rank1.safetensors" in problem for problem in store.verify(sharded))
    done = cli("--store", tmp_path / "store", "--json", "run", root / "recipe.yaml")
    assert done.returncode == 0, done.stderr
    again = {step["kind"]: step for step in json.loads(done.stdout)["steps"]}
    assert not again["sharded_checkpoint"]["cached"]
    assert "damaged" in done.stderr
    assert store.verify(sharded) == []


def test_a_badly_calibrated_engine_is_refused_and_nothing_is_published(
    cli: Cli, built: tuple[Path, dict[str, Any]]
):
    root, _ = built
    bad = write_recipe(
        root / "bad.yaml",
        name="test/bad",
        format="int8_sq",
        calibration={"data": [{"path": str(DEMO / "data" / "unrelated.txt")}], "seq_len": 32},
    )
    done = cli("--store", root / "store", "run", bad)
    assert done.returncode == 3, done.stderr
    assert "accuracy gate says FAIL" in done.stderr
    assert "perplexity_ratio" in done.stderr
    assert Client(str(root / "store")).registry.names() == ["test/mixed"]


def test_the_best_trial_becomes_the_engine_and_failed_trials_are_kept(
    built: tuple[Path, dict[str, Any]], tmp_path: Path
):
    root, answer = built
    store = open_store(root / "store")
    keys = {step["kind"]: step["key"] for step in answer["steps"]}
    job = {
        "params": {
            "points": [{"max_batch_size": 2}, {"max_batch_size": 4}],
            "objective": "throughput",
            "slo": {},
        },
        "places": {"failures": {"1": "out of memory"}},
        "inputs": {
            "engine_0": str(store.path(keys["engine"])),
            "measurement_0": str(store.path(keys["measurement"])),
        },
    }
    seen = []
    build_tuned(job, tmp_path, lambda *event: seen.append(event))
    trials = json.loads((tmp_path / "tuning" / "trials.json").read_text())
    assert trials["chosen"] == 0
    assert trials["trials"][1]["why"] == "out of memory"
    assert (tmp_path / "tuning" / "trials.png").stat().st_size > 10_000
    built_files = {p.name for p in store.path(keys["engine"]).iterdir()} - {"manifest.json"}
    assert {p.name for p in tmp_path.iterdir()} == {*built_files, "tuning"}


def damaged(tmp_path: Path) -> Path:
    """The demo checkpoint with a NaN in one tensor."""
    import numpy as np
    from safetensors import safe_open

    model = tmp_path / "model"
    shutil.copytree(DEMO / "model", model)
    file = model / "model.safetensors"
    data = bytearray(file.read_bytes())
    with safe_open(file, framework="np") as opened:
        name = sorted(opened.keys())[0]
    header = int.from_bytes(data[:8], "little")
    start = json.loads(data[8 : 8 + header])[name]["data_offsets"][0] + 8 + header
    data[start : start + 2] = np.uint16(0x7FC0).tobytes()
    file.write_bytes(data)
    return model


def test_a_checkpoint_with_nan_is_refused_before_anything_is_stored(cli: Cli, tmp_path: Path):
    recipe = write_recipe(tmp_path / "recipe.yaml", model__path=str(damaged(tmp_path)))
    done = cli("--store", tmp_path / "store", "run", recipe)
    assert done.returncode == 2, done.stderr
    assert "model.safetensors" in done.stderr
    assert "NaN" in done.stderr
    assert open_store(tmp_path / "store").keys() == []


def test_a_checkpoint_without_a_tokenizer_is_refused(cli: Cli, tmp_path: Path):
    model = tmp_path / "model"
    shutil.copytree(DEMO / "model", model)
    (model / "tokenizer.json").unlink()
    recipe = write_recipe(tmp_path / "recipe.yaml", model__path=str(model))
    done = cli("--store", tmp_path / "store", "run", recipe)
    assert done.returncode == 2, done.stderr
    assert "tokenizer" in done.stderr
