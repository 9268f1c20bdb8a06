"""`enginery export` to each server: where it is served, what becomes of the engine files, and its settings."""

import json
from pathlib import Path

import pytest
import yaml

from pipeline.export.export_settings import _parse_scalar
from tests.callables import Ask
from tests.pipeline.export import published

NAME = published.TORCH_FP8_TP2.name
TARGETS = {
    "triton": ("--set", "http_port=9000"),
    "trtllm-serve": ("--set", "port=9000"),
    "vllm": ("--set", "port=9000"),
    "k8s": ("--set", "image=server:1", "--set", "claim=engines"),
}
"""Target -> settings that it is given."""


@pytest.fixture
def weights(tmp_path: Path):
    """The store's copy of a file of every tree that is exported."""
    store, record = published.publish(published.TORCH_FP8_TP2, tmp_path / "store")
    (checkpoint,) = (key for key in store.keys() if store.manifest(key).kind == "quantized_checkpoint")  # noqa: SIM118
    return {"engine": store.path(record.engine_key), "checkpoint": store.path(checkpoint)}


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("files", ["--link", "--copy", "--reference"])
def test_files_are_linked_copied_or_left(ask: Ask, weights, tmp_path: Path, target: str, files: str):
    out = tmp_path / "out"
    code, told, err = ask(
        "--json", "export", f"{NAME}@prod", "--to", target, "--out", str(out), files, *TARGETS[target]
    )
    if (target, files) == ("k8s", "--reference"):
        assert (code, "reference" in err, out.exists()) == (2, True, False)
        return
    assert code == 0, err
    texts = {name: (out / name).read_text() for name in json.loads(told)["files"] if "/" not in name}
    trees = [one for one in weights if (out / one).is_dir()]
    if files == "--reference":
        assert trees == []
        assert any(str(path) in text for path in weights.values() for text in texts.values())
        return
    assert trees
    for tree in trees:
        ours = next(path for path in (out / tree).rglob("*") if path.is_file())
        theirs = weights[tree] / ours.relative_to(out / tree)
        assert ours.read_bytes() == theirs.read_bytes()
        assert ours.samefile(theirs) is (files == "--link")


@pytest.mark.parametrize("target", TARGETS)
def test_root_and_settings_reach_what_the_server_reads(ask: Ask, weights, tmp_path: Path, target: str):
    call = (
        "export",
        NAME,
        "--to",
        target,
        "--out",
        str(tmp_path / "out"),
        "--root",
        "/srv/llm",
        *TARGETS[target],
    )
    code, _, err = ask(*call)
    assert code == 0, err
    script = (tmp_path / "out" / "serve.sh").read_text()
    assert "/srv/llm" in script
    assert str(tmp_path) not in script
    if target == "k8s":
        pod = yaml.safe_load((tmp_path / "out" / "manifest.yaml").read_text().split("---")[0])
        container = pod["spec"]["template"]["spec"]["containers"][0]
        assert (container["image"], container["command"][-1]) == ("server:1", "/srv/llm/serve.sh")
    else:
        assert "9000" in script


def test_a_directory_is_named_after_version_and_target(
    ask: Ask, weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert ask("export", NAME, "--to", "vllm")[0] == 0
    assert (tmp_path / "llama-3-1-8b-fp8-torch-1-vllm" / "serve.sh").is_file()


def test_a_setting_that_looks_like_a_date_and_is_none_is_text():
    assert _parse_scalar("2021-02-29") == "2021-02-29"
