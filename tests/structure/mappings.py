"""Untyped mappings: annotations whose values are `Any`, and parameters read by subscript."""

import ast
from collections.abc import Iterator

from tests.structure.hits import Hit
from tests.structure.tree import Checkout, Module

CONTAINERS = {
    "dict", "Dict", "defaultdict", "OrderedDict", "Mapping", "MutableMapping", "ChainMap", "ItemsView",
    "list", "List", "Sequence", "Iterable", "Iterator", "Collection", "set", "frozenset", "tuple", "Tuple",
}  # fmt: skip
"""Containers of Python; `Callable[..., Any]` and `Job[Any]` are none."""


def untyped_annotations(checkout: Checkout) -> list[Hit]:
    """Containers of `Any` in annotations, aliases and casts: `Mapping[str, Any]`, `dict[str, object]`,
    `list[Any]`, those without parameters where annotated, and annotations by an alias of one.

    A nested one counts once, as its innermost.
    """
    aliases = {f"{module.name}.{name}" for module in checkout.modules for name in _aliases(module)}
    return sorted(
        Hit(module.path, node.lineno, ast.unparse(node))
        for module in checkout.modules
        for node in (*_untyped(module), *_aliased(module, aliases))
    )


def params_subscripts(checkout: Checkout) -> list[Hit]:
    """Reads and writes of an untyped parameter by key: `params["name"]`, `step.params["name"]`, `.get("name")`."""
    return sorted(
        Hit(module.path, node.lineno, ast.unparse(node))
        for module in checkout.modules
        for node in module.nodes
        if isinstance(node, ast.expr) and _reads_params(node)
    )


def _untyped(module: Module) -> Iterator[ast.expr]:
    bare = {id(part) for part in _bare_annotations(module)}
    for node in (*module.nodes, *_quoted(module)):
        untyped = isinstance(node, ast.Subscript) and _holds_any(node)
        if isinstance(node, ast.expr) and (untyped or id(node) in bare):
            yield node


def _aliases(module: Module) -> Iterator[str]:
    """Names that a module gives to containers of Any."""
    for node in module.tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Subscript() as value):
                parts = [part for part in ast.walk(value) if isinstance(part, ast.Subscript)]
                if _last_name(value.value) in CONTAINERS and any(_holds_any(part) for part in parts):
                    yield name


def _aliased(module: Module, aliases: set[str]) -> Iterator[ast.expr]:
    """Names in annotations that stand for such an alias, of this module or imported by name."""
    names = set(_aliases(module))
    for node in module.nodes:
        if isinstance(node, ast.ImportFrom):
            names |= {
                each.asname or each.name for each in node.names if f"{node.module}.{each.name}" in aliases
            }
    for annotation in _annotations(module) if names else ():
        yield from (part for part in ast.walk(annotation) if isinstance(part, ast.Name) and part.id in names)


def _holds_any(node: ast.Subscript) -> bool:
    """Whether a container's own parameters name `Any`, or `object` as the values of a mapping."""
    if _last_name(node.value) not in CONTAINERS:
        return False
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    names = [_last_name(part) for part in _alternatives(parts)]
    return "Any" in names or (len(parts) == 2 and _last_name(parts[1]) == "object")


def _alternatives(parts: list[ast.expr]) -> Iterator[ast.expr]:
    """The members of unions."""
    for part in parts:
        if isinstance(part, ast.BinOp):
            yield from _alternatives([part.left, part.right])
        else:
            yield part


def _bare_annotations(module: Module) -> Iterator[ast.expr]:
    """Annotations that name a mapping without parameters."""
    for annotation in _annotations(module):
        for part in _alternatives([annotation]):
            if _last_name(part) in {"dict", "Dict", "Mapping", "MutableMapping"}:
                yield part


def _annotations(module: Module) -> Iterator[ast.expr]:
    for node in module.nodes:
        match node:
            case ast.arg(annotation=ast.expr() as annotation) | ast.AnnAssign(annotation=annotation):
                yield annotation
            case (
                ast.FunctionDef(returns=ast.expr() as returns)
                | ast.AsyncFunctionDef(returns=ast.expr() as returns)
            ):
                yield returns


def _quoted(module: Module) -> Iterator[ast.expr]:
    """Nodes of annotations that are written as strings, with the line where the string stands."""
    for annotation in _annotations(module):
        for text in ast.walk(annotation):
            if isinstance(text, ast.Constant) and isinstance(text.value, str) and "[" in text.value:
                for node in _parse(text.value):
                    yield ast.copy_location(node, text)


def _parse(text: str) -> Iterator[ast.expr]:
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError:  # a literal such as `Literal["[a]"]`, no annotation
        return
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.expr))


def _reads_params(node: ast.AST) -> bool:
    match node:
        case ast.Subscript(value=source, slice=ast.Constant(value=str())):
            return _last_name(source) == "params"
        case ast.Call(func=ast.Attribute(value=source, attr="get"), args=[ast.Constant(value=str()), *_]):
            return _last_name(source) == "params"
        case ast.Compare(ops=[ast.In() | ast.NotIn()], left=ast.Constant(value=str()), comparators=[source]):
            return _last_name(source) == "params"
    return False


def _last_name(node: ast.expr) -> str:
    """`b` of `a.b`, `a` of `a` and `params` of `job["params"]`; empty for anything else."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Subscript(slice=ast.Constant(value=str(name))):
            return name
    return ""
