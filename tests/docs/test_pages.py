"""What the documents say is so: commands, recipes, files, make targets, links; and the site builds."""

import os
import re
import subprocess  # noqa: TID251 the site is built as `make site` builds it
import sys
from pathlib import Path

import click
import pytest
import yaml

from pipeline.cli.main import enginery
from pipeline.rebuild.host_pools import load_pools
from recipes.load import load
from tests.callables import Ask
from tests.docs.pages import GENERATED, ROOT, SITE, documents, name_of, text_of
from tests.present import present

WRITTEN = [page for page in documents() if GENERATED not in page.parents]
README = ROOT / "README.md"
COMMANDS = enginery.list_commands(click.Context(enginery))

each_page = pytest.mark.parametrize("page", WRITTEN, ids=name_of)


def test_the_readme_fits():
    assert len(README.read_text().splitlines()) < 200
    assert README.read_text().index("\n$ ") < len("\n".join(README.read_text().splitlines()[:12]))


@each_page
def test_every_command_that_a_page_names_exists(page: Path):
    calls = re.findall(r"(?:`|^\$ )enginery ((?:--[\w-]+ )*[a-z][^`\n]*)", page.read_text(), re.MULTILINE)
    assert [call for call in calls if not exists(call)] == []


def exists(call: str) -> bool:
    """Whether the first words of a call, its options left out, are a command as `--help` lists it."""
    command: click.Command = enginery
    for word in re.sub(r"--(?:store|registry) \S+ |--\w+ ", "", call).split():
        if not isinstance(command, click.Group):
            return True
        ctx = click.Context(command)
        inner = command.get_command(ctx, word) if word in command.list_commands(ctx) else None
        if inner is None:
            return False
        command = inner
    return True


def test_a_command_that_does_not_exist_would_be_noticed():
    assert exists("plan recipe.yaml")
    assert exists("--json ls")
    assert exists("registry init")
    assert not exists("registry frobnicate")
    assert not exists("frobnicate x")


def test_every_command_is_in_a_page_that_is_written_by_hand():
    text = "\n".join(page.read_text() for page in WRITTEN)
    lacking = [name for name in COMMANDS if not re.search(rf"(`|\$ )(enginery )?{name}\b", text)]
    assert lacking == []


def test_the_recipe_in_the_readme_loads(tmp_path: Path):
    block = present(re.search(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL))[1]
    file = tmp_path / "recipe.yaml"
    file.write_text(block)
    (loaded,) = load(file)
    shipped = yaml.safe_load((ROOT / "recipes" / "demo" / "int4_awq_tp2.yaml").read_text())
    assert loaded.recipe.name == shipped["name"]
    assert yaml.safe_load(block)["gate"] == shipped["gate"]


@each_page
def test_every_yaml_block_is_yaml_and_parts_of_a_recipe_fit_into_one(page: Path, tmp_path: Path):
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
        part = yaml.safe_load(block)
        if {"toolchains", "version"} & part.keys():
            continue
        shipped = yaml.safe_load((ROOT / "recipes" / "demo" / "int4_awq_tp2.yaml").read_text())
        file = tmp_path / "recipe.yaml"
        file.write_text(yaml.safe_dump({**shipped, **part}))
        assert load(file)


@pytest.mark.slow
def test_the_toolchains_of_the_page_can_be_declared(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    text = (SITE / "engines.md").read_text()
    (block,) = [one for one in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "toolchains:" in one]
    file = tmp_path / "toolchains.yaml"
    file.write_text(block)
    monkeypatch.setenv("ENGINERY_TOOLCHAINS", str(file))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    code, out, _ = ask("-q", "toolchains")
    assert (code, out.split()) == (4, list(yaml.safe_load(block)["toolchains"]))  # read, and none is here


def test_the_pools_of_the_page_load(tmp_path: Path):
    (block,) = re.findall(r"```yaml\n(.*?pools:.*?)```", (SITE / "registry.md").read_text(), re.DOTALL)
    file = tmp_path / "pools.yaml"
    file.write_text(block)
    assert [pool.name for pool in load_pools(file)] == ["prod"]


@each_page
def test_files_that_a_page_names_exist(page: Path):
    folders = "recipes|artifacts|calibration|pipeline|tests|docs"
    named = re.findall(rf"`((?:{folders})/[\w/.-]*[\w/])`", text_of(page))
    assert [name for name in named if not any((at / name).exists() for at in (ROOT, ROOT / "tests"))] == []


@each_page
def test_tests_that_a_page_names_exist(page: Path):
    named = re.findall(r"`((?:\w+/)*test_\w+\.py)::(\w+)`", text_of(page))
    lacking = [
        (file, name) for file, name in named if f"def {name}(" not in (ROOT / "tests" / file).read_text()
    ]
    assert lacking == []


@each_page
def test_make_targets_that_a_page_names_exist(page: Path):
    makefile = (ROOT / "Makefile").read_text()
    text = page.read_text()
    targets = set(re.findall(r"`make ([\w-]+)`", text)) | set(
        re.findall(r"^\$ make ([\w-]+)", text, re.MULTILINE)
    )
    assert [
        target
        for target in targets
        if not re.search(rf"^(?:[\w-]+ )*{target}(?: [\w-]+)*:", makefile, re.MULTILINE)
    ] == []


def test_the_readme_names_set_up_and_tests():
    assert {"demo", "test"} <= set(re.findall(r"^\$ make (\w+)", README.read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", documents(), ids=name_of)
def test_no_page_has_a_path_of_one_machine(page: Path):
    assert not re.search(r"/(work|root|home|tmp)/", page.read_text())


@pytest.mark.parametrize("page", [page for page in WRITTEN if page.parent == ROOT], ids=name_of)
def test_links_of_the_files_at_the_root_lead_somewhere(page: Path):
    links = re.findall(r"\]\(([^)#]+)", text_of(page))
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with every warning an error."""
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_the_site_has_every_page_and_loads_nothing_from_elsewhere(site: Path):
    pages = {page.relative_to(SITE).with_suffix(".html").as_posix() for page in SITE.rglob("*.md")}
    built = {page.relative_to(site).as_posix() for page in site.rglob("*.html")}
    assert pages <= built
    for page in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"?([^\" >]+)", page.read_text())
        loaded += re.findall(
            r"<link[^>]* rel=\"?(?:stylesheet|preconnect|icon)\"?[^>]* href=\"?([^\" >]+)", page.read_text()
        )
        assert [link for link in loaded if "//" in link] == [], page


@pytest.mark.slow
def test_a_wrong_link_fails_the_build(tmp_path: Path):
    """The validation that the configuration asks for: anchors, absolute links, pages outside the navigation."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert config["strict"]
    assert set(config["validation"]["links"].values()) == {"warn"}
    assert set(config["validation"]["nav"].values()) == {"warn"}
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Title\n\n[nowhere](#nowhere)\n")
    config |= {"nav": [{"Title": "index.md"}]}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 1
    assert "#nowhere" in done.stderr
