"""The command line has every option of its version, and the version takes it."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engines.tensorrt.capabilities import SNAPSHOTS, Option, snapshot
from pipeline.engines.tensorrt.command import BuildRun, command
from pipeline.engines.tensorrt.engine_settings import EngineSettings
from pipeline.engines.tensorrt.rules import resolve_settings
from pipeline.engines.tensorrt.tensorrt_options import AUTO, options_model
from pipeline.models.config_json import read_shape
from tests.pipeline.engines.tensorrt.asked import CONFIG, EXTERNAL, TRAFFIC, built, wanted
from tests.pipeline.engines.tensorrt.parser import parse

DRAFT = read_shape(CONFIG | {"num_hidden_layers": 4})
GOLDEN = Path(__file__).parent / "golden"
CHECKPOINT, OUT, CACHE = Path("/checkpoint"), Path("/out"), Path("/tuning/timing.cache")


def argv(found) -> list[str]:
    """The arguments for settings."""
    run = BuildRun(checkpoint=CHECKPOINT, out=OUT, timing_cache=CACHE, input_cache=CACHE, workers=2)
    return command(EngineSettings.parse(found), run)


@pytest.mark.slow
@pytest.mark.parametrize("name", SNAPSHOTS)
def test_the_arguments_of_an_fp8_llama_on_two_gpus(name: str):
    found = built(name, traffic=TRAFFIC, format="fp8", kv_cache="fp8", engine={"tp": 2})
    lines = " ".join(argv(found)).replace(" --", "\n--")
    assert lines + "\n" == (GOLDEN / f"{name}.txt").read_text()


def value(option: Option) -> st.SearchStrategy:
    """Any value that a recipe may give to an option."""
    kind: st.SearchStrategy[Any]
    if option.type == "flag":
        kind = st.booleans()
    elif option.type == "switch":
        kind = st.booleans() | st.sampled_from(["enable", "disable"])
    elif option.name == "tokens_per_block":
        kind = st.sampled_from([8, 16, 32, 64, 128])
    elif option.many:
        kind = st.lists(st.sampled_from(option.choices), unique=True)
    elif option.choices:
        kind = st.sampled_from(option.choices)
    else:
        kind = st.integers(1, 256)
    return kind | st.just("auto") if option.name in AUTO else kind


@st.composite
def requests(draw):
    """A version, and options that its model takes."""
    name = draw(st.sampled_from(SNAPSHOTS))
    model = options_model(snapshot(name))
    chosen = draw(st.sets(st.sampled_from(sorted(model.model_fields)), max_size=8))
    return name, {option: draw(value(snapshot(name).options[option])) for option in sorted(chosen)}


@pytest.mark.slow
@given(
    requests(),
    st.sampled_from(["none", "fp8", "int4_awq"]),
    st.sampled_from(["auto", "fp8", "int8"]),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_whatever_a_recipe_gives_the_version_takes_and_gets_as_it_is(request_, fmt, cache, drafted):
    name, options = request_
    table = snapshot(name)
    asked = wanted(
        name,
        format=fmt,
        kv_cache=cache,
        speculative=EXTERNAL if drafted else None,
        draft=DRAFT if drafted else None,
    )
    model = options_model(table).model_validate(options)
    found = resolve_settings(asked, model).as_param()
    taken = parse(table, argv(found))
    set_ = {key: one for key, one in found.items() if key not in ("table", "draft")}
    expected = {key: one for key, one in set_.items() if one is not None and one is not False and one != []}
    given_at_build = {"checkpoint_dir": "/checkpoint", "output_dir": "/out", "workers": 2}
    assert {
        key: one for key, one in taken.items() if not key.endswith("timing_cache")
    } == expected | given_at_build
    assert {one for key, one in taken.items() if key.endswith("timing_cache")} == {str(CACHE)}
    again = resolve_settings(asked, model).as_param()
    assert again == found
    if drafted:
        parse(table, argv(found["draft"]))


@given(requests(), st.sampled_from(["none", "fp8"]), st.sampled_from(["auto", "fp8", "int8"]), st.booleans())
@settings(max_examples=100, deadline=None)
def test_the_rules_leave_nothing_for_a_second_time(request_, fmt, cache, several):
    name, options = request_
    asked = wanted(name, format=fmt, kv_cache=cache, traffic=TRAFFIC, engine={"tp": 1 + several})
    model = options_model(snapshot(name))
    first = resolve_settings(asked, model.model_validate(options)).as_param()
    again = {key: one for key, one in first.items() if key in model.model_fields and one is not None}
    second = resolve_settings(asked, model.model_validate(again))
    assert second.as_param() == first
    derived = (
        "max_output_len",
        "opt_num_tokens",
    )  # not an option, and unset where there are several profiles
    assert [
        note
        for note in second.notes
        if not note.startswith(tuple(f"engine.options.{one}" for one in derived))
    ] == []


def test_the_timing_cache_is_one_file_under_the_versions_names():
    assert [word for word in argv(built("0.8.0")) if "timing" in word] == ["--timing_cache", str(CACHE)]
    words = argv(built("0.16.0"))
    assert (
        words[words.index("--input_timing_cache") + 1]
        == words[words.index("--output_timing_cache") + 1]
        == str(CACHE)
    )


def test_settings_that_do_not_fit_the_table_are_a_bug():
    found = built()
    with pytest.raises(KeyError, match=r"0\.16\.0: missing \['gemm_plugin'\], unknown \['gem_plugin'\]"):
        argv(
            {
                name.replace("gemm_plugin", "gem_plugin") if name == "gemm_plugin" else name: one
                for name, one in found.items()
            }
        )


def test_the_parser_of_these_tests_refuses_what_the_command_refuses():
    table = snapshot("0.16.0")
    for words in (["--builder_opt", "3"], ["--user_buffer"], ["--user_buffer", "on"], ["--max_batch_size", "x"],
                  ["--gemm_plugin", "nvfp4"], ["--strip_plan", "enable"], ["--max_seq", "3"]):  # fmt: skip
        with pytest.raises(ValueError, match=r"argument|unrecognized"):
            parse(table, words)
    assert parse(table, ["--max_decoder_seq_len", "8"]) == {"max_seq_len": 8}
