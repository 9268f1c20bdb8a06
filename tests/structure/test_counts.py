"""Each count moves with a seeded violation, and is zero for a clean tree."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.structure import backends, comments, functions, imports, mappings, names
from tests.structure.__main__ import main
from tests.structure.figures import FIGURES
from tests.structure.tree import Checkout, read_checkout

CLEAN = {
    "pipeline/__init__.py": '"""Rooms."""\n',
    "pipeline/cli/main.py": '"""Top."""\n\nfrom pipeline.weights.read import load\n\n\ndef show(path: str) -> str:\n    return load(path)\n',
    "pipeline/weights/read.py": '"""Bottom."""\n\n\ndef load(path: str) -> str:\n    return path\n',
}
CONTRACT = ("cli", "weights")


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Checkout]:
    """Writes files beside those of a clean tree and reads them all."""

    def write(files: dict[str, str] | None = None) -> Checkout:
        for path, text in (CLEAN | (files or {})).items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return read_checkout(tmp_path)

    return write


def body(*lines: str) -> dict[str, str]:
    """A module whose one function has these lines."""
    return {
        "pipeline/cli/seed.py": "\n".join(
            ["def seed(data: str) -> None:", *(f"    {line}" for line in lines), ""]
        )
    }


def texts(hits) -> list[str]:
    return [hit.text for hit in hits]


def test_a_clean_tree_counts_zero(tree: Callable[..., Checkout]):
    clean = tree()
    assert backends.backend_comparisons(clean) == []
    assert mappings.untyped_annotations(clean) == mappings.params_subscripts(clean) == []
    assert names.vague_names(clean) == comments.comments(clean) == []
    assert functions.long_files(clean) == []
    assert imports.loose_files(clean) == []
    assert imports.upward_imports(clean, CONTRACT) == []
    assert imports.circles(imports.module_graph(clean)) == imports.circles(imports.room_graph(clean)) == []
    assert imports.shared_names(clean) == {}
    assert imports.rooms(clean) == ["cli", "weights"]
    assert functions.annotated_share(clean) == 1.0


def test_a_folder_without_the_product_is_no_checkout(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}: none of the packages artifacts, calibration"):
        read_checkout(tmp_path)


def test_lines_of_tests_and_readme_count_apart(tree: Callable[..., Checkout], tmp_path: Path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text("a = 1\nb = 2\n")
    (tmp_path / "README.md").write_text("# a\n\nb\n")
    checkout = tree()
    assert (checkout.test_lines, checkout.readme_lines, checkout.lines) == (2, 3, 1 + 7 + 5)


def test_code_lines_are_neither_blank_nor_comments_nor_docstrings(tree: Callable[..., Checkout]):
    before = tree().code_lines
    assert (
        tree(body('"""Says', 'two lines."""', "", "# why", "x = 1  # how", 'y = """a', 'b"""')).code_lines
        == before + 4
    )


@pytest.mark.parametrize(
    "line",
    [
        "if data == 'aoti': ...",
        "if 'tensorrt' != data: ...",
        "if data in ('aoti', 'vllm'): ...",
        "if data not in {'tensorrt', 'trtllm_torch'}: ...",
        "if data in ['trtllm_torch', 'other']: ...",
        "if data is 'vllm': ...",
        "x = {'aoti': 1, 'tensorrt': 2}[data]",
        "x = {'tensorrt': 2}.get(data)",
        "x = ('aoti', 'tensorrt')",
        "x = data.startswith('trtllm_torch')",
        "x: Literal['vllm'] = 'vllm'",
        "if data == BUILT: ...",
        "if data in engines.BUILT: ...",
    ],
)  # fmt: skip
def test_deciding_by_a_backends_name_counts(tree: Callable[..., Checkout], line: str):
    constant = {"artifacts/engines.py": "BUILT = frozenset({'tensorrt'})\n"}
    constants = backends.backend_comparisons(tree(constant))
    hits = backends.backend_comparisons(tree(constant | body(line)))
    assert len(hits) == len(constants) + 1
    assert (hits[-1].path, hits[-1].line) == ("pipeline/cli/seed.py", 2)


def test_a_case_of_match_is_a_comparison(tree: Callable[..., Checkout]):
    seeded = tree(
        body("match data:", "    case 'aoti' | 'vllm':", "        pass", "    case 'other':", "        pass")
    )
    assert texts(backends.backend_comparisons(seeded)) == ["'aoti'", "'vllm'"]


@pytest.mark.parametrize(
    "line",
    [
        "if data == 'other': ...",
        "x = ('tensorrt_llm', 'tensorrt', 'torch')",
        "x = {'tensorrt': '10.11', 'torch': '2.8'}",
        "if data in ('tensorrt_llm', 'tensorrt'): ...",
        "seed('tensorrt')",
        "x = ['--backend', 'tensorrt']",
    ],
)  # fmt: skip
def test_packages_and_arguments_are_no_comparisons(tree: Callable[..., Checkout], line: str):
    assert backends.backend_comparisons(tree(body(line))) == []


def test_engines_may_compare_and_the_schema_may_declare(tree: Callable[..., Checkout]):
    files = {
        "pipeline/engines/aoti.py": "def ours(name: str) -> bool:\n    return name == 'aoti'\n",
        "recipes/schema.py": "class Engine:\n    backend: Literal['aoti', 'tensorrt'] = 'aoti'\n",
    }
    assert backends.backend_comparisons(tree(files)) == []
    assert len(backends.backend_comparisons(tree({"recipes/other.py": files["recipes/schema.py"]}))) == 1


def test_mentions_count_every_string(tree: Callable[..., Checkout]):
    assert len(backends.backend_mentions(tree(body("x = ['--backend', 'tensorrt', 'aoti']")))) == 2


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("x: dict[str, Any] = {}", 1),
        ("x: Mapping[str, Any]", 1),
        ("x: Mapping[str, object]", 1),
        ("x: 'dict[str, Any]' = {}", 1),
        ("x: typing.Mapping[str, typing.Any] | None", 1),
        ("x: list[dict[str, Any]]", 1),
        ("x: dict[str, dict[str, Any]]", 1),
        ("x: tuple[Any, ...]", 1),
        ("x: dict[str, Any | None]", 1),
        ("x: dict", 1),
        ("x = cast(dict[str, Any], data)", 1),
        ("x: Row", 1),
        ("x: dict[str, str]", 0),
        ("x: list[object]", 0),
        ("x: Any", 0),
        ("x: Callable[..., Any]", 0),
        ("x = dict(a=1)", 0),
    ],
)
def test_containers_of_any_count(tree: Callable[..., Checkout], line: str, count: int):
    alias = {"pipeline/weights/rows.py": "Row = dict[str, Any]\n"}
    seed = body(line)
    seed["pipeline/cli/seed.py"] = f"from pipeline.weights.rows import Row\n\n{seed['pipeline/cli/seed.py']}"
    assert len(mappings.untyped_annotations(tree(alias | seed))) == 1 + count


def test_an_alias_is_known_by_its_module(tree: Callable[..., Checkout]):
    files = {
        "pipeline/weights/rows.py": "Row = dict[str, Any]\n",
        "pipeline/cli/seed.py": "class Row: ...\nx: Row\n",
    }
    assert len(mappings.untyped_annotations(tree(files))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "x = params['a']",
        "x = step.params['a']",
        "x = job['params']['a']",
        "x = params.get('a', 1)",
        "x = 'a' in params",
    ],
)
def test_reading_params_by_key_counts(tree: Callable[..., Checkout], line: str):
    assert len(mappings.params_subscripts(tree(body(line, "y = options['a']", "z = params[0]")))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "found = 1",
        "for one in data: ...",
        "with open(data) as held: ...",
        "x = [made for made in data]",
        "x = lambda told: 1",
        "if (asked := data): ...",
        "found = 1; found = 2",
        "_found: int = 1",
        "left = 1",
        "def inner(wanted): ...",
    ],
)  # fmt: skip
def test_a_vague_name_counts_once_per_function(tree: Callable[..., Checkout], line: str):
    assert len(names.vague_names(tree(body(line)))) == 1


def test_except_and_match_bind_names(tree: Callable[..., Checkout]):
    lines = [
        "try:",
        "    pass",
        "except OSError as said:",
        "    pass",
        "match data:",
        "    case [one, *taken]:",
        "        pass",
    ]
    assert texts(names.vague_names(tree(body(*lines)))) == ["said", "one", "taken"]


@pytest.mark.parametrize(
    "line", ["problems = 1", "left, right = data", "self.found = 1", "seen = set()", "foundry = 1"]
)
def test_names_that_say_the_thing_do_not_count(tree: Callable[..., Checkout], line: str):
    assert names.vague_names(tree(body(line))) == []


def test_the_share_is_of_all_local_names_parameters_included(tree: Callable[..., Checkout]):
    assert names.vague_share(tree()) == 0.0
    assert names.vague_share(tree(body("found = one = 1"))) == 2 / 5  # path, path and data are the others
    assert names.vague_share(Checkout(())) == 0.0


def test_comments_are_for_people(tree: Callable[..., Checkout]):
    lines = [
        "x = 1  # why",
        "# a line",
        "y = '# text'",
        "z = f'{x}#'  # noqa: E501",
        'w = """',
        "# text",
        '"""',
        "v = 1  # type: ignore",
    ]
    assert texts(comments.comments(tree(body(*lines)))) == ["# why", "# a line"]


def test_sizes_of_functions(tree: Callable[..., Checkout]):
    sizes = functions.function_lines(tree(body(*["x = 1"] * 40)))
    assert (sizes, functions.quantile(sizes, 0.5), functions.quantile(sizes, 1.0)) == ([2, 2, 41], 2, 41)
    assert functions.quantile(list(range(1, 11)), 0.9) == 10
    assert functions.quantile([], 0.5) == 0


def test_a_file_of_more_than_300_lines_is_long(tree: Callable[..., Checkout]):
    assert functions.long_files(tree({"pipeline/cli/seed.py": "x = 1\n" * 300})) == []
    assert texts(functions.long_files(tree({"pipeline/cli/seed.py": "x = 1\n" * 301}))) == ["lines"]


def test_a_function_without_return_annotation_is_seen(tree: Callable[..., Checkout]):
    assert (
        functions.annotated_share(tree({"pipeline/cli/seed.py": "def a(): ...\ndef b() -> int: ...\n"}))
        == 3 / 4
    )
    kernel = {"pipeline/cli/seed.py": "@triton.jit\ndef a(): ...\n"}
    assert functions.annotated_share(tree(kernel)) == 1.0


def test_a_loose_file_is_a_room_of_its_own(tree: Callable[..., Checkout]):
    files = {
        "pipeline/loose.py": "",
        "pipeline/weights/deep/a.py": "",
        "pipeline/weights/deep/b.py": "",
        "pipeline/weights/__init__.py": "",
    }
    checkout = tree(files)
    assert imports.loose_files(checkout) == ["pipeline/loose.py"]
    assert imports.rooms(checkout) == ["cli", "loose", "weights", "weights.deep"]


@pytest.mark.parametrize(
    "text",
    [
        "from pipeline.cli.main import show\n",
        "import pipeline.cli.main\n",
        "from pipeline.cli import main\n",
        "def late() -> None:\n    from pipeline.cli import main\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pipeline.cli.main import show\n",
    ],
)
def test_an_import_upward_is_one_wherever_it_stands(tree: Callable[..., Checkout], text: str):
    files = {"pipeline/weights/seed.py": text, "pipeline/cli/__init__.py": ""}
    seeded = tree(files)
    (hit,) = imports.upward_imports(seeded, CONTRACT)
    assert (hit.path, hit.text) == ("pipeline/weights/seed.py", "weights imports pipeline.cli.main of cli")
    assert imports.circles(imports.room_graph(seeded)) == [["cli", "weights"]]
    assert imports.circles(imports.module_graph(seeded)) == []  # no module of the circle comes back to itself


def test_addresses_of_the_table_of_kinds_are_no_imports(tree: Callable[..., Checkout]):
    assert (
        imports.upward_imports(
            tree({"pipeline/weights/kinds.py": "MAKER = 'pipeline.cli.main:show'\n"}), CONTRACT
        )
        == []
    )


def test_an_inner_room_may_be_ordered_apart_from_the_outer_one(tree: Callable[..., Checkout]):
    files = {"pipeline/cli/commands/run.py": "import pipeline.cli.main\n"}
    assert imports.upward_imports(tree(files), CONTRACT) == []  # one room, as long as it is not named
    assert imports.upward_imports(tree(files), ("cli.commands", *CONTRACT)) == []
    assert len(imports.upward_imports(tree(files), ("cli", "cli.commands", "weights"))) == 1


def test_a_room_that_the_contract_lacks_is_named(tree: Callable[..., Checkout]):
    checkout = tree({"pipeline/loose.py": "", "pipeline/other/a.py": "", "pipeline/weights/deep/a.py": ""})
    assert imports.unplaced_modules(checkout, CONTRACT) == ["pipeline/loose.py", "pipeline/other/a.py"]
    assert imports.empty_rooms(checkout, (*CONTRACT, "ghost")) == ["ghost"]


def test_a_circle_of_modules_is_found_and_counts_as_one_floor(tree: Callable[..., Checkout]):
    files = {
        "pipeline/weights/a.py": "import pipeline.weights.b\n",
        "pipeline/weights/b.py": "import pipeline.weights.c\n",
        "pipeline/weights/c.py": "import pipeline.weights.a\nimport pipeline.weights.read\n",
    }
    graph = imports.module_graph(tree(files))
    assert imports.circles(graph) == [["pipeline.weights.a", "pipeline.weights.b", "pipeline.weights.c"]]
    assert imports.floors(graph) == 2


def test_floors_are_the_longest_chain(tree: Callable[..., Checkout]):
    assert imports.floors(imports.room_graph(tree())) == 2
    files = {"pipeline/top/a.py": "import pipeline.cli.main\nimport pipeline.weights.read\n"}
    assert imports.floors(imports.room_graph(tree(files))) == 3


def test_modules_of_one_name_are_too_many(tree: Callable[..., Checkout]):
    files = {
        "artifacts/main.py": "",
        "recipes/main.py": "",
        "recipes/__init__.py": "",
        "artifacts/__init__.py": "",
    }
    checkout = tree(files)
    assert imports.shared_names(checkout) == {
        "main.py": ["artifacts/main.py", "pipeline/cli/main.py", "recipes/main.py"]
    }
    assert imports.count_surplus_names(checkout) == 2


def test_an_order_puts_importers_first(tree: Callable[..., Checkout]):
    assert imports.order(imports.room_graph(tree())) == ["cli", "weights"]


def test_a_table_has_a_row_for_each_figure_and_says_why_one_is_missing(
    tree: Callable[..., Checkout], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    tree(body("found = 1"))
    assert main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| figure | now | goal |"
    assert len([line for line in lines if line.startswith("|")]) == 2 + len(FIGURES)
    assert "| vague local names | 25.0% | at most 2.0% |" in lines
    assert "| calls from `run` to the first touched tensor | - | at most 8 |" in lines
    notes = [line for line in lines if line and not line.startswith("|")]
    assert notes[0].startswith(
        "calls from `run` to the first touched tensor: a command 'run': one is needed, 0"
    )


def test_the_worst_files_are_listed_first(
    tree: Callable[..., Checkout], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    tree(body("found = one = 1"))
    main([str(tmp_path), "--of", "names", "--under", "pipeline/cli"])
    seed = "pipeline/cli/seed.py"
    assert capsys.readouterr().out.splitlines() == [
        f"{seed}:2: found",
        f"{seed}:2: one",
        f"    2 {seed}",
        "    2 in all",
    ]


def test_places_print_as_editors_link_them(tree: Callable[..., Checkout]):
    (hit,) = names.vague_names(tree(body("found = 1")))
    assert str(hit) == "pipeline/cli/seed.py:2: found"
    assert Path(hit.path).name == "seed.py"
