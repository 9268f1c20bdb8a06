"""Chat templates at plan: missing ones, and those that are no Jinja."""

import json
import shutil
import time
from pathlib import Path

import pytest

from artifacts.store.local import LocalStore
from pipeline.errors import EXIT_CODES
from pipeline.step.realize import Site
from recipes.errors import RecipeError
from tests.cases import lay_out
from tests.pipeline.plans import HOST, draft_file

BROKEN = "{% for one in messages %}\n{{ one.content }}\n{% endfro %}\n"


def planned(recipe: Path, tmp_path) -> str:
    """Plans a recipe; returns what is said against it."""
    try:
        draft_file(recipe, Site(store=LocalStore(tmp_path / "store"), host=HOST))
    except RecipeError as exc:
        return str(exc)
    return ""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return lay_out("system-empty", tmp_path)


def without_template(tmp_path: Path) -> None:
    (tmp_path / "model" / "chat_template.jinja").unlink()


def test_chats_without_any_template_are_refused_by_the_plan(recipe: Path, tmp_path: Path):
    assert planned(recipe, tmp_path) == ""
    assert EXIT_CODES[RecipeError] == 2
    without_template(tmp_path)
    said = planned(recipe, tmp_path)
    assert "calibration.data.0: its rows become chats, and neither the recipe nor the tokenizer in" in said
    config = tmp_path / "model" / "tokenizer_config.json"
    template = "{% for one in messages %}{{ one.content }}{% endfor %}"
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": template}))
    assert planned(recipe, tmp_path) == ""


def test_a_template_that_is_no_jinja_is_refused_with_file_and_line(recipe: Path, tmp_path: Path):
    own = tmp_path / "model" / "chat_template.jinja"
    own.write_text(BROKEN)
    assert f"model: {own}:3: no Jinja template (Encountered unknown tag 'endfro'" in planned(recipe, tmp_path)
    own.write_bytes(b"{{ messages }}\n\xff\n")
    assert f"model: {own}:2: not UTF-8 (invalid start byte)" in planned(recipe, tmp_path)
    own.write_text("{{ " + "1" * 60_000 + " }}")
    assert f"model: {own}:1: no Jinja template (Exceeds the limit" in planned(recipe, tmp_path)
    own.write_text("{{" + "(" * 50_000)
    assert f"model: {own}:" in planned(recipe, tmp_path)
    without_template(tmp_path)
    config = tmp_path / "model" / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": BROKEN}))
    assert f"model: {config}: chat_template, line 3: no Jinja" in planned(recipe, tmp_path)


def test_the_recipes_own_template_is_parsed_too(recipe: Path, tmp_path: Path):
    (tmp_path / "own.jinja").write_text(BROKEN)
    text = recipe.read_text()
    assert "{path: calib.jsonl}" in text
    recipe.write_text(text.replace("{path: calib.jsonl}", "{path: calib.jsonl, template: own.jinja}"))
    assert f"template: {tmp_path}/own.jinja:3: no Jinja template" in planned(recipe, tmp_path)


def test_rows_of_text_need_no_template(tmp_path: Path):
    recipe = lay_out("gate-windows-bos", tmp_path)
    (tmp_path / "model" / "chat_template.jinja").write_text(BROKEN)
    assert "chat_template.jinja:3: no Jinja template" in planned(recipe, tmp_path)  # it is published too


@pytest.mark.parametrize("template", [5, {"a": 5}, [5], [{"template": "x"}], [{"name": "a"}], [["a", "b"]],
                                      [{"name": "a", "template": 5}], [{"name": 5, "template": "a"}]])  # fmt: skip
def test_a_configured_template_that_is_no_text_is_refused_by_its_field(
    template, recipe: Path, tmp_path: Path
):
    config = tmp_path / "model" / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": template}))
    assert f"{config}: chat_template is " in planned(recipe, tmp_path)


def test_configured_templates_by_name_are_parsed(recipe: Path, tmp_path: Path):
    without_template(tmp_path)
    shutil.rmtree(tmp_path / "model" / "additional_chat_templates", ignore_errors=True)
    config = tmp_path / "model" / "tokenizer_config.json"
    plain = json.loads(config.read_text())
    for template in ([{"name": "default", "template": BROKEN}], {"default": BROKEN}):
        config.write_text(json.dumps({**plain, "chat_template": template}))
        assert f"{config}: chat_template, line 3: no Jinja" in planned(recipe, tmp_path)


@pytest.mark.parametrize("name", ["LICENSE", "NOTICE.txt", "README.md", "merges.txt", "chat_template.jinja"])
def test_a_text_of_the_model_that_is_none_is_refused_by_name(name: str, tmp_path: Path):
    recipe = lay_out("gate-windows-bos", tmp_path)
    file = tmp_path / "model" / name
    for data, said in ((b"a\n\xff\xfe", "2: not UTF-8"), (b"\0\1", "1: not a text, for it holds a NUL")):
        file.write_bytes(data)
        assert f"{file}:{said}" in planned(recipe, tmp_path)
    file.write_text("\u00a9 text\n")
    assert planned(recipe, tmp_path) == ""


def test_a_template_of_the_model_beyond_its_limit_is_refused_by_name(tmp_path: Path):
    recipe = lay_out("gate-windows-bos", tmp_path)
    (tmp_path / "model" / "chat_template.jinja").write_text("a" * ((1 << 20) + 1))
    assert "chat_template.jinja: 1048577 bytes; at most 1048576 are read" in planned(recipe, tmp_path)


def test_a_plan_of_chats_takes_less_than_a_second(recipe: Path, tmp_path: Path):
    planned(recipe, tmp_path)
    started = time.process_time()
    planned(recipe, tmp_path)
    assert time.process_time() - started < 1
