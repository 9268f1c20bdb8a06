"""The option tables agree with one another, and every version is told which one serves it."""

import tomllib
from pathlib import Path

import pytest

from pipeline.engines.tensorrt.capabilities import SNAPSHOTS, TABLES, releases, snapshot, table
from pipeline.engines.tensorrt.descriptions import DESCRIPTIONS, ELSEWHERE
from pipeline.errors import BackendUnavailable
from tests.present import present

ROOT = Path(__file__).resolve().parents[4]


def test_every_table_is_listed_and_shipped():
    assert sorted(f"{name}.json" for name in SNAPSHOTS) == sorted(file.name for file in TABLES.iterdir())
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][
        "pipeline"
    ]
    assert {file for pattern in shipped for file in (ROOT / "pipeline").glob(pattern)} >= set(
        TABLES.iterdir()
    )


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_a_table_is_consistent_in_itself(name: str):
    found = snapshot(name)
    assert found.snapshot == name
    assert found.source
    assert bool(found.standing) == (
        name not in {"0.8.0", "0.9.0", "0.10.0", "0.16.0", "0.16.0.dev2024111900"}
    )
    for option in found.options.values():
        allowed = ("enable", "disable") if option.type == "switch" else option.choices
        assert option.default is None or not allowed or option.default in allowed, option
        assert (option.type == "word") == (bool(option.choices) and option.type != "int"), option
        assert option.type != "flag" or option.default is False, option
        assert option.name in DESCRIPTIONS or option.name in ELSEWHERE, option


@pytest.mark.slow
@pytest.mark.parametrize("name", {option for one in SNAPSHOTS for option in snapshot(one).options})
def test_since_and_removed_say_where_an_option_comes_and_goes(name: str):
    having = [one for one in SNAPSHOTS if name in snapshot(one).options]
    stretch = SNAPSHOTS[SNAPSHOTS.index(having[0]) : SNAPSHOTS.index(having[-1]) + 1]
    assert list(stretch) == having  # no option left and came back
    after = SNAPSHOTS[SNAPSHOTS.index(having[-1]) + 1 :]
    for one in having:
        option = snapshot(one).options[name]
        assert option.since == having[0]
        assert option.removed == (after[0] if after else None)


def test_every_release_has_one_table_in_order():
    found = releases()
    assert len(set(found)) == len(found)
    assert found == sorted(found, key=lambda one: [int(part) for part in one.split(".")])


def test_descriptions_are_one_line_each_and_of_options_that_are():
    options = {option for one in SNAPSHOTS for option in snapshot(one).options}
    assert DESCRIPTIONS.keys() | ELSEWHERE.keys() <= options
    assert not DESCRIPTIONS.keys() & ELSEWHERE.keys()
    assert all(text.endswith(".") and "\n" not in text for text in DESCRIPTIONS.values())


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("0.8.0", "0.8.0"),
        ("0.12.0", "0.12.0.dev2024080600"),
        ("0.14.0", "0.14.0.dev2024100800"),
        ("0.14.0.dev2024091000", "0.14.0.dev2024091000"),
        ("0.16.0", "0.16.0"),
        ("0.16.0.dev2024111900", "0.16.0.dev2024111900"),
        ("0.17.0.post1", "0.17.0.dev2024121700"),
        ("0.18.2", "0.17.0.dev2024121700"),
        ("1.0.0", "1.2"),
        ("1.2.1+cu130", "1.2"),
    ],
)
def test_a_version_is_served_by_its_table(version: str, name: str):
    found = table(version)
    assert (found.snapshot, found.version) == (name, version)
    assert found.number == tuple(int(part) for part in version.split(".")[:2])


def test_a_snapshot_that_stands_for_a_release_says_so():
    assert table("0.16.0").note is None
    assert table("0.17.0.dev2024121700").note is None
    note = table("0.17.0").note
    assert "TensorRT-LLM 0.17.0 are taken from snapshot 0.17.0.dev2024121700" in present(note)
    assert "exact release is not known" in present(table("1.2.1").note)


@pytest.mark.parametrize(
    "version", ["0.7.1", "0.19.0", "0.20.0", "0.21.0", "1.0.0rc4", "1.3.0rc15", "0.17.0.dev1"]
)
def test_a_version_without_a_table_is_refused_with_those_that_have_one(version: str):
    with pytest.raises(
        BackendUnavailable, match=rf"{version} are not known; have 0\.8, .*0\.18, 1\.0, 1\.1, 1\.2"
    ):
        table(version)


@pytest.mark.parametrize("version", ["1.3.0rc22", "1.3.0rc24", "1.3.0", "1.4.0rc1", "2.0.0"])
def test_versions_without_the_command_lead_to_the_other_backend(version: str):
    with pytest.raises(
        BackendUnavailable, match=rf"{version} builds no engines.*gone since 1\.3\.0rc22.*trtllm_torch"
    ):
        table(version)


def test_what_is_no_version_is_refused():
    with pytest.raises(BackendUnavailable, match="'' is no version of TensorRT-LLM"):
        table("")


def test_the_release_of_0_12_differs_from_its_snapshot_as_its_notes_say():
    options = table("0.12.0").options
    assert not {"tp_size", "pp_size", "cp_size"} & options.keys()
    assert "fast_build" in options
