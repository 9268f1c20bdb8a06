"""Chats that failed for users, planned and rendered as their READMEs say; and the date of chat templates."""

import json
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from artifacts.store.opening import open_store
from calibration.errors import DataError
from pipeline.step.realize import Site
from recipes.errors import RecipeError
from tests.callables import Cli
from tests.cases import lay_out
from tests.jobs import build_calibration_set as build
from tests.jobs import params_of
from tests.pipeline.plans import HOST, draft_file, keys, planned, recipe_file

pytestmark = pytest.mark.slow


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(store=open_store(tmp_path / "store"), host=HOST)


def calibrated(recipe: Path, site: Site):
    """Plans the recipe and builds its calibration set: its report, and all of its text."""
    (drafted,) = draft_file(recipe, site)
    (step,) = (step for step in drafted.plan.steps if step.kind == "calibration_set")
    out, model = recipe.parent / "out", recipe.parent / "model"
    out.mkdir()
    build({**step.as_dict(), "places": step.places, "inputs": {"source": str(model)}}, out, lambda *_: None)
    samples = len((out / "samples.jsonl").read_text().splitlines())
    report = json.loads((out / "report.json").read_text())
    # Each sequence begins with BOS, also where it goes on in the middle of a row.
    tokens = load_file(out / "tokens.safetensors")["tokens"][:, 1:].flatten().tolist()
    return report, AutoTokenizer.from_pretrained(model).decode(tokens), samples


@pytest.mark.parametrize("case", ["system-empty", "reasoning-only-turn"])
def test_chats_with_empty_contents_are_accepted(case: str, tmp_path: Path, site: Site):
    recipe = lay_out(case, tmp_path)
    report, text, samples = calibrated(recipe, site)
    assert samples == len((tmp_path / "calib.jsonl").read_text().splitlines())
    assert report["sources"][0]["skipped"] == []
    assert "<|user|>" in text


def test_arguments_in_a_string_reach_the_template_as_an_object(tmp_path: Path, site: Site):
    recipe = lay_out("tool-args-string-tojson", tmp_path)
    report, text, samples = calibrated(recipe, site)
    assert '"parameters": {"gauge": ' in text
    assert '"parameters": "' not in text
    assert report["sources"][0]["chats"] == {"arguments_decoded": samples, "date": None}


def test_half_a_surrogate_pair_in_arguments_is_told_with_its_line_and_can_be_skipped(
    tmp_path: Path, site: Site, cli: Cli
):
    recipe = lay_out("surrogate-in-args", tmp_path)
    with pytest.raises(RecipeError, match=r"calib\.jsonl:4: 'tool_calls' of message 2 has half a surrogate"):
        draft_file(recipe, site)
    done = cli("--store", tmp_path / "store", "plan", recipe)
    assert done.returncode == 2
    assert "calib.jsonl:4: 'tool_calls' of message 2 has half a surrogate pair after " in done.stderr
    document = yaml.safe_load(recipe.read_text())
    document["calibration"]["data"][0]["bad_rows"] = {"skip": 1}
    recipe.write_text(yaml.safe_dump(document))
    report, _, samples = calibrated(recipe, site)
    assert [line.partition(": ")[0] for line in report["sources"][0]["skipped"]] == ["calib.jsonl:4"]
    assert samples == report["sources"][0]["rows"]


def test_a_template_that_loops_is_an_error_of_the_row(tmp_path: Path, site: Site):
    recipe = lay_out("system-empty", tmp_path)
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    (tmp_path / "model" / "chat_template.jinja").write_text(loop)
    with pytest.raises(DataError, match=r"calib\.jsonl:1: the chat template takes more than 5 s; fix"):
        calibrated(recipe, site)


def test_rows_with_tools_go_through_the_template_for_them(tmp_path: Path, site: Site):
    recipe = lay_out("system-empty", tmp_path)
    more = tmp_path / "model" / "additional_chat_templates"
    more.mkdir()
    (more / "tool_use.jinja").write_text("<|bos|>{{ tools[0].name }} for {{ messages[0].content }}")
    turns = [{"role": "user", "content": "a boat"}, {"role": "assistant", "content": "afloat"}]
    rows = [{"messages": turns}, {"messages": turns, "tools": [{"name": "lift"}]}] * 20
    (tmp_path / "calib.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 3))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert sorted(tokenizer.chat_template) == ["default", "tool_use"]
    _, text, _ = calibrated(recipe, site)
    with_tools, without = text.count("lift for a boat"), text.count("<|user|>\na boat<|end|>")
    assert with_tools + without >= text.count("a boat") - 1  # the last is cut
    assert min(with_tools, without) > 1


def test_the_date_of_chat_templates_is_part_of_the_key(tmp_path: Path, site: Site):
    plain = planned(recipe_file(tmp_path), site)
    dated = planned(recipe_file(tmp_path, **{"calibration.date": "2025-03-09"}), site)
    moved = {kind for kind, key in keys(plain).items() if keys(dated)[kind] != key}
    assert {"calibration_set", "baseline"} <= moved
    assert "source" not in moved
    by_kind = {step.kind: params_of(step) for step in dated.steps}
    assert by_kind["calibration_set"].data[0].date == by_kind["baseline"].data.date == "2025-03-09"
    text = recipe_file(tmp_path).read_text().replace("calibration:\n", "calibration:\n  date: 2026-01-01\n")
    assert "date: 2026-01-01" in text
    (tmp_path / "recipe.yaml").write_text(text)
    assert keys(planned(tmp_path / "recipe.yaml", site)) == keys(plain)


@pytest.mark.parametrize("date", ["2026-02-30", "yesterday", 20260101])
def test_a_date_that_is_no_day_is_refused(tmp_path: Path, site: Site, date: int | str):
    with pytest.raises(RecipeError, match=r"calibration\.date: .*(not a date|string)"):
        planned(recipe_file(tmp_path, **{"calibration.date": date}), site)


def test_half_a_surrogate_pair_in_a_recipe_is_told_with_its_place(tmp_path: Path, site: Site):
    file = recipe_file(tmp_path)
    text = file.read_text().replace("calibration:\n", 'calibration:\n  date: "\\ud83d"\n')
    file.write_text(text)
    line = text.splitlines().index('  date: "\\ud83d"') + 1
    with pytest.raises(RecipeError, match=rf"{line}:9: half a surrogate pair"):
        planned(file, site)
