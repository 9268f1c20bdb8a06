"""What a checkout defines: functions, methods, lambdas and bodies of modules, and classes."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from tests.structure.tree import Function, Module, children

Scope = Function | ast.Lambda


@dataclass(eq=False)
class Unit:
    """A function, method, lambda or the body of a module: what can call."""

    name: str
    module: Module
    node: Scope | ast.Module
    outer: "Unit | None" = None
    owner: str = ""
    """The class, of a method."""
    inner: dict[str, "Unit"] = field(default_factory=dict)

    @cached_property
    def parameters(self) -> list[str]:
        """Names of what a caller passes by position, then by name; without `self` and `cls`."""
        if isinstance(self.node, ast.Module):
            return []
        arguments = self.node.args
        names = [
            argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        ]
        return names[1:] if self.is_bound else names

    @property
    def is_bound(self) -> bool:
        return bool(self.owner) and "staticmethod" not in self.decorators

    @cached_property
    def decorators(self) -> set[str]:
        """Last parts of the names of the decorators."""
        nodes = self.node.decorator_list if isinstance(self.node, Function) else []
        called = [node.func if isinstance(node, ast.Call) else node for node in nodes]
        return {
            node.id if isinstance(node, ast.Name) else node.attr
            for node in called
            if isinstance(node, ast.Name | ast.Attribute)
        }

    @cached_property
    def body(self) -> list[ast.AST]:
        """The nodes that run when the unit does: nothing of functions and lambdas inside it."""
        nodes: list[ast.AST] = []
        waiting = list(self._statements())
        while waiting:
            node = waiting.pop()
            nodes.append(node)
            if isinstance(node, Function):
                waiting += node.decorator_list
            elif not isinstance(node, ast.Lambda | ast.ClassDef):
                waiting += children(node)
        return nodes

    def _statements(self) -> list[ast.AST]:
        return [self.node.body] if isinstance(self.node, ast.Lambda) else list(self.node.body)

    @cached_property
    def imports(self) -> dict[str, str]:
        """Local name -> dotted name, of the imports that stand in the unit itself."""
        return dict(pair for node in self.body for pair in _imported(node))

    @cached_property
    def assigned(self) -> dict[str, ast.expr]:
        """Local name -> the expression that the unit binds to it, the first one in the text."""
        pairs = sorted(
            (pair for node in self.body for pair in _assignments(node)),
            key=lambda pair: pair[1].lineno,
            reverse=True,
        )
        return dict(pairs)

    @cached_property
    def annotations(self) -> dict[str, ast.expr]:
        """Parameter or local name -> its annotation."""
        names = {
            node.target.id: node.annotation
            for node in self.body
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        }
        if isinstance(self.node, Function):
            arguments = self.node.args
            for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
                if argument.annotation is not None:
                    names[argument.arg] = argument.annotation
        return names


@dataclass(eq=False)
class Class:
    """A class of the product: its methods and the annotations of its fields."""

    name: str
    unit: Unit
    """The body in which it is defined; its annotations and bases are read there."""
    node: ast.ClassDef
    methods: dict[str, Unit] = field(default_factory=dict)

    @cached_property
    def fields(self) -> dict[str, ast.expr]:
        return {
            node.target.id: node.annotation
            for node in self.node.body
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        }


def first_parameter(node: Scope | ast.Module) -> str:
    arguments = [] if isinstance(node, ast.Module) else [*node.args.posonlyargs, *node.args.args]
    return arguments[0].arg if arguments else ""


def _imported(node: ast.AST) -> Iterator[tuple[str, str]]:
    match node:
        case ast.Import(names=aliases):
            for alias in aliases:
                yield (alias.asname, alias.name) if alias.asname else (alias.name.split(".")[0],) * 2
        case ast.ImportFrom(module=str(source), names=aliases):
            yield from ((alias.asname or alias.name, f"{source}.{alias.name}") for alias in aliases)


def _assignments(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    match node:
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value)
            | ast.NamedExpr(target=ast.Name(id=name), value=value)
        ):
            yield name, value
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            yield name, value
        case ast.With(items=items) | ast.AsyncWith(items=items):
            for item in items:
                if isinstance(item.optional_vars, ast.Name):
                    yield item.optional_vars.id, item.context_expr
