"""Comparisons with a backend's name outside `engines/`: what differs there is to be asked of the backend."""

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tests.structure.hits import Hit
from tests.structure.tree import Checkout, Module, owner

BACKENDS = frozenset({"aoti", "tensorrt", "trtllm_torch", "vllm"})

PACKAGES = frozenset({"tensorrt", "vllm"})
"""Backends whose name is also that of a package on PyPI.

A table or tuple that names one of these beside names of no backend (`("tensorrt_llm", "tensorrt", "torch")`)
lists packages and is no comparison; one that names backends only, or `aoti` or `trtllm_torch`, is.
"""

OWN_ROOM = "pipeline/engines/"

EXEMPT: Mapping[tuple[str, str], str] = {
    ("recipes.schema", "Literal["): "declares the values of `engine.backend`, which JSON Schema publishes",
}
"""(module or module.function, start of the expression) that names backends rightly -> the reason."""

Names = Mapping[str, frozenset[str]]
"""Constants of modules, by their bare name -> the strings that they hold."""


def backend_comparisons(checkout: Checkout, exempt: Mapping[tuple[str, str], str] = EXEMPT) -> list[Hit]:
    """Places outside `engines/` that decide by a backend's name.

    Counted are `==`, `!=`, `in`, `not in` and `is` with a literal, a container of literals or a constant that
    holds one; cases of `match`; calls of `startswith` and `endswith`; `Literal[...]`; and dictionaries,
    tuples, lists and sets that have backends as keys or items: a table by backend decides as an `if` does.
    """
    constants = _constants(checkout)
    return sorted(
        Hit(module.path, node.lineno, ast.unparse(node))
        for module in _outside(checkout)
        for node in _decisions(module, constants)
        if not _matches(exempt, owner(module, node.lineno), ast.unparse(node))
    )


def backend_mentions(checkout: Checkout) -> list[Hit]:
    """Every string outside `engines/` that is exactly a backend's name, packages of that name included."""
    return sorted(
        Hit(module.path, node.lineno, repr(node.value))
        for module in _outside(checkout)
        for node in module.nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in BACKENDS
    )


def _matches(exempt: Mapping[tuple[str, str], str], place: str, text: str) -> bool:
    return any(place == where and text.startswith(start) for where, start in exempt)


def _outside(checkout: Checkout) -> Iterator[Module]:
    return (module for module in checkout.modules if not module.path.startswith(OWN_ROOM))


def _decisions(module: Module, constants: Names) -> Iterator[ast.expr]:
    inside: set[int] = set()
    for node in module.nodes:
        if isinstance(node, ast.MatchValue):
            node = node.value if _names_backend(node.value, constants) else node
        elif not _decides(node, constants):
            continue
        if isinstance(node, ast.expr) and id(node) not in inside:
            inside |= {id(part) for part in ast.walk(node)}
            yield node


def _decides(node: ast.AST, constants: Names) -> bool:
    """Whether an expression decides by a backend's name."""
    match node:
        case ast.Compare(left=left, comparators=others):
            return any(_names_backend(side, constants) for side in (left, *others))
        case ast.Call(func=ast.Attribute(attr="startswith" | "endswith"), args=[value, *_]):
            return _names_backend(value, constants)
        case ast.Subscript(value=ast.Name(id="Literal") | ast.Attribute(attr="Literal"), slice=values):
            return bool(_strings(values) & BACKENDS)
        case ast.Dict() | ast.Tuple() | ast.Set():
            return _lists_backends(_strings(node))
    return False


def _names_backend(node: ast.expr, constants: Names) -> bool:
    match node:
        case ast.Constant(value=str(value)):
            return value in BACKENDS
        case ast.Name(id=name) | ast.Attribute(attr=name) if name.isupper():
            return _lists_backends(constants.get(name, frozenset()))
    return _lists_backends(_strings(node))


def _lists_backends(strings: Iterable[str]) -> bool:
    """Whether strings are names of backends, not of packages among which a backend's is one."""
    names = set(strings)
    return bool(names & (BACKENDS - PACKAGES)) or (bool(names) and names <= BACKENDS)


def _strings(node: ast.expr) -> frozenset[str]:
    """The strings of a display that holds nothing else: keys of a dictionary, items of a tuple, list or set."""
    items: Sequence[ast.expr | None]
    match node:
        case ast.Constant(value=str(value)):
            return frozenset({value})
        case ast.Dict(keys=items):
            pass
        case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items):
            pass
        case ast.Call(func=ast.Name(id="frozenset" | "set" | "tuple"), args=[inner]):
            return _strings(inner)
        case _:
            return frozenset()
    strings = [item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str)]
    return frozenset(strings) if len(strings) == len(items) else frozenset()


def _constants(checkout: Checkout) -> dict[str, frozenset[str]]:
    """Upper-case names that modules bind to strings, wherever: two modules' constants of one name add up."""
    constants: dict[str, frozenset[str]] = {}
    for module in checkout.modules:
        for node in module.tree.body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    pass
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    pass
                case _:
                    continue
            if _lists_backends(_strings(value)):
                constants[name] = constants.get(name, frozenset()) | _strings(value)
    return constants
