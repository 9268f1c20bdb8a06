"""Recipes from YAML: what is read, and how mistakes are told."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from recipes import json_schema
from recipes.errors import RecipeError
from recipes.formats import FORMATS, LATER
from recipes.load import combinations, load, variant
from recipes.schema import Recipe
from tests.odd import MANY_ALIASES

GOOD = """\
version: 1
name: demo/one
model: {path: ./model}
format: fp8
calibration:
  data:
    - {path: a.jsonl, samples: 3}
engine:
  tp: 2
gate:
  data: {path: b.jsonl}
  limits: {kl: 0.1}
"""


def write(tmp_path: Path, text: str) -> Path:
    """A recipe file with this text."""
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    return file


def problems(tmp_path: Path, text: str) -> list[str]:
    """What loading complains about."""
    with pytest.raises(RecipeError, match="problem") as caught:
        load(write(tmp_path, text))
    return list(caught.value.problems)


def test_a_good_recipe_loads(tmp_path: Path):
    (loaded,) = load(write(tmp_path, GOOD))
    assert loaded.recipe.engine.world_size == 2
    assert loaded.base == tmp_path


@pytest.mark.parametrize(
    ("wrong", "right", "place", "said"),
    [
        ("fromat: fp8", "format: fp8", "4:1", "did you mean 'format'?"),
        ("format: fp9", "format: fp8", "4:1", "unknown format 'fp9'; did you mean 'fp8'?"),
        ("format: nvfp4", "format: fp8", "4:1", "not built by this version"),
        ("  tp: 0", "  tp: 2", "9:3", "greater than 0"),
        ("  tpp: 2", "  tp: 2", "9:3", "did you mean 'tp'?"),
        ("  limits: {kl: -1}", "  limits: {kl: 0.1}", "12:12", "greater than 0"),
        ("  limits: {}", "  limits: {kl: 0.1}", "12:3", "a gate without limits passes everything"),
        ("name: ../up", "name: demo/one", "2:1", "beginning with a letter or a digit"),
        ("version: 2", "version: 1", "1:1", "allowed: 1"),
        ("    - {path: a.jsonl, samples: some}", "    - {path: a.jsonl, samples: 3}", "7:23", "'some'"),
    ],
)
def test_a_mistake_is_told_with_line_column_and_what_is_allowed(
    tmp_path: Path, wrong: str, right: str, place: str, said: str
):
    assert right in GOOD
    told = problems(tmp_path, GOOD.replace(right, wrong))
    assert any(line.startswith(f"{place}: ") and said in line for line in told), told


@pytest.mark.parametrize(
    ("mixed", "told"),
    [
        (
            "{default: fp9, except: {a: none}}",
            ["4:10: format.default: unknown format 'fp9'; did you mean 'fp8'?"],
        ),
        (
            '{default: fp8, except: {"m.[01].*": fp9, b: nvfp4}}',
            [
                "4:33: format.except.m.[01].*: unknown format 'fp9'",
                "4:50: format.except.b: 'nvfp4' is not built",
            ],
        ),
        ("{default: fp8, except: {}}", ["4:24: format.except: is empty"]),
        (
            "{default: fp8, except: [a]}",
            ["4:24: format.except: must be a mapping, found ['a']"],
        ),
        (
            "{default: fp8, except: {a: 3}}",
            ["4:33: format.except.a: input should be a valid string, found 3"],
        ),
        ("{default: fp8}", ["4:1: format.except: is required"]),
        (
            "{default: fp8, except: {a: none}, exept: {}}",
            ["4:43: format.exept: unknown key; did you mean 'except'? (allowed: default, except)"],
        ),
        (
            "[fp8, none]",
            ["4:1: format: must be a format's name, or {default: NAME, except: {PATTERN: NAME}}"],
        ),
        ("3", ["4:1: format: must be a format's name"]),
    ],
)
def test_a_mistake_in_a_mixed_format_is_told_once_with_its_place(tmp_path: Path, mixed: str, told: list[str]):
    found = problems(tmp_path, GOOD.replace("format: fp8", f"format: {mixed}"))
    assert len(found) == len(told), found
    assert all(line.startswith(start) for line, start in zip(found, told, strict=True)), found


def test_all_mistakes_are_told_at_once(tmp_path: Path):
    text = GOOD.replace("fp8", "fp9").replace("tp: 2", "tp: 0").replace("samples: 3", "sample: 3")
    assert len(problems(tmp_path, text)) == 3


@pytest.mark.parametrize("revision", ["main", "v1.0", "0e9e39f", "G" * 40])
def test_a_branch_is_refused_where_a_commit_is_needed(tmp_path: Path, revision: str):
    text = GOOD.replace("{path: ./model}", f"{{repo: org/model, revision: {revision}}}")
    assert "is not a full commit hash (40 hex digits)" in problems(tmp_path, text)[0]


def test_repo_without_revision_is_refused(tmp_path: Path):
    assert (
        "'repo' and 'revision' go together"
        in problems(tmp_path, GOOD.replace("path: ./model", "repo: a/b"))[0]
    )


def test_a_calibrated_format_needs_data(tmp_path: Path):
    data = yaml.safe_load(GOOD)
    del data["calibration"]
    assert "calibration is required: format 'fp8'" in problems(tmp_path, yaml.safe_dump(data))[0]


def test_a_repeated_key_is_refused(tmp_path: Path):
    assert problems(tmp_path, GOOD + "format: none\n") == ["13:1: key 'format' is duplicate; keep one"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "1:"),
        ("- 1\n", "a recipe is a mapping"),
        ("", "a recipe is a mapping"),
        ("a: !!python/object:x {}", "1:4"),
    ],
)
def test_what_is_no_recipe_is_refused_with_its_place(tmp_path: Path, text: str, said: str):
    assert said in problems(tmp_path, text)[0]


def test_a_missing_or_binary_file_is_refused(tmp_path: Path):
    with pytest.raises(RecipeError, match="no such file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="is not UTF-8 at byte 1"):
        load(tmp_path / "b.yaml")


def dated(date: str) -> str:
    """GOOD with this date of calibration, unquoted."""
    return GOOD.replace("calibration:\n", f"calibration:\n  date: {date}\n")


@pytest.mark.parametrize(
    "date", ["2021-02-29", "2026-13-01", "0000-01-01", "2026-01-31 10:61:00", "2026-01-31T10:00:00"]
)
def test_a_day_that_is_none_is_told_with_its_place(tmp_path: Path, date: str):
    assert problems(tmp_path, dated(date)) == [
        f"6:3: calibration.date: {date!r} is not a date; write it as 2026-01-31"
    ]


def test_a_day_needs_no_quotes_and_a_name_that_looks_like_one_is_text(tmp_path: Path):
    (loaded,) = load(write(tmp_path, dated("2026-01-31").replace("demo/one", "2021-02-29")))
    assert (loaded.recipe.date, loaded.recipe.name) == ("2026-01-31", "2021-02-29")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("9" * 5000, "int"), ("!!int 0x10", "int"), ("!!int ''", "int"), ("!!bool perhaps", "bool"),
        ("!!float many", "float"), ("!!float 1:30", "float"), ("!!int 1_000", "int"),
    ],
)  # fmt: skip
def test_a_scalar_that_yaml_cannot_read_is_told_with_its_place(tmp_path: Path, value: str, kind: str):
    (told,) = problems(tmp_path, GOOD.replace("tp: 2", f"tp: {value}"))
    assert told.startswith("9:7: ")
    assert told.endswith(f" is no {kind} that can be read; quote it if it is text")
    assert len(told) < 150


@pytest.mark.parametrize(
    "value",
    [
        "017",
        "0x10",
        "0x_",
        "0b_",
        "1_000",
        "1:30",
        "190:20:30",
        "true",
        "yes",
        "'2'",
        "2.0",
        ".inf",
        "2e0",
        "0x" + "f" * 5000,
    ],
)
def test_what_is_no_decimal_integer_is_no_number(tmp_path: Path, value: str):
    (told,) = problems(tmp_path, GOOD.replace("tp: 2", f"tp: {value}"))
    assert told.startswith("9:3: engine.tp: input should be a valid integer, found ")
    assert len(told) < 150


@pytest.mark.parametrize("value", ["yes", "'0.1'", "1:30", ".inf", ".nan", "0x1", "1_0.5"])
def test_what_is_no_decimal_fraction_is_no_number(tmp_path: Path, value: str):
    (told,) = problems(tmp_path, GOOD.replace("kl: 0.1", f"kl: {value}"))
    assert told.startswith("12:12: gate.limits.kl: input should be a valid number, found ")


@pytest.mark.parametrize(
    ("value", "number"), [("1e-3", 1e-3), ("1", 1.0), (".5", 0.5), ("1.e-1", 0.1), ("+2.5E-2", 0.025)]
)
def test_fractions_have_an_exponent_where_people_give_one(tmp_path: Path, value: str, number: float):
    (loaded,) = load(write(tmp_path, GOOD.replace("kl: 0.1", f"kl: {value}")))
    assert loaded.recipe.gate.limits.kl == number


@pytest.mark.parametrize("value", ["9" * 309, "-9007199254740993", "1e16", "1e-16", "1e309"])
def test_numbers_that_nobody_means_are_refused_by_their_place(tmp_path: Path, value: str):
    (told,) = problems(tmp_path, GOOD.replace("tp: 2", f"tp: {value}"))
    assert re.fullmatch(
        r"9:7: '.{3,63}' is no (int|float) that is accepted; .*; quote it if it is text", told
    )


def test_a_version_that_is_true_is_none(tmp_path: Path):
    assert problems(tmp_path, GOOD.replace("version: 1", "version: yes")) == [
        "1:1: version: True is not a number (allowed: 1)"
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            "[" * 3000 + "]" * 3000,
            r"13:\d+: lists or mappings nested too deep; at most 40 levels are read",
        ),
        ("&a [*a]", r"13:12: \*a contains itself; write it without the recursion"),
        ("&a {b: *a}", r"13:15: \*a contains itself; write it without the recursion"),
        (
            "[" + "1," * 20_000 + "1]",
            r"13:\d+: more than 20000 values, with aliases counted in full; .*",
        ),
        ("!!timestamp soon", "13:8: the type !!timestamp is not supported; write plain values"),
        ("!!set {a}", "13:8: the type !!set is not supported; write plain values"),
        ("!!binary aGk=", "13:8: the type !!binary is not supported; write plain values"),
    ],
)
def test_a_document_beyond_the_limits_is_refused_by_its_place(tmp_path: Path, value: str, said: str):
    (told,) = problems(tmp_path, f"{GOOD}title: {value}\n")
    assert re.fullmatch(said, told)


def test_aliases_count_as_what_they_stand_for(tmp_path: Path):
    assert len(MANY_ALIASES) < 800
    (told,) = problems(tmp_path, GOOD + MANY_ALIASES)
    assert re.fullmatch(r"18:\d+: more than 20000 values, with aliases counted .*", told)
    small = "model: {path: ./model}\ngate: &g {data: {path: b.jsonl}, limits: {kl: 0.1}}\n"
    (loaded,) = load(write(tmp_path, f"version: 1\nname: a\nformat: none\n{small}"))
    assert loaded.recipe.gate.limits.kl == 0.1


def test_merged_keys_are_read_where_they_are_few(tmp_path: Path):
    text = GOOD.replace("engine:\n  tp: 2", "engine: &e\n  tp: 2").replace(
        "limits: {kl: 0.1}", "limits: {<<: {kl: 0.1}}"
    )
    (loaded,) = load(write(tmp_path, text))
    assert loaded.recipe.gate.limits.kl == 0.1


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("[a]", "a key that is a list or a mapping is not text; quote it"), ("1", "key '1' is not text; quote it"),
        ("yes", "key 'yes' is not text; quote it"), ("~", "key '~' is not text; quote it"), ("'" + "x" * 999 + "'", "x{60}...: unknown key .*"),
    ],
)  # fmt: skip
def test_a_key_that_is_no_text_is_refused(tmp_path: Path, key: str, said: str):
    (told,) = problems(tmp_path, f"{GOOD}? {key}\n: 1\n")
    assert re.fullmatch(f"13:3: {said}", told)


@pytest.mark.parametrize(
    "key", ["foo[1]", "int", "str", "constrained-int", "MixedFormat", "[key]", "literal['all']", "a.b"]
)
@pytest.mark.parametrize("where", ["", "engine.", "gate.data."])
def test_a_key_with_any_name_is_told_by_its_name(tmp_path: Path, key: str, where: str):
    lines = {
        "": (GOOD, "13:1"),
        "engine.": (GOOD.replace("  tp: 2", "  tp: 2\n"), "10:3"),
        "gate.data.": (GOOD, "11:25"),
    }
    text, at = lines[where]
    added = {
        "": f'{text}"{key}": 1\n',
        "engine.": text.replace("\n\n", f'\n  "{key}": 1\n'),
        "gate.data.": text.replace("b.jsonl", f'b.jsonl, "{key}": 1'),
    }[where]
    (told,) = problems(tmp_path, added)
    assert told.startswith(f"{at}: {where}{key}: unknown key"), told


def test_of_ten_thousand_problems_the_first_are_told(tmp_path: Path):
    text = GOOD + "".join(f"key{number}: 1\n" for number in range(9_000))
    with pytest.raises(RecipeError, match="9000 problems") as caught:
        load(write(tmp_path, text))
    assert str(caught.value).count("\n") == 51
    assert str(caught.value).endswith("  and 8950 more")


def test_a_directory_is_said_to_be_one(tmp_path: Path):
    with pytest.raises(RecipeError, match="is a directory; give the file of a recipe in it"):
        load(tmp_path)


def test_a_matrix_makes_one_recipe_per_combination(tmp_path: Path):
    text = GOOD.replace("format: fp8\n", "matrix: {format: [fp8, int8_sq], engine.tp: [1, 2]}\n")
    found = load(write(tmp_path, text))
    assert [one.recipe.name for one in found] == [
        "demo/one/fp8_tp1", "demo/one/fp8_tp2", "demo/one/int8_sq_tp1", "demo/one/int8_sq_tp2",
    ]  # fmt: skip
    assert [one.recipe.engine.tp for one in found] == [1, 2, 1, 2]


def test_a_variant_with_exceptions_is_named_mixed(tmp_path: Path):
    mixed = '{default: fp8, except: {"model.layers.0.*": none}}'
    text = GOOD.replace("format: fp8\n", f"matrix: {{format: [fp8, {mixed}], engine.tp: [1]}}\n")
    plain, exceptions = (one.recipe for one in load(write(tmp_path, text)))
    assert [plain.name, exceptions.name] == ["demo/one/fp8_tp1", "demo/one/fp8_mixed_tp1"]
    assert exceptions.precision.of("model.layers.0.mlp.up_proj").name == "none"
    assert str(exceptions.precision) == "fp8 with exceptions"


def test_variants_with_one_name_are_refused(tmp_path: Path):
    mixes = "{default: fp8, except: {a: none}}, {default: fp8, except: {b: none}}"
    text = GOOD.replace("format: fp8\n", f"matrix: {{format: [{mixes}]}}\n")
    assert problems(tmp_path, text) == [
        "4:1: matrix: several recipes would be named 'demo/one/fp8_mixed'; give each a file of its own"
    ]


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        ("{" + ", ".join(f"engine.options.a{axis}: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]" for axis in range(9)) + "}", "1000000000 combinations; one file may define at most 256 recipes"),
        ("{engine: [{tp: 1}], engine.tp: [1, 2]}", "'engine.tp' sets a part of 'engine', which is not a mapping"),
        ("{format.default: [fp8]}", "'format.default' sets a part of 'format', which is not a mapping"),
        ("{.tp: [1]}", "'.tp' is not a key that can vary"), ("{name: [a, b]}", "'name' is not a key that can vary"),
        ("{matrix.format: [a]}", "'matrix.format' is not a key that can vary"),
    ],
)  # fmt: skip
def test_a_matrix_that_cannot_be_expanded_is_refused(tmp_path: Path, matrix: str, said: str):
    (told,) = problems(tmp_path, f"{GOOD}matrix: {matrix}\n")
    assert told.startswith(f"13:1: matrix: {said}")


def test_an_axis_whose_name_is_a_number_is_told_by_its_place(tmp_path: Path):
    assert problems(tmp_path, f"{GOOD}matrix: {{1: [a]}}\n") == ["13:10: key '1' is not text; quote it"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("''", "is empty; give a path"), ('"a\\0b"', "has a NUL character, which no path can have"), ("x" * 256, "has a name of 256 bytes; a name has at most 255"),
        ("a/" * 2500, "has 5000 bytes; a path has at most 4095"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("field", ["./model", "a.jsonl", "b.jsonl"])
def test_a_path_that_no_file_can_have_is_refused(tmp_path: Path, path: str, said: str, field: str):
    (told,) = problems(tmp_path, GOOD.replace(field, path))
    assert re.fullmatch(rf"\d+:\d+: [a-z0-9.]+\.path: {said}", told)


@pytest.mark.parametrize("matrix", ["[]", "{}", "{format: fp8}", "{format: []}"])
def test_a_matrix_that_is_none_is_refused(tmp_path: Path, matrix: str):
    assert "maps dotted keys to lists" in problems(tmp_path, GOOD + f"matrix: {matrix}\n")[0]


def test_an_unknown_key_in_a_matrix_is_refused(tmp_path: Path):
    assert "did you mean 'tp'?" in problems(tmp_path, GOOD + "matrix: {engine.tpp: [1]}\n")[0]


@given(
    st.dictionaries(
        st.sampled_from(["format", "engine.tp", "engine.pp"]),
        st.lists(st.integers(), min_size=1, max_size=3),
        min_size=1,
    )
)
def test_combinations_are_the_whole_product(matrix):
    points = list(combinations(matrix))
    size = 1
    for values in matrix.values():
        size *= len(values)
    assert len(points) == size
    assert all(point.keys() == matrix.keys() for point in points)


def test_a_variant_leaves_the_document_alone():
    document = {"name": "a", "engine": {"tp": 1}}
    assert variant(document, {"engine.tp": 2, "engine.pp": 4}) == {
        "name": "a/tp2_pp4",
        "engine": {"tp": 2, "pp": 4},
    }
    assert document == {"name": "a", "engine": {"tp": 1}}


def test_the_shipped_json_schema_is_the_generated_one():
    assert json_schema.FILE.read_text() == json_schema.text(), "run `make schema`"


def test_the_json_schema_accepts_what_loads_and_refuses_typos():
    schema = json.loads(json_schema.FILE.read_text())
    jsonschema.validate(yaml.safe_load(GOOD), schema)
    with pytest.raises(jsonschema.ValidationError, match="fromat"):
        jsonschema.validate(yaml.safe_load(GOOD.replace("format", "fromat")), schema)


@pytest.mark.parametrize(
    ("mixed", "valid"),
    [("{default: fp8, except: {a: none}}", True), ("{default: fp8}", False), ("[fp8]", False)],
)
def test_the_json_schema_knows_mixed_formats(mixed: str, valid: bool):
    checker = jsonschema.Draft202012Validator(json.loads(json_schema.FILE.read_text()))
    assert checker.is_valid(yaml.safe_load(GOOD.replace("format: fp8", f"format: {mixed}"))) == valid


def undocumented(schema: dict[str, Any]) -> list[str]:
    """Fields of the schema without a description."""
    tables = [schema, *schema["$defs"].values()]
    return [
        name for table in tables for name, field in table["properties"].items() if "description" not in field
    ]


def test_every_field_is_documented():
    assert undocumented(Recipe.model_json_schema()) == []


def test_formats_are_rows_that_agree_with_themselves():
    for name, row in FORMATS.items():
        assert row.name == name
        assert (row.block_size > 0) == (row.granularity == "block")
        assert row.calibrated == (row.input_scale == "static" or row.smoothed)
    assert not FORMATS.keys() & set(LATER)


TUNED = "tune:\n  space: {space}\n"


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ("{max_batch_size: [1, true]}", "max_batch_size: True is not an integer from 1"),
        ("{max_batch_size: ['1']}", "max_batch_size: '1' is not an integer from 1"),
        ("{max_seq_len: [1, [2]]}", "max_seq_len: [2] is not an integer from 1"),
        ("{max_seq_len: [.inf]}", "max_seq_len: '.inf' is not an integer from 1"),
        ("{max_seq_len: [0]}", "max_seq_len: 0 is not an integer from 1"),
        ("{max_batch_size: [1, 1]}", "max_batch_size: 1 is repeated; keep one"),
        ("{options.x: [a, a]}", 'options.x: "a" is repeated; keep one'),
        ("{nope: [1]}", "is not a setting that can vary (allowed: max_batch_size, max_seq_len, options."),
        ("{max_batch_sise: [1]}", "is not a setting that can vary; did you mean 'max_batch_size'?"),
        ("{options.: [1]}", "is not a setting that can vary"),
        ("{max_batch_size: 1}", "must be a list, found 1"),
        ("[1]", "must be a mapping, found [1]"),
    ],
)
def test_a_search_that_cannot_be_is_refused_with_its_place(tmp_path: Path, space: str, said: str):
    (told,) = problems(tmp_path, GOOD + TUNED.replace("{space}", space))
    assert re.match(r"\d+:\d+: tune\.space", told)
    assert said in told


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "version: 1",
            "version: '1'",
            "1:1: version: '1' is text; a number is required, write it without quotes: 1",
        ),
        (
            "name: demo/one",
            "name: demo//one",
            "2:1: name: 'demo//one' is not allowed; write parts of letters, digits",
        ),
    ],
)
def test_words_say_what_to_write(tmp_path: Path, old: str, new: str, said: str):
    text = GOOD.replace(old, new)
    assert text != GOOD
    assert problems(tmp_path, text)[0].startswith(said)
