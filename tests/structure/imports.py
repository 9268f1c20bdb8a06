"""Modules and rooms of `pipeline` as a graph of imports: rooms, floors, arrows upward, circles."""

import ast
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from tests.structure.hits import Hit
from tests.structure.tree import Checkout, Module

PACKAGE = "pipeline"

Graph = Mapping[str, frozenset[str]]
"""Node -> the nodes that it imports; every node is a key."""


def rooms(checkout: Checkout) -> list[str]:
    """Folders of `pipeline` that hold a module, nested ones too, and each loose file as a room of its own."""
    return sorted({_folder(module) for module in _within(checkout)} - {""})


def loose_files(checkout: Checkout) -> list[str]:
    """Modules that stand in `pipeline` itself."""
    return [
        module.path for module in _within(checkout) if module.path.count("/") == 1 and not module.is_package
    ]


def room_graph(checkout: Checkout) -> Graph:
    """Which room imports which, by folders."""
    return _group_graph(module_graph(checkout, PACKAGE), _folders(checkout))


def module_graph(checkout: Checkout, package: str = "") -> Graph:
    """Which module imports which, in the whole product or in one package; wherever the import stands."""
    names = {
        module.name for module in checkout.modules if f"{module.name}.".startswith(package and f"{package}.")
    }
    return {
        module.name: frozenset(target for _, target in imports_of(module, names)) - {module.name}
        for module in checkout.modules
        if module.name in names
    }


def imports_of(module: Module, names: Iterable[str]) -> list[tuple[int, str]]:
    """(line, imported module) for every import of one of `names`: in functions and TYPE_CHECKING blocks too.

    `from package import name` imports the module `package.name` where there is one, else the package.
    """
    modules = frozenset(names)
    targets = (
        (node.lineno, target)
        for node in module.nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for target in _targets(node, modules)
    )
    return sorted((line, target) for line, target in targets if target in modules)


def circles(graph: Graph) -> list[list[str]]:
    """Groups of nodes that reach one another, largest first; none in a graph that can be put in an order."""
    return sorted(
        (group for group in _components(graph) if len(group) > 1), key=lambda group: (-len(group), group)
    )


def order(graph: Graph) -> list[str]:
    """The nodes in an order in which each stands before all that it imports, circles side by side: a contract."""
    return [node for group in reversed(_components(graph)) for node in group]


def floors(graph: Graph) -> int:
    """Nodes on the longest chain of imports; a circle counts as one floor."""
    groups = _components(graph)  # what a group imports stands before it
    number = {node: index for index, group in enumerate(groups) for node in group}
    heights: list[int] = []
    for index, group in enumerate(groups):
        below = {number[target] for node in group for target in graph[node]} - {index}
        heights.append(1 + max((heights[group_below] for group_below in below), default=0))
    return max(heights, default=0)


def upward_imports(checkout: Checkout, contract: tuple[str, ...]) -> list[Hit]:
    """Imports that the contract forbids: of a room that stands before the importer's own."""
    rank = {room: index for index, room in enumerate(contract)}
    within = {module.name: _contract_room(module, contract) for module in _within(checkout)}
    return [
        Hit(module.path, line, f"{within[module.name]} imports {target} of {within[target]}")
        for module in _within(checkout)
        for line, target in imports_of(module, within)
        if within[module.name] in rank and within[target] in rank
        if rank[within[target]] < rank[within[module.name]]
    ]


def unplaced_modules(checkout: Checkout, contract: tuple[str, ...]) -> list[str]:
    """Modules of `pipeline` in no room of the contract."""
    return [
        module.path
        for module in _within(checkout)
        if module.name != PACKAGE and _contract_room(module, contract) not in contract
    ]


def empty_rooms(checkout: Checkout, contract: tuple[str, ...]) -> list[str]:
    """Rooms of the contract in which no module stands."""
    return sorted(set(contract) - {_contract_room(module, contract) for module in _within(checkout)})


def shared_names(checkout: Checkout) -> dict[str, list[str]]:
    """File names that several modules of the product have -> their paths; `__init__` and `__main__` are free."""
    paths = defaultdict(list)
    for module in checkout.modules:
        paths[module.path.rpartition("/")[2]].append(module.path)
    return {
        name: several
        for name, several in sorted(paths.items())
        if len(several) > 1 and not name.startswith("__")
    }


def count_surplus_names(checkout: Checkout) -> int:
    """Modules that would need another name, so that none is there twice."""
    return sum(len(paths) - 1 for paths in shared_names(checkout).values())


def _within(checkout: Checkout) -> list[Module]:
    return [module for module in checkout.modules if module.path.startswith(f"{PACKAGE}/")]


def _folders(checkout: Checkout) -> dict[str, str]:
    return {module.name: _folder(module) for module in _within(checkout)}


def _folder(module: Module) -> str:
    """The room of a module: its folder, dotted and without `pipeline`; a loose file's own name; "" for `pipeline`."""
    inner = module.name.removeprefix(PACKAGE).removeprefix(".")
    return inner if module.is_package or "." not in inner else inner.rpartition(".")[0]


def _contract_room(module: Module, contract: tuple[str, ...]) -> str:
    """The innermost room of the contract that a module stands in; its folder where none is."""
    folder = _folder(module)
    room = folder
    while room and room not in contract:
        room = room.rpartition(".")[0]
    return room or folder


def _targets(node: ast.Import | ast.ImportFrom, names: frozenset[str]) -> Iterator[str]:
    match node:
        case ast.Import(names=aliases):
            yield from (alias.name for alias in aliases)
        case ast.ImportFrom(module=str(source), level=0, names=aliases):
            inner = {f"{source}.{alias.name}" for alias in aliases}
            yield from inner & names
            if inner - names:
                yield source


def _group_graph(graph: Graph, group: Mapping[str, str]) -> Graph:
    """The graph of groups of nodes; nodes of the group "" drop out."""
    arrows: dict[str, set[str]] = {name: set() for name in group.values() if name}
    for node, targets in graph.items():
        if group[node]:
            arrows[group[node]] |= {group[target] for target in targets} - {group[node], ""}
    return {name: frozenset(targets) for name, targets in arrows.items()}


def _components(graph: Graph) -> list[list[str]]:
    """Strongly connected components after Tarjan, each sorted; one comes after all that it imports."""
    order: Counter[str] = Counter()
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(node: str) -> None:
        low[node] = order[node] = len(order) + 1
        stack.append(node)
        for target in sorted(graph[node]):
            if target not in order:
                visit(target)
            if target in stack:
                low[node] = min(low[node], low[target])
        if low[node] == order[node]:
            cut = stack.index(node)
            groups.append(sorted(stack[cut:]))
            del stack[cut:]

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return groups
