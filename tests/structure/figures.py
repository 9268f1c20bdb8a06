"""The figures of issue 12: what is measured, how it is called, and its goal."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.structure import backends, comments, functions, imports, mappings, names, road
from tests.structure.contract import CONTRACT
from tests.structure.reach import reach
from tests.structure.tree import Checkout


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that a checkout has."""

    title: str
    measure: Callable[[Checkout], float | None]
    """None where the checkout has no such number."""
    goal: float | None = None
    is_floor: bool = False
    """Whether the goal is the least that is enough; otherwise it is the most that is allowed."""
    shape: str = ".0f"
    """How a value prints."""

    def show(self, value: float | None) -> str:
        """A value as the table has it."""
        return "-" if value is None else format(value, self.shape)

    def show_goal(self) -> str:
        """The goal as the table has it; empty where there is none."""
        if self.goal is None or self.goal in (0.0, 1.0):
            return "" if self.goal is None else self.show(self.goal)
        return f"{'at least' if self.is_floor else 'at most'} {self.show(self.goal)}"

    def reaches(self, value: float | None, goal: float) -> bool:
        """Whether a value is as good as a goal; no value is not."""
        return value is not None and (value >= goal if self.is_floor else value <= goal)


def _per(lines: float, count: int, unit: int) -> float:
    return unit * count / lines if lines else 0.0


def _roads(checkout: Checkout) -> list[int]:
    return [each.calls for each in road.roads(checkout)]


def _upward(checkout: Checkout) -> float | None:
    """Arrows upward, where every room of the contract is in the checkout."""
    if not CONTRACT or imports.empty_rooms(checkout, CONTRACT):
        return None
    return len(imports.upward_imports(checkout, CONTRACT))


FIGURES: Mapping[str, Figure] = {
    "modules": Figure("modules", lambda tree: len(tree.modules)),
    "product_lines": Figure("lines of the product", lambda tree: tree.lines, goal=59_324),
    "test_lines": Figure("lines of tests", lambda tree: tree.test_lines, goal=51_697),
    "readme_lines": Figure("lines of README", lambda tree: tree.readme_lines, goal=200),
    "rooms": Figure(
        "rooms of `pipeline` (folders, and loose files as rooms of their own)",
        lambda tree: len(imports.rooms(tree)),
    ),
    "loose_files": Figure("loose files in `pipeline`", lambda tree: len(imports.loose_files(tree))),
    "floors": Figure(
        "floors of `pipeline` (rooms on the longest chain of imports)",
        lambda tree: imports.floors(imports.room_graph(tree)),
    ),
    "upward": Figure("imports upward, against the contract of rooms", _upward, goal=0),
    "room_circles": Figure(
        "circles of rooms", lambda tree: len(imports.circles(imports.room_graph(tree))), goal=0
    ),
    "module_circles": Figure(
        "circles of modules", lambda tree: len(imports.circles(imports.module_graph(tree))), goal=0
    ),
    "shared_names": Figure("modules with the name of another", imports.count_surplus_names, goal=0),
    "road": Figure("calls from `run` to the first touched tensor", lambda tree: min(_roads(tree)), goal=8),
    "longest_road": Figure("the same, of the step with the longest road", lambda tree: max(_roads(tree))),
    "reach": Figure(
        "modules that `refusals` reaches by calls", lambda tree: len(reach(tree).modules), goal=20
    ),
    "climbs": Figure("calls upward on the way", lambda tree: len(reach(tree).climbs), goal=3),
    "backends": Figure(
        "comparisons with a backend's name outside `engines/`",
        lambda tree: len(backends.backend_comparisons(tree)),
        goal=0,
    ),
    "mappings": Figure(
        "untyped mappings per 1,000 lines",
        lambda tree: _per(tree.lines, len(mappings.untyped_annotations(tree)), 1000),
        goal=4,
        shape=".1f",
    ),
    "params": Figure(
        'reads of parameters by key (`params["..."]`)',
        lambda tree: len(mappings.params_subscripts(tree)),
        goal=0,
    ),
    "names": Figure("vague local names", names.vague_share, goal=0.02, shape=".1%"),
    "comments": Figure(
        "comments per 100 lines of code",
        lambda tree: _per(tree.code_lines, len(comments.comments(tree)), 100),
        goal=4,
        is_floor=True,
        shape=".1f",
    ),
    "function_median": Figure(
        "lines of a function, median",
        lambda tree: functions.quantile(functions.function_lines(tree), 0.5),
        goal=12,
    ),
    "function_p90": Figure(
        "lines of a function, nine of ten have at most",
        lambda tree: functions.quantile(functions.function_lines(tree), 0.9),
        goal=35,
    ),
    "function_max": Figure(
        "lines of the longest function",
        lambda tree: functions.quantile(functions.function_lines(tree), 1.0),
        goal=60,
    ),
    "long_files": Figure("files of more than 300 lines", lambda tree: len(functions.long_files(tree))),
    "annotated": Figure(
        "functions that state what they return",
        functions.annotated_share,
        goal=1.0,
        is_floor=True,
        shape=".2%",
    ),
}
"""Key -> figure, in the order of the table."""
