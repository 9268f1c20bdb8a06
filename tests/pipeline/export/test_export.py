"""`enginery export`, and what it reads and writes: complete or not at all, from files that agree."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from artifacts.errors import DestinationTaken, StoreUnusable
from pipeline.cli.main import enginery
from pipeline.errors import EXIT_CODES, ExportRefused
from pipeline.export import exporters
from pipeline.export.engine_reader import read_deployment
from pipeline.export.export_settings import parse_settings
from pipeline.export.export_writer import write_export
from tests.callables import Cli
from tests.pipeline.export import published
from tests.pipeline.export.published import Version
from tests.present import present


def change(file: Path, edit) -> None:
    """Edits a committed file as a wrong build would have written it."""
    file.chmod(0o644)
    if file.suffix == ".yaml":
        document = yaml.safe_load(file.read_text())
        edit(document)
        file.write_text(yaml.safe_dump(document))
    else:
        document = json.loads(file.read_text())
        edit(document)
        file.write_text(json.dumps(document))


def test_a_deployment_is_read_from_the_engine(tmp_path: Path):
    deployment = published.deployment(published.ENGINE_WITH_DRAFT, tmp_path)
    assert present(deployment.limits).speculation == "draft_tokens_external"
    assert present(deployment.limits).max_draft_len == 4
    assert present(present(deployment.draft).limits).max_num_tokens == 2048
    assert (deployment.version, deployment.release) == ("1.2.0", (1, 2))
    assert [row.batch_size for row in deployment.measured] == [1, 64]
    assert present(deployment.checkpoint).quant_algo == "FP8"


@pytest.mark.parametrize(
    ("mode", "name"), [(4, "medusa"), (8, "lookahead_decoding"), ("EAGLE", "eagle"), (1, None)]
)
def test_speculative_modes_are_read_as_numbers_and_as_names(
    tmp_path: Path, mode: int | str, name: str | None
):
    version = published.Version(build={"speculative_decoding_mode": mode})
    assert present(published.deployment(version, tmp_path).limits).speculation == name


def test_files_that_disagree_are_refused(tmp_path: Path):
    store, record = published.publish(published.ENGINE_FP8_TP2, tmp_path)
    engine = store.path(record.engine_key)
    change(engine / "config.json", lambda doc: doc["build_config"].update(max_batch_size=32))
    with pytest.raises(ExportRefused, match="max_batch_size is 64 there and 32 here"):
        read_deployment(record, store)


def test_sequences_may_be_longer_by_the_draft_but_not_shorter(tmp_path: Path):
    store, record = published.publish(published.ENGINE_WITH_DRAFT, tmp_path)
    file = store.path(record.engine_key) / "config.json"
    change(file, lambda doc: doc["build_config"].update(max_seq_len=8196))
    assert read_deployment(record, store).max_seq_len == 8192
    change(file, lambda doc: doc["build_config"].update(max_seq_len=8000))
    with pytest.raises(ExportRefused, match="max_seq_len is 8192 there and 8000 here"):
        read_deployment(record, store)


def test_options_that_disagree_are_refused(tmp_path: Path):
    store, record = published.publish(published.TORCH_FP8_TP2, tmp_path)
    change(store.path(record.engine_key) / "llm_options.yaml", lambda doc: doc.update(tensor_parallel_size=1))
    with pytest.raises(ExportRefused, match="tp is 2 there and 1 here"):
        read_deployment(record, store)


@pytest.mark.parametrize(
    ("version", "name", "reason"),
    [
        (published.ENGINE_FP8_TP2, "config.json", "missing; the engine is incomplete"),
        (published.ENGINE_FP8_TP2, "engine.json", "missing; the engine is incomplete"),
        (published.TORCH_FP8_TP2, "llm_options.yaml", "missing; the engine is incomplete"),
    ],
)
def test_an_incomplete_engine_is_refused(tmp_path: Path, version: Version, name: str, reason: str):
    store, record = published.publish(version, tmp_path)
    (store.path(record.engine_key) / name).unlink()
    with pytest.raises(ExportRefused, match=reason):
        read_deployment(record, store)


@pytest.mark.parametrize("text", ["[]", "{", "null"])
def test_a_broken_description_is_refused(tmp_path: Path, text: str):
    store, record = published.publish(published.ENGINE_FP8_TP2, tmp_path)
    file = store.path(record.engine_key) / "config.json"
    file.chmod(0o644)
    file.write_text(text)
    with pytest.raises(ExportRefused, match=r"config\.json"):
        read_deployment(record, store)


def test_a_description_of_another_version_is_refused(tmp_path: Path):
    store, record = published.publish(published.ENGINE_FP8_TP2, tmp_path)
    change(
        store.path(record.engine_key) / "config.json", lambda doc: doc["build_config"].pop("max_beam_width")
    )
    with pytest.raises(ExportRefused, match="its description lacks 'max_beam_width'"):
        read_deployment(record, store)


def test_a_checkpoint_that_left_the_store_is_none(tmp_path: Path):
    version = replace(published.ENGINE_FP8_TP2, checkpoint=False)
    assert published.deployment(version, tmp_path).checkpoint is None


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        (["colour=red"], "unknown setting 'colour'; allowed: root, files, host, port"),
        (["port"], "'port' is no setting; write NAME=VALUE"),
        (["port=0"], "port: input should be greater than or equal to 1"),
        (["kv_cache_fraction=1.5"], "kv_cache_fraction: input should be less than 1"),
        (["host=a b"], "host: string should match"),
        (["port={a: 1}"], "port: "),
        (["port=[1"], "port: "),
    ],
)
def test_settings_are_closed_and_located(pairs: list[str], reason: str):
    with pytest.raises(ExportRefused) as refused:
        parse_settings(exporters.exporter("trtllm-serve").settings, pairs, root="/x")
    assert reason in str(refused.value)


def exported(tmp_path: Path, files: str):
    deployment = published.deployment(published.ENGINE_FP8_TP2, tmp_path / "store")
    chosen = exporters.exporter("triton")
    settings = parse_settings(chosen.settings, [], root=str(tmp_path / "out"), files=files)
    texts, trees = exporters.export("triton", deployment, settings)
    return deployment, texts, trees, settings


@pytest.mark.slow
@pytest.mark.parametrize("files", ["link", "copy"])
def test_engine_files_are_links_or_copies(tmp_path: Path, files: str):
    deployment, texts, trees, settings = exported(tmp_path, files)
    names = write_export(tmp_path / "out", texts, trees, settings)
    assert "engine/rank0.engine" in names
    assert "engine/manifest.json" not in names
    ours, theirs = tmp_path / "out" / "engine" / "rank0.engine", deployment.engine / "rank0.engine"
    assert ours.samefile(theirs) is (files == "link")
    assert ours.read_bytes() == theirs.read_bytes()
    assert os.access(tmp_path / "out" / "serve.sh", os.X_OK)


def test_the_twin_that_only_the_gate_scored_is_left_behind(tmp_path: Path):
    deployment = published.deployment(published.ENGINE_WITH_DRAFT, tmp_path / "store")
    settings = parse_settings(exporters.exporter("triton").settings, [], root=str(tmp_path / "out"))
    names = write_export(tmp_path / "out", *exporters.export("triton", deployment, settings), settings)
    assert "engine/draft/rank0.engine" in names
    assert not [name for name in names if "scoring" in name]


def test_referenced_engine_files_stay_in_the_store(tmp_path: Path):
    deployment, texts, trees, settings = exported(tmp_path, "reference")
    names = write_export(tmp_path / "out", texts, trees, settings)
    assert not [name for name in names if name.startswith("engine")]
    assert str(deployment.engine) in texts["repository/tensorrt_llm/config.pbtxt"]


def test_a_full_directory_is_left_alone(tmp_path: Path):
    _, texts, trees, settings = exported(tmp_path, "link")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    with pytest.raises(DestinationTaken):
        write_export(tmp_path / "out", texts, trees, settings)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_failed_export_leaves_nothing(tmp_path: Path):
    _, texts, trees, settings = exported(tmp_path, "copy")
    (tmp_path / "store" / "gone").mkdir()
    (tmp_path / "store" / "gone" / "link").symlink_to(tmp_path / "nowhere")
    broken = {**trees, "more": tmp_path / "store" / "gone"}
    with pytest.raises(StoreUnusable, match="cannot be written"):
        write_export(tmp_path / "out", texts, broken, settings)
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir() if "export" in path.name] == []


@pytest.fixture
def home(tmp_path: Path) -> Path:
    published.publish(published.ENGINE_FP8_TP2, tmp_path / "store")
    return tmp_path


NAME = published.ENGINE_FP8_TP2.name


def test_the_command_writes_and_says_what_to_run_next(cli: Cli, home: Path):
    done = cli("--store", home / "store", "export", f"{NAME}@prod", "--to", "triton", "--out", home / "out")
    assert done.returncode == 0, done.stderr
    assert f"exported {NAME}:1 to {home / 'out'}" in done.stdout
    assert f"{home / 'out'}/serve.sh" in done.stdout
    assert (home / "out" / "repository" / "ensemble" / "config.pbtxt").is_file()


def test_json_lists_the_files(cli: Cli, home: Path):
    out = home / "out"
    done = cli(
        "--store", home / "store", "--json", "export", NAME, "--to", "vllm", "--out", out, "--reference"
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["files"] == ["README.md", "serve.sh"]
    assert answer["version"] == f"{NAME}:1"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((f"{NAME}:7", "--to", "triton"), "has versions 1 to 1"),
        (("nobody", "--to", "triton"), "no version of 'nobody'"),
        ((NAME, "--to", "tgi"), "unknown target 'tgi'; have k8s, triton, trtllm-serve, vllm"),
        ((NAME, "--to", "triton", "--root", "/a$(b)"), "root: '/a$(b)' holds '$'"),
        ((NAME, "--to", "triton", "--set", "colour=red"), "unknown setting 'colour'"),
        ((NAME, "--to", "triton", "--set", "max_batch_size=65"), "exceeds the engine's 64"),
    ],
)
def test_the_command_refuses_with_exit_code_2(home: Path, arguments: tuple[str, ...], reason: str):
    words = ["--store", str(home / "store"), "export", *arguments, "--out", str(home / "out")]
    done = CliRunner().invoke(enginery, words, standalone_mode=False)
    assert reason in str(done.exception)
    assert isinstance(done.exception, Exception)
    assert EXIT_CODES[type(done.exception)] == 2
    assert not (home / "out").exists()


def test_a_damaged_engine_is_not_exported(cli: Cli, home: Path):
    (file,) = (home / "store" / "objects").rglob("rank0.engine")
    file.chmod(0o644)
    file.write_text("changed\n")
    done = cli("--store", home / "store", "export", NAME, "--to", "triton", "--out", home / "out")
    assert done.returncode == 1
    assert "is damaged in the store" in done.stderr


def test_pulling_what_cannot_load_here_says_why(home: Path):
    words = ["--store", str(home / "store"), "pull", NAME, str(home / "pulled")]
    done = CliRunner().invoke(enginery, words, standalone_mode=False)
    assert done.exit_code == 0
    assert f"this host cannot load {NAME}:1: " in done.stderr
    assert "needs tensorrt 10.7.0" in done.stderr


def test_an_export_outlives_the_store(cli: Cli, home: Path):
    out = home / "out"
    assert cli("--store", home / "store", "export", NAME, "--to", "triton", "--out", out).returncode == 0
    shutil.rmtree(home / "store")
    assert (out / "engine" / "rank0.engine").read_text() == "stands for the plan of rank 0\n"


def test_an_engine_of_a_backend_that_is_not_known_here_is_read_and_served_by_no_engine_server(
    tmp_path: Path,
) -> None:
    later = published.Version(backend="later", toolchain="1.1.0", name="demo/later", checkpoint=False)
    deployment = published.deployment(later, tmp_path)
    assert (deployment.limits, deployment.llm_options, deployment.draft) == (None, None, None)
    for target in ("triton", "trtllm-serve"):
        settings = parse_settings(exporters.exporter(target).settings, (), root="/srv")
        with pytest.raises(ExportRefused, match="backend later runs in Enginery's own runtime"):
            exporters.export(target, deployment, settings)
