"""Imports point one way, and heavy packages stay where they belong."""

import ast
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import engines
from tests.structure import imports
from tests.structure.contract import CONTRACT
from tests.structure.tree import read_checkout

ROOT = Path(__file__).resolve().parent.parent
LAYERS = {
    "recipes": {"recipes"},
    "artifacts": {"artifacts"},
    "calibration": {"calibration", "recipes"},
    "pipeline": {"pipeline", "calibration", "recipes", "artifacts"},
}
SHARED = {"recipes.regular", "recipes.yaml_text"}
"""How files and YAML of strangers are read, in one place; leaves may read them so too."""


VALUES = {"address", "errors", "actor", "byte_progress", "digest", "manifest", "version"}
OF_ARTIFACTS = {
    "store": VALUES,
    "finding": VALUES,
    "trust": {*VALUES, "store"},
    "registry": {*VALUES, "store", "finding", "trust"},
    "notify": {*VALUES, "registry"},
    "collection": {*VALUES, "store", "registry"},
    "pull": {*VALUES, "store", "registry", "trust"},
}
"""What each part of `artifacts` may know of the others; the client, above them all, may know them all."""


def imported_roots(path: Path) -> set[str]:
    """First parts of every module that a file imports, wherever the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not imported_modules(node) <= SHARED:
            found.add(node.module.partition(".")[0])
    return found


def imported_modules(node: ast.ImportFrom) -> set[str]:
    """The modules that `from MODULE import NAMES` may mean, as the shared ones are imported."""
    within = {f"{node.module}.{alias.name}" for alias in node.names}
    return within if within <= SHARED else {str(node.module)}


@pytest.mark.slow
@pytest.mark.parametrize("package", LAYERS)
def test_imports_point_one_way(package: str):
    for path in (ROOT / package).rglob("*.py"):
        assert imported_roots(path) & LAYERS.keys() <= LAYERS[package], path


@pytest.mark.parametrize("part", OF_ARTIFACTS)
def test_parts_of_artifacts_point_one_way(part: str):
    for path in (ROOT / "artifacts" / part).rglob("*.py"):
        known = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "artifacts":
                known |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("artifacts."):
                known.add(str(node.module).split(".")[1])
        assert known <= {part, *OF_ARTIFACTS[part]}, path


def test_rooms_of_pipeline_point_one_way():
    checkout = read_checkout(ROOT)
    assert imports.unplaced_modules(checkout, CONTRACT) == []
    assert imports.empty_rooms(checkout, CONTRACT) == []
    assert list(map(str, imports.upward_imports(checkout, CONTRACT))) == []


def test_every_module_of_pipeline_stands_in_a_room():
    names = {
        p.stem for p in (ROOT / "pipeline").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()
    }
    assert names == {*CONTRACT, "__init__"}


def backends_imported(path: Path) -> set[str]:
    """Backends whose modules a file imports, wherever the import stands."""
    backends = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.ImportFrom(module="pipeline.engines", names=names):
                backends |= {alias.name for alias in names} & {*engines.names()}
            case ast.ImportFrom(module=str(module)) if module.startswith("pipeline.engines."):
                backends.add(module.split(".")[2])
            case ast.Import(names=names):
                dotted = [alias.name.split(".") for alias in names]
                backends |= {
                    parts[2] for parts in dotted if parts[:2] == ["pipeline", "engines"] and parts[2:]
                }
    return backends


@pytest.mark.parametrize("backend", engines.names())
def test_no_backend_imports_another(backend):
    for path in (ROOT / "pipeline" / "engines" / backend).rglob("*.py"):
        assert backends_imported(path) <= {backend}, path


def test_no_other_room_imports_a_backend():
    for package in LAYERS:
        for path in (ROOT / package).rglob("*.py"):
            if not path.is_relative_to(ROOT / "pipeline" / "engines"):
                assert backends_imported(path) == set(), path


@pytest.mark.parametrize(
    "line",
    [
        "from pipeline.engines.aoti import BACKEND",
        "from pipeline.engines import aoti",
        "import pipeline.engines.aoti.arch",
        "def late():\n    from pipeline.engines.aoti.arch import Arch",
    ],
)
def test_an_import_of_a_backend_is_seen_however_it_is_written(tmp_path: Path, line: str):
    (tmp_path / "module.py").write_text(line)
    assert backends_imported(tmp_path / "module.py") == {"aoti"}


@pytest.mark.slow
def test_only_the_door_starts_programs():
    starters = {
        p for name in LAYERS for p in (ROOT / name).rglob("*.py") if "subprocess" in imported_roots(p)
    }
    assert starters == {ROOT / "pipeline" / "process" / "process.py"}


@pytest.mark.slow
def test_only_one_room_imports_prefect():
    users = {
        p.parent for name in LAYERS for p in (ROOT / name).rglob("*.py") if "prefect" in imported_roots(p)
    }
    assert users == {ROOT / "pipeline" / "flows"}


@pytest.mark.parametrize(
    "module",
    [
        "pipeline.cli.main",
        "pipeline.plan.planning",
        "pipeline.run.release",
        "pipeline.cli.commands.run",
        "artifacts.client",
    ],
)
def test_the_orchestrating_process_imports_neither_torch_nor_prefect(
    module: str, run_python: Callable[[str], str]
):
    code = f"import sys, {module}; print(sorted({{'torch', 'prefect', 'transformers', 'datasets'}} & sys.modules.keys()))"
    assert run_python(code).strip() == "[]"


def test_this_suite_checks_real_files():
    assert "click" in imported_roots(ROOT / "pipeline" / "cli" / "main.py")
    assert sys.version_info >= (3, 11)
