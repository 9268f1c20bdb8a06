"""Console sessions of the README, typed in as they stand: what they print is what the README shows.

A line of the README has to come in the output, in order; numbers, keys and moments count where they are always the same.
What is not typed in here stands in PROMISES.md with the test that runs its like, or with the reason.
"""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from artifacts.client import Client
from artifacts.registry.registry import Metric
from tests.main_job import DEMO, write_recipe
from tests.pipeline.conftest import ask
from tests.pipeline.export import published
from tests.pipeline.published import FACTS, publication
from tests.readme import ROOT, sessions

__all__ = ["ask"]

SESSIONS = {call.command: call for call in sessions((ROOT / "README.md").read_text())}


def output(command: str) -> list[str]:
    """What the README shows below a command."""
    return SESSIONS[command].output


def shown(lines: list[str], told: tuple[str, str], *, alike: bool) -> None:
    """Checks that the README's lines come on stdout or stderr in their order; `alike`: but for numbers and keys."""
    masked = mask if alike else str.split
    left = [[masked(line) for line in stream.splitlines()] for stream in told]
    for line in lines:
        if "this host has" in line or line.strip() in ("", "..."):
            continue
        wanted = masked(line.removesuffix("..."))
        found = [
            (stream, n) for stream in left for n, one in enumerate(stream) if one[: len(wanted)] == wanted
        ]
        assert found, f"the README shows {line!r}; the command prints\n{told[0]}{told[1]}"
        stream, n = found[0]
        del stream[: n + 1]


def mask(line: str) -> list[str]:
    """The words of a line without what another run has otherwise: keys, numbers, moments, who and where."""
    line = re.sub(r"objects/\w\w/", "objects/", line)
    line = re.sub(r"\b[0-9a-f]{12,}\b(\.\.\.)?", "KEY", line)
    line = re.sub(r"\S+/(gate\.jsonl)", r"\1", line)
    line = re.sub(r"\b[\w.-]+@[\w.-]+(?=$|\s+demo/|: )", "SOMEBODY", line)
    line = re.sub(r"\b[kMG]?B\b", "BYTES", line)
    return re.sub(r"\d[\d.,:Z-]*", "#", line).split()


def call(ask, command: str) -> tuple[int, tuple[str, str]]:
    """Runs a command of the README; returns its exit code, and what it printed on stdout and stderr."""
    program, *words = shlex.split(command.partition(" # ")[0])
    assert program == "enginery"
    code, out, err = ask(*words)
    return code, (out, err)


@pytest.fixture
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_the_demos_plan(ask, at_root):
    command = "enginery plan recipes/demo/int4_awq_tp2.yaml"
    code, told = call(ask, command)
    shown(output(command), told, alike=True)
    assert code == 0


@pytest.mark.parametrize("name", ["8b_fp8_h100", "70b_fp8_kv_h200", "8b_int4_awq_a100", "70b_bf16_h100"])
def test_what_fits_a_gpu(ask, at_root, tmp_path, monkeypatch, name):
    monkeypatch.delenv("ENGINERY_TOOLCHAINS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # where toolchains would be declared
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    command = f"enginery plan recipes/production/{name}.yaml"
    code, told = call(ask, command)
    shown(output(command), told, alike=False)
    assert code == 4


def test_advice(ask, at_root):
    command = "enginery lint recipes/production/8b_fp8_h100.yaml"
    code, told = call(ask, command)
    shown(output(command), told, alike=False)
    assert code == 0


REFUSED = {
    "enginery plan recipe.yaml # with calibration: {memory: {host_gb: 0.2}}": {
        "calibration__memory": {"host_gb": 0.2}
    },
    'enginery plan recipe.yaml # with format: {default: fp8, except: {"model.layer.0.*": none}}': {
        "format": {"default": "fp8", "except": {"model.layer.0.*": "none"}}
    },
}


@pytest.mark.parametrize("command", REFUSED)
def test_what_plan_refuses(ask, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    changes = {"name": "my/llama-fp8", "calibration__seq_len": 256, **REFUSED[command]}
    write_recipe(tmp_path / "recipe.yaml", **changes)
    code, out, err = ask("plan", "recipe.yaml")
    shown(output(command), (out, err), alike=False)
    assert code == 2


@pytest.mark.slow
def test_a_leak_ends_a_run(ask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = next(one for one in SESSIONS if one.startswith("enginery run recipe.yaml"))
    (row,) = (DEMO / "data" / "gate.jsonl").read_text().splitlines()[23:24]
    data = (DEMO / "data" / "calibration.jsonl").read_text().splitlines()[:60]
    (tmp_path / "traffic.jsonl").write_text("\n".join([*data, row]) + "\n")
    write_recipe(tmp_path / "recipe.yaml", calibration__data=[{"path": "traffic.jsonl"}])
    code, out, err = ask("run", "recipe.yaml")
    shown(output(command), (out, err), alike=True)
    assert code == 2


def test_a_promotion_refused_waived_and_taken_back(ask, tmp_path):
    client = Client(str(tmp_path / "store"))
    for seed in (1, 2):
        made = publication("demo/int4_awq_tp2", seed=seed)
        with client.store.write(made.engine_key, kind="engine", step={}, host={}) as draft:
            (draft.path / "rank0.bin").write_bytes(b"engine" * seed)
        metrics = [Metric("perplexity_ratio", 1.02458), Metric("tokens_per_s", 344.0)]
        client.registry.publish(
            publication("demo/int4_awq_tp2", seed=seed, metrics=metrics, facts={**FACTS, "target": "host"})
        )
    typed = list(SESSIONS)
    start = next(n for n, one in enumerate(typed) if one.startswith("enginery registry policy prod"))
    policy, promote, waive, rollback, log = typed[start : start + 5]
    assert promote == "enginery promote demo/int4_awq_tp2:2 prod"
    for command, lines, wanted in (
        (policy, output(policy), 0),
        (promote, output(promote), 3),
        (waive, output(waive), 0),
        (promote, SESSIONS[promote].again, 0),
        (rollback, output(rollback), 0),
        (log, output(log), 0),
    ):
        if command == rollback:  # what the README leaves out
            ask(
                "registry",
                "waive",
                "demo/int4_awq_tp2:1",
                "prod",
                "metrics",
                "--reason",
                "so far in prod",
                "--for",
                "7d",
            )
            assert ask("promote", "demo/int4_awq_tp2:1", "prod")[0] == 0
        code, told = call(ask, command)
        shown(lines, told, alike=True)
        assert code == wanted, told


def test_a_corrupted_byte_found_named_and_repaired(ask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    client = Client(str(tmp_path / "store"))
    lineage = {"engine": "e" * 64, "sharded_checkpoint": "5" * 64}
    for kind, key in lineage.items():
        with client.store.write(key, kind=kind, step={}, host={}) as draft:
            (draft.path / "rank1.safetensors").write_bytes(b"weights" * 1000)
            (draft.path / "about.json").write_text(kind)
    with client.store.write(f"{1:064x}", kind="engine", step={}, host={}) as draft:
        (draft.path / "about.json").write_text("an older engine")
    for seed in (1, 2):
        made = (
            {"engine_key": f"{seed:064x}", "lineage": {}}
            if seed == 1
            else {"engine_key": "e" * 64, "lineage": lineage}
        )
        client.registry.publish(publication("demo/int4_awq_tp2", seed=seed, **made, manifest_digest=None))
    assert ask("pull", "demo/int4_awq_tp2:2", "engine")[0] == 0
    damaged = client.store.path("e" * 64) / "rank1.safetensors"
    damaged.chmod(0o644)
    with damaged.open("r+b") as file:
        file.write(b"W")
    repair = next(one for one in SESSIONS if one.startswith("enginery store repair --all --from"))
    for command, of, wanted in (
        ("enginery verify --all", SESSIONS["enginery verify --all"].output, 1),
        (repair, output(repair), 0),
        ("enginery verify --all", SESSIONS["enginery verify --all"].again, 0),
    ):
        code, told = call(ask, command)
        shown(of, told, alike=True)
        assert code == wanted, told


def test_an_export_that_contradicts_its_engine(ask, tmp_path):
    published.publish(published.ENGINE_FP8_TP2, tmp_path / "store")
    command = next(one for one in SESSIONS if "decoding_mode=medusa" in one)
    code, told = call(ask, command)
    shown(output(command), told, alike=False)
    assert code == 2


def test_the_toolchains_of_the_readme_can_be_declared(ask, tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text()
    block = next(one for one in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "toolchains:" in one)
    file = tmp_path / "toolchains.yaml"
    file.write_text(block)
    monkeypatch.setenv("ENGINERY_TOOLCHAINS", str(file))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    code, out, _ = ask("-q", "tools", "toolchains")
    assert (code, out.split()) == (4, list(yaml.safe_load(block)["toolchains"]))  # read, and none is here
    assert Path(file).exists()
