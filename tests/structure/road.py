"""The road from the command `run` to the first touched tensor: calls on the shortest path of the call graph."""

import ast
import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from tests.structure.symbols import PROPERTIES, Meaning, Symbols
from tests.structure.tree import Checkout
from tests.structure.units import Unit

START = "run"
"""The command of the command line where the road starts: a function that click decorates."""

DOOR = (("process.run",), ("child.main", "child.door.main"))
"""The process boundary, one call: `process.run` starts `python -m` with the module of `child.main`.

Both are given by the ends that their dotted names had or have, so that they may move. The syntax tree cannot see this call.
"""

ADDRESS = re.compile(r"[a-z_]\w*(\.\w+)+:\w+")
"""`module:function`, as the table of kinds names what makes a step; `child.main` calls every one.

The second kind of call that the syntax tree cannot see. Addresses of functions that do not exist, such as
those that manifests of 0.1 name, are none.
"""

TENSOR_PACKAGES = frozenset({"torch", "safetensors", "mmap"})
"""Packages whose calls touch tensors; the product's own reader of safetensors files maps them into memory."""

TOUCHES_NONE = re.compile(
    r"torch\.(_inductor\.runtime|cuda|backends|version|compiler|random|distributed|dtype|device|Size)\b.*"
    r"|torch\.(set_|get_|is_|use_|manual_seed|no_grad|inference_mode|finfo|iinfo).*"
)
"""What is called in torch without a tensor: settings, questions about the machine, contexts."""

Path = Sequence[str]
"""Names of the functions on a road; the last one is the call that touches a tensor, as `torch.empty`."""


class RoadNotFound(LookupError):
    """An end of the road is not in the checkout, or no call leads there."""


@dataclass(frozen=True, slots=True)
class Road:
    """The road through one maker of the table of kinds."""

    maker: str
    path: Path

    @property
    def calls(self) -> int:
        return len(self.path) - 1


@cache
def roads(checkout: Checkout) -> list[Road]:
    """The shortest road through each maker that touches a tensor, shortest first; RoadNotFound if none does.

    Each starts at the command `run`, passes the process door and ends with the call that touches a tensor.
    """
    symbols = Symbols(checkout)
    start, door, child = command(symbols, START), ending(symbols, DOOR[0]), ending(symbols, DOOR[1])
    makers = addressed(symbols)
    calls = call_graph(symbols, [start, child, *makers])
    head = shortest_path(calls, start, lambda name: name == door)
    if head is None:
        raise RoadNotFound(f"no calls lead from {start} to {door}; see DOOR in tests/structure/road.py")
    tails = {maker: shortest_path(calls, maker, touches_tensor) for maker in makers}
    if not any(tails.values()):
        raise RoadNotFound("no address `module:function` names a function that touches a tensor")
    every = [Road(maker, (*head, child, *tail)) for maker, tail in tails.items() if tail is not None]
    return sorted(every, key=lambda road: (road.calls, road.maker))


def command(symbols: Symbols, name: str) -> str:
    """The function of that name which click makes a command."""
    units = (unit for unit in symbols.units.values() if unit.name.endswith(f".{name}"))
    return _only([unit.name for unit in units if "command" in unit.decorators], f"a command {name!r}")


def ending(symbols: Symbols, suffixes: Sequence[str]) -> str:
    """The function whose dotted name ends in one of these ways."""
    ends = tuple(f".{suffix}" for suffix in suffixes)
    return _only([name for name in symbols.units if f".{name}".endswith(ends)], suffixes[0])


def addressed(symbols: Symbols) -> list[str]:
    """Functions that strings `module:function` name."""
    strings = {
        node.value
        for module in symbols.checkout.modules
        for node in module.nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and ADDRESS.fullmatch(node.value)
    }
    return sorted({text.replace(":", ".") for text in strings} & symbols.units.keys())


def shortest_path(
    calls: Mapping[str, Iterable[str]], start: str, is_end: Callable[[str], bool]
) -> Path | None:
    """The names on a shortest path from `start` to one that `is_end` accepts, both included."""
    came_from: dict[str, str] = {}
    waiting = deque([start])
    while waiting:
        name = waiting.popleft()
        if is_end(name):
            path = [name]
            while path[-1] != start:
                path.append(came_from[path[-1]])
            return tuple(reversed(path))
        for target in sorted(calls.get(name, ())):
            if target != start and target not in came_from:
                came_from[target] = name
                waiting.append(target)
    return None


def touches_tensor(name: str) -> bool:
    """Whether a called name is a function of torch or safetensors that makes, reads or writes a tensor."""
    return name.split(".")[0] in TENSOR_PACKAGES and not TOUCHES_NONE.fullmatch(name)


def call_graph(symbols: Symbols, starts: list[str]) -> Mapping[str, set[str]]:
    """Which function calls which, of all that can be reached from `starts`, as far as the syntax says.

    What it does not say is no call: a missing call makes a road longer, never shorter. Seen are functions,
    classes (their `__init__` and `__post_init__`), methods of values whose class annotations or constructors
    say, methods of a protocol in each class that has them all, properties, and functions that are passed as
    arguments and called through the parameter.
    """
    calls: dict[str, set[str]] = defaultdict(set)
    passed: dict[str, set[str]] = defaultdict(set)
    waiting = list(starts)
    while waiting:
        while waiting:
            name = waiting.pop()
            if name in symbols.units and name not in calls:
                sites = CallSites(symbols, symbols.units[name])
                calls[name] = sites.targets
                for parameter, values in sites.passed.items():
                    passed[parameter] |= values
                waiting += sites.targets
        for targets in calls.values():
            through = {value for target in targets if "#" in target for value in _values(target, passed)}
            waiting += through - targets
            targets |= through
    return calls


def _values(parameter: str, passed: Mapping[str, set[str]]) -> set[str]:
    """The functions that callers pass as a parameter, also where they pass on one of their own."""
    waiting, visited = [parameter], {parameter}
    while waiting:
        more = passed.get(waiting.pop(), set()) - visited
        visited |= more
        waiting += [name for name in more if "#" in name]
    return {name for name in visited if "#" not in name}


class CallSites:
    """The calls in one function."""

    def __init__(self, symbols: Symbols, unit: Unit) -> None:
        self.symbols, self.unit = symbols, unit
        self.targets: set[str] = set()
        """Names of functions, foreign names, and parameters (`function#parameter`) that are called."""
        self.passed: dict[str, set[str]] = defaultdict(set)
        """Parameter of a called function -> the functions, or own parameters, that are passed as it."""
        for node in unit.body:
            if isinstance(node, ast.Call):
                for target in self._called(symbols.meaning(node.func, unit)):
                    self.targets.add(target)
                    self._pass(target, node)
            elif isinstance(node, ast.Attribute):
                self.targets |= set(self._property(node))

    def _called(self, meaning: Meaning | None) -> Iterator[str]:
        match meaning:
            case Meaning(sort="function" | "foreign" | "parameter", name=name):
                yield name
                yield from self.symbols.implementations(name)
            case Meaning(sort="class", name=name):
                yield from self._methods(name, "__init__", "__post_init__")
            case Meaning(sort="instance", name=name):
                yield from self._methods(name, "__call__")

    def _methods(self, name: str, *names: str) -> Iterator[str]:
        methods = (self.symbols.method(name, method) for method in names)
        return (method.name for method in methods if method is not None)

    def _property(self, node: ast.Attribute) -> Iterator[str]:
        base = self.symbols.meaning(node.value, self.unit)
        method = self.symbols.method(base.name, node.attr) if base and base.sort == "instance" else None
        if method is not None and method.decorators & PROPERTIES:
            yield method.name

    def _pass(self, target: str, call: ast.Call) -> None:
        if target not in self.symbols.units:
            return
        names = self.symbols.units[target].parameters
        words = [(word.arg or "", word.value) for word in call.keywords]
        for name, value in (*zip(names, call.args, strict=False), *words):
            meaning = self.symbols.meaning(value, self.unit)
            if meaning and meaning.sort in {"function", "parameter"}:
                self.passed[f"{target}#{name}"].add(meaning.name)


def _only(names: list[str], subject: str) -> str:
    if len(names) != 1:
        raise RoadNotFound(
            f"{subject}: one is needed, {len(names)} are there {names}; correct tests/structure/road.py"
        )
    return names[0]
