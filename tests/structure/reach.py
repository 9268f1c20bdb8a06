"""What the refusals of a recipe reach: modules that calls of `refusals` lead to, and climbs on the way."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from tests.structure.imports import Graph, module_graph
from tests.structure.road import RoadNotFound, call_graph
from tests.structure.symbols import Symbols
from tests.structure.tree import Checkout

START = "refusals"
"""The function that lists every reason against a recipe; the only one of its name outside classes."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Where the calls of one function lead."""

    modules: tuple[str, ...]
    climbs: tuple[tuple[str, str], ...]
    """(caller's module, called module) where the called one stands on a higher floor: a call through a protocol,
    a parameter, or an import in a function."""


@cache
def reach(checkout: Checkout, start: str = START) -> Reach:
    """The reach of the function called `start`; RoadNotFound where there is none, or several."""
    symbols = Symbols(checkout)
    names = [unit.name for unit in symbols.units.values() if unit.name == f"{unit.module.name}.{start}"]
    if len(names) != 1:
        raise RoadNotFound(f"{start}: one function of this name is needed, {len(names)} are there {names}")
    calls = call_graph(symbols, names)
    modules = {name: symbols.units[name].module.name for name in calls if name in symbols.units}
    arrows = {(modules[name], modules[target]) for name in modules for target in calls[name] & modules.keys()}
    height = dict(_heights(module_graph(checkout)))
    climbs = sorted(arrow for arrow in arrows if height[arrow[1]] > height[arrow[0]])
    return Reach(tuple(sorted(set(modules.values()))), tuple(climbs))


def _heights(graph: Graph) -> Iterator[tuple[str, int]]:
    """Floor of each module: 1 for what imports nothing, else one above the highest that it imports."""
    height: dict[str, int] = {}

    def climb(node: str) -> int:
        if node not in height:
            height[node] = 1  # while it is visited: what comes back in a circle adds nothing
            height[node] += max((climb(target) for target in sorted(graph[node])), default=0)
        return height[node]

    for node in sorted(graph):
        yield node, climb(node)
