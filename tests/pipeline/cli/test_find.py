"""`enginery ls`, `find` and `diff` on registries as a fleet would have them."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from artifacts import digest
from artifacts.registry.registry import Metric, Publication, open_registry
from artifacts.store.opening import open_store
from pipeline.cli.main import enginery
from recipes.load import load
from tests.callables import Ask, Cli, Finished
from tests.pipeline.cli.test_main import DEMO

pytestmark = pytest.mark.slow

FACTS = {
    "backend": "aoti", "format": "fp8", "dtype": "bfloat16", "kv_cache": "bfloat16", "tp": 1, "pp": 1,
    "world_size": 1, "max_batch_size": 4, "max_seq_len": 512, "target": "host", "device": "cpu", "cpu": None,
    "toolchain": {}, "gpus": [], "weight_bytes_per_rank": [1000],
}  # fmt: skip


def scored(store: Path, kl: float) -> str:
    """Commits an evaluation of 16 sequences, whose divergence varies far more than it differs between two."""
    key = digest.of_json(kl)
    rows = [
        {
            "tokens": 100,
            "baseline_nll": 300.0,
            "engine_nll": 301.0,
            "kl": 100 * kl * (1 + n % 4),
            "agreed": 90 + n % 2,
        }
        for n in range(16)
    ]
    with open_store(store).write(key, kind="evaluation", step={}, host={}) as draft:
        (draft.path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return key


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose registry has the demo's recipe in two versions, and a directory like the demo's."""
    root = tmp_path_factory.mktemp("find")
    (root / "model").symlink_to(DEMO / "model")
    (root / "data").symlink_to(DEMO / "data")
    recipe = load(DEMO / "int4_awq_tp2.yaml")[0].recipe.model_dump(
        mode="json", exclude_none=True, by_alias=True
    )
    recipe |= {"name": "demo/fp8", "format": "fp8", "engine": {**recipe["engine"], "tp": 1}}
    first = Publication(
        name="demo/fp8", engine_key="1" * 64, recipe=recipe, verdict="PASS", facts=FACTS, model="./model",
        metrics=[Metric("kl", 0.02, 0.018, 0.022), Metric("tokens_per_s", 100.0), Metric("ttft_ms_p95", 40.0)],
        alias="candidate",
    )  # fmt: skip
    second = {**recipe, "engine": {**recipe["engine"], "max_batch_size": 8}}
    first = dataclasses.replace(
        first, lineage={"baseline": "b" * 64, "evaluation": scored(root / "store", 0.020)}
    )
    registry = open_registry(root / "store" / "registry.db")
    registry.publish(first)
    registry.publish(
        dataclasses.replace(
            first, engine_key="2" * 64, recipe=second, lineage={**first.lineage, "evaluation": scored(root / "store", 0.021)}, facts={**FACTS, "max_batch_size": 8}, alias=None,
            metrics=[Metric("kl", 0.03, 0.028, 0.032), Metric("tokens_per_s", 101.0), Metric("ttft_ms_p95", 90.0)],
        )
    )  # fmt: skip
    return root


@pytest.fixture
def here(cli: Cli, demo: Path) -> Callable[..., Finished]:
    """Runs `enginery --store THE_DEMO'S ARGS`."""
    return lambda *args: cli("--store", demo / "store", *args)


def test_ls_lists_what_an_alias_points_at_and_the_newest(here: Callable[..., Finished]):
    done = here("-q", "ls")
    assert done.stdout.split() == ["demo/fp8:1", "demo/fp8:2"]
    few = here("ls", "demo/fp8", "--limit", "1")
    assert "demo/fp8:2" in few.stdout
    assert "demo/fp8:1" not in few.stdout
    assert "1 of 2 are shown" in few.stderr
    assert "similar names: demo/fp8" in here("ls", "demo/fp9").stderr


def test_find_ranks_by_what_is_asked_and_drops_what_is_too_slow(here: Callable[..., Finished]):
    assert here("-q", "find", "--any-host").stdout.split() == ["demo/fp8:2", "demo/fp8:1"]
    done = here("--json", "find", "--rank", "first_token", "--slo", "ttft_ms_p95=50")
    answer = json.loads(done.stdout)
    assert [(row["version"], row["ttft_ms_p95"]) for row in answer["suits"]] == [("demo/fp8:1", 40.0)]
    reason = {"fact": "slo", "text": "ttft_ms_p95 is 90, more than 50"}
    assert answer["dropped"] == [{"version": "demo/fp8:2", "reasons": [reason]}]
    told = here("find", "--rank", "first_token", "--slo", "ttft_ms_p95=50")
    assert "ttft ms p95" in told.stdout
    assert "dropped demo/fp8:2: ttft_ms_p95 is 90, more than 50" in told.stderr


def test_find_writes_a_recipe_that_plans_when_nothing_fits(
    cli: Cli, here: Callable[..., Finished], demo: Path
):
    file = demo / "found.yaml"
    done = here("find", "--model", "model", "--tp", "2", "--max-batch-size", "16", "--recipe", file)
    assert done.returncode == 0, done.stderr
    assert "dropped demo/fp8:2: tp is 1, not 2; max_batch_size is 8, less than 16" in done.stderr
    assert f"written to {file}" in done.stderr
    assert "it plans on this host" in done.stderr
    engine = yaml.safe_load(file.read_text())["engine"]
    assert (engine["tp"], engine["max_batch_size"]) == (2, 16)
    planned = cli("--store", demo / "other", "--json", "plan", file)
    assert json.loads(planned.stdout)["name"] == "demo/fp8_tp2"
    again = here("find", "--tp", "2", "--recipe", file)
    assert (again.returncode, "found.yaml exists; give another file" in again.stderr) == (2, True)


def test_find_tries_other_formats_where_the_closest_versions_own_cannot_be_split(
    here: Callable[..., Finished], demo: Path
):
    done = here("find", "--format", "int4_awq", "--tp", "4", "--recipe", demo / "never.yaml")
    assert "choose tp so that 256 % (tp * 128) == 0" in done.stderr
    assert not (demo / "never.yaml").exists()


def test_find_for_another_host_asks_nothing_of_this_one(here: Callable[..., Finished]):
    done = here("find", "--gpu", "2xh200", "--runtime", "tensorrt_llm==1.2.1", "--driver", "570.86.10")
    assert "dropped demo/fp8:1: is loaded by torch of a version not recorded, not tensorrt_llm" in done.stderr
    assert "runs on the CPU, not on h200" in done.stderr
    recipe = yaml.safe_load(done.stdout)  # recipes stand in the repository's root here: paths lead nowhere
    assert recipe is None


def test_what_was_imported_is_no_start_for_a_recipe(cli: Cli, tmp_path: Path):
    open_registry(tmp_path / "store" / "registry.db").publish(
        Publication(
            name="theirs", engine_key="3" * 64, recipe={"name": "theirs", "format": "fp8"}, verdict="UNVERIFIED",
            origin="imported", facts={**FACTS, "tp": 1}, model="model",
        )
    )  # fmt: skip
    done = cli(
        "--store", tmp_path / "store", "find", "--tp", "2", "--slo", "ttft_ms_p95=1", "--max-batch-size", "99"
    )
    assert done.returncode == 0, done.stderr
    assert "dropped theirs:1: tp is 1, not 2" in done.stderr
    assert "no recipe" in done.stderr


def test_find_says_which_models_there_are(here: Callable[..., Finished]):
    done = here("find", "--model", "./modle")
    assert done.stdout == ""
    assert "no version of './modle' is published; there are versions of ./model" in done.stderr


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--slo", "beauty=3", "unknown metric 'beauty'; have itl_ms_p50"),
        ("--slo", "ttft_ms_p95", "'ttft_ms_p95' is no METRIC=NUMBER, e.g. ttft_ms_p95=300"),
        (
            "--runtime",
            "vllm==1",
            "'vllm==1' is no PROGRAM==VERSION; programs are tensorrt_llm, tensorrt, torch",
        ),
        ("--rank", "beauty", "unknown rank 'beauty'; have speed"),
    ],
)
def test_what_cannot_be_asked_for_is_a_usage_error(demo: Path, option: str, value: str, said: str):
    done = CliRunner().invoke(enginery, ["--store", str(demo / "store"), "find", "--any-host", option, value])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_diff_says_in_words_what_differs(here: Callable[..., Finished]):
    done = here("diff", "demo/fp8@candidate", "demo/fp8:2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == (
        "demo/fp8:2 against demo/fp8:1: kl worse (+50.0%), tokens_per_s no more different than noise"
    )
    assert "engine.max_batch_size: 4 -> 8" in done.stdout
    # 0.001 times the mean of 1, 2, 3, 4: the samples tell, not the registry's rounded figures
    assert "kl: 0.02 -> 0.03 (+50.0%): worse, and more than noise (difference +0.0025" in done.stdout
    assert "same samples, paired" in done.stdout
    answer = json.loads(here("--json", "diff", "demo/fp8:1", "demo/fp8:2").stdout)
    assert answer["needs"] == [{"place": "max_batch_size", "before": 4, "after": 8}]


def test_each_filter_and_the_limit_hold(ask: Ask, demo: Path, tmp_path: Path):
    (tmp_path / "store").symlink_to(demo / "store")

    def found(*args: str) -> list[str]:
        code, out, err = ask("-q", "find", "--any-host", *args, "--recipe", str(tmp_path / "unwanted.yaml"))
        assert code == 0, err
        return out.split()

    assert found("--limit", "1") == ["demo/fp8:2"]
    assert found("--name", "demo/fp8", "--pp", "1", "--max-seq-len", "512", "--backend", "aoti") == [
        "demo/fp8:2",
        "demo/fp8:1",
    ]
    for nothing in (
        ("--name", "demo/int4"), ("--pp", "2"), ("--max-seq-len", "513"), ("--backend", "tensorrt"),
        ("--format", "int4_awq"), ("--kv-cache", "int8"), ("--model", "other"), ("--tp", "2"),
        ("--max-batch-size", "9"),
    ):  # fmt: skip
        assert found(*nothing) == [], nothing
        (tmp_path / "unwanted.yaml").unlink(missing_ok=True)
    assert found("--max-batch-size", "8", "--rank", "accuracy") == ["demo/fp8:2"]
