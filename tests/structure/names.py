"""Local names, and those that name nothing: participles and pronouns instead of the thing."""

import ast
from collections.abc import Iterator
from functools import cache

from tests.structure.hits import Hit
from tests.structure.tree import Checkout, Function, children

STYLE_2_4 = {"found", "told", "asked", "made", "one"}
PARTICIPLES = {
    "said", "given", "wanted", "known", "held", "left", "taken", "lacking", "tried",
    "gone", "got", "heard", "kept", "meant", "named", "shown", "stated",
}  # fmt: skip
STAND_INS = {"what", "here", "there", "mine", "ours", "theirs", "odd"}
VAGUE = STYLE_2_4 | PARTICIPLES | STAND_INS
"""Names that the reader must look up to know the thing.

`seen`, `others`, `chosen` and `done` are not among them: they are idioms (a set of what a loop has visited,
the rest of a group, a selection, progress of a total).
"""

PAIRS = {"left": "right"}
"""A vague name that says the thing where its counterpart is bound in the same function."""

Scope = Function | ast.Lambda


def vague_names(checkout: Checkout) -> list[Hit]:
    """Every vague local name, once per function that binds it."""
    return [Hit(path, line, name) for path, names in _every(checkout) for name, line in _vague(names).items()]


def vague_share(checkout: Checkout) -> float:
    """Share of vague names among all local names; a name that a function binds twice counts once."""
    every = [names for _, names in _every(checkout)]
    return sum(len(_vague(names)) for names in every) / (sum(map(len, every)) or 1)


def _every(checkout: Checkout) -> Iterator[tuple[str, dict[str, int]]]:
    return ((module.path, local_names(scope)) for module in checkout.modules for scope in module.scopes)


@cache
def local_names(scope: Scope) -> dict[str, int]:
    """Each name that a function binds -> the first line that does: parameters, targets of assignments,
    loops, comprehensions, `with`, `except`, `match` and `:=`; not those of functions inside it."""
    names: dict[str, int] = {}
    for name, line in sorted((*_parameters(scope), *_targets(scope)), key=lambda bound: bound[1]):
        if name not in {"self", "cls"} and name.strip("_"):
            names.setdefault(name, line)
    return names


def _vague(names: dict[str, int]) -> dict[str, int]:
    return {
        name: line
        for name, line in names.items()
        if name.strip("_") in VAGUE and PAIRS.get(name.strip("_")) not in names
    }


def _parameters(scope: Scope) -> Iterator[tuple[str, int]]:
    arguments = scope.args
    every = [
        *arguments.posonlyargs,
        *arguments.args,
        *arguments.kwonlyargs,
        arguments.vararg,
        arguments.kwarg,
    ]
    return ((argument.arg, argument.lineno) for argument in every if argument is not None)


def _targets(scope: Scope) -> Iterator[tuple[str, int]]:
    waiting: list[ast.AST] = [scope.body] if isinstance(scope, ast.Lambda) else list(scope.body)
    while waiting:
        node = waiting.pop()
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda() | ast.ClassDef():
                continue
            case ast.Name(id=name, ctx=ast.Store()):
                yield name, node.lineno
            case (
                ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
            ):
                yield name, node.lineno
            case ast.MatchMapping(rest=str(name)):
                yield name, node.lineno
        waiting += children(node)
