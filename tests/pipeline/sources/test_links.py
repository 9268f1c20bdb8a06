"""A private key that a model directory, a template or an import leads to is never read, copied or published."""

import json
import shutil
from pathlib import Path

import pytest

from artifacts.store.opening import open_store
from pipeline.errors import EXIT_CODES, SourceError
from pipeline.process.host import probe
from pipeline.step.realize import Listener, Site, realize
from tests.callables import Ask
from tests.checkpoints import checkpoint, lay
from tests.medusa import demo_heads
from tests.pipeline.plans import DEMO, recipe_file
from tests.pipeline.step.test_users_places import steps

SECRET = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU\n"


@pytest.fixture
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key that nobody else may read."""
    path = tmp_path_factory.mktemp("home") / ".ssh" / "id_rsa"
    path.parent.mkdir()
    path.write_text(SECRET)
    path.chmod(0o600)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the demo's model."""
    return shutil.copytree(DEMO / "model", tmp_path / "model")


def kept(tmp_path: Path):
    """Files of the test, the store's among them, that hold the secret's bytes."""
    places = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in places if SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize("command", ["plan", "run", "submit", "lint", "tools sensitivity"])
def test_a_licence_that_leads_to_a_private_key_is_refused_before_anything_runs(
    command: str, ask: Ask, secret: Path, model: Path, tmp_path: Path
):
    (model / "LICENSE").symlink_to(secret)
    recipe = recipe_file(tmp_path, **{"model.path": str(model)})
    code, _, err = ask(*command.split(), str(recipe))
    assert (code, "Traceback" in err) == (2, False), err
    assert f"{model}: a link leads out of it: LICENSE -> {secret}" in err
    assert kept(tmp_path) == []


def test_every_file_that_is_read_is_looked_at_and_the_rest_is_counted(
    ask: Ask, secret: Path, model: Path, tmp_path: Path
):
    names = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
             "tokenizer_config.json", "chat_template.jinja", "NOTICE.txt", "README.md", "added_tokens.json",
             "hf_quant_config.json", "special_tokens_map.json", "vocab.json")  # fmt: skip
    for name in names:
        (model / name).unlink(missing_ok=True)
        (model / name).symlink_to(secret)
    (model / "additional_chat_templates").symlink_to(secret.parent)
    (secret.parent / "tool_use.jinja").write_text("{{ messages }}")
    (model / "notes.txt").symlink_to(secret)  # not read
    code, _, err = ask("plan", str(recipe_file(tmp_path, **{"model.path": str(model)})))
    assert code == 2
    assert f"{model}: {len(names) + 1} links lead out of it: NOTICE.txt -> {secret}, " in err
    assert f"and {len(names) - 2} more" in err
    assert "notes.txt" not in err


def test_a_link_to_nothing_of_the_models_is_no_matter(ask: Ask, secret: Path, model: Path, tmp_path: Path):
    (model / "notes.txt").symlink_to(secret)
    (tmp_path / "latest").symlink_to("model")
    (model / "LICENSE").symlink_to("NOTICE.txt")
    assert ask("plan", str(recipe_file(tmp_path, **{"model.path": str(tmp_path / "latest")})))[0] == 0


@pytest.mark.slow
def test_a_link_that_appears_after_the_plan_is_not_copied_even_if_its_bytes_were_planned(
    secret: Path, tmp_path: Path
):
    model = lay(tmp_path / "model", checkpoint() | {"LICENSE": SECRET.encode()})
    site = Site(store=open_store(tmp_path / "store"), host=probe())
    source, *_ = steps(model)
    (model / "LICENSE").unlink()
    (model / "LICENSE").symlink_to(secret)
    with pytest.raises(SourceError, match="a link leads out of it: LICENSE"):
        realize(source, site, Listener())
    assert EXIT_CODES[SourceError] == 2
    assert not site.store.has(source.key)
    assert kept(tmp_path) == []


def test_heads_and_drafts_are_looked_at_too(ask: Ask, secret: Path, model: Path, tmp_path: Path):
    heads = demo_heads(tmp_path / "heads")
    (heads / "LICENSE").symlink_to(secret)
    draft = shutil.copytree(model, tmp_path / "draft")
    (draft / "README.md").symlink_to(secret)
    for mode, path, name in (("medusa", heads, "LICENSE"), ("draft_tokens_external", draft, "README.md")):
        wanted = {"mode": mode, "draft": {"path": str(path)}, "max_draft_len": 3}
        recipe = recipe_file(tmp_path, **{"model.path": str(model), "speculative": wanted})
        code, _, err = ask("plan", str(recipe))
        assert code == 2
        assert f"speculative.draft: {path}: a link leads out of it: {name} -> {secret}" in err


@pytest.mark.parametrize("name", ["LICENSE", "COPYING", "hf_quant_config.json", "tokenizer_config.json"])
def test_an_import_of_a_checkpoint_reads_no_link_out_of_it(name: str, ask: Ask, secret: Path, tmp_path: Path):
    model = lay(tmp_path / "theirs", checkpoint())
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to(secret)
    code, _, err = ask("registry", "import", str(model), "team/theirs")
    assert code == 2
    assert f"{model}: a link leads out of it: {name} -> {secret}" in err
    assert kept(tmp_path) == []


def test_an_import_of_json_that_is_none_is_refused(ask: Ask, tmp_path: Path):
    model = lay(tmp_path / "theirs", checkpoint() | {"vocab.json": SECRET.encode()})
    code, _, err = ask("registry", "import", str(model), "team/theirs")
    assert code == 2
    assert f"{model}/vocab.json: not valid JSON" in err
    assert kept(tmp_path / "store") == []


def test_a_reshard_reads_no_link_out_of_its_checkpoint(ask: Ask, secret: Path, model: Path, tmp_path: Path):
    (model / "chat_template.jinja").unlink()
    (model / "chat_template.jinja").symlink_to(secret)
    code, _, err = ask("tools", "reshard", str(model), str(tmp_path / "out"), "--tp", "1")
    assert code == 2
    assert "a link leads out of it: chat_template.jinja" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("key.jinja", SECRET, "key.jinja:1: no chat template, for it does not read 'messages'"),
        ("long.jinja", "{{ messages }}" + " " * (1 << 20), "long.jinja: more than 1,048,576 bytes"),
        ("half.jinja", "{{ messages", "half.jinja:1: no Jinja template"),
        ("latin.jinja", "{{ messages }}\n\udcff", "latin.jinja:2: not UTF-8"),
    ],
)
def test_a_template_must_be_one(name: str, text: str, said: str, ask: Ask, tmp_path: Path):
    (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    code, _, err = ask("plan", str(with_template(tmp_path, name)))
    assert code == 2
    assert f"template: {tmp_path}/{said}" in err
    assert kept(tmp_path) == [tmp_path / name] * (text == SECRET)


def with_template(tmp_path: Path, name: str) -> Path:
    data = [{"path": str(DEMO / "data" / "calibration.jsonl"), "template": name}]
    return recipe_file(tmp_path, **{"calibration.data": data})


def test_a_template_is_a_file_of_its_directory_or_the_recipes(ask: Ask, secret: Path, tmp_path: Path):
    good = tmp_path / "shared" / "v1"
    good.mkdir(parents=True)
    (good / "chat.jinja").write_text("{{ messages[0].content }}")
    (tmp_path / "inside.jinja").symlink_to("shared/v1/chat.jinja")
    (tmp_path / "outside.jinja").symlink_to(secret)
    (tmp_path / "device.jinja").symlink_to("/dev/zero")
    for name in ("inside.jinja", str(good / "chat.jinja")):
        assert ask("plan", str(with_template(tmp_path, name)))[0] == 0
    for name in ("outside.jinja", "device.jinja"):
        code, _, err = ask("plan", str(with_template(tmp_path, name)))
        assert code == 2
        assert f"template: {tmp_path}: a link leads out of it: {name} -> " in err


def test_a_saved_dataset_keeps_to_its_directory(ask: Ask, secret: Path, tmp_path: Path):
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    (saved / "data.arrow").symlink_to(secret)
    data = [{"path": str(saved)}]
    code, _, err = ask("plan", str(recipe_file(tmp_path, **{"calibration.data": data})))
    assert code == 2
    assert f"{saved}: a link leads out of it: data.arrow -> {secret}" in err


@pytest.mark.parametrize("name", ["vocab.json", "chat_template.json", "generation_config.json"])
def test_json_that_is_none_is_refused_by_the_plan(name: str, ask: Ask, model: Path, tmp_path: Path):
    (model / name).write_text(SECRET)
    code, _, err = ask("plan", str(recipe_file(tmp_path, **{"model.path": str(model)})))
    assert code == 2
    assert f"{model / name}: not valid JSON" in err
