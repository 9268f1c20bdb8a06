"""What the names of a checkout mean, as far as its syntax says: functions, classes, modules, instances."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from tests.structure.tree import Checkout, Function, children
from tests.structure.units import Class, Unit, first_parameter


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an expression stands for."""

    sort: str
    """module, function, class, instance (of the class `name`), parameter (`name` is `function#parameter`) or
    foreign (a dotted name outside the product)."""
    name: str


PROPERTIES = {"property", "cached_property"}


class Symbols:
    """Every unit and class of a checkout, and what expressions mean in them."""

    def __init__(self, checkout: Checkout) -> None:
        self.checkout = checkout
        self.units: dict[str, Unit] = {}
        self.classes: dict[str, Class] = {}
        self.lambdas: dict[int, Unit] = {}
        self.packages = {module.name.split(".")[0] for module in checkout.modules}
        self._meanings: dict[tuple[int, str], Meaning | None] = {}
        for module in checkout.modules:
            unit = Unit(module.name, module, module.tree)
            self.units[unit.name] = unit
            self._define(unit, module.tree)

    def _define(self, outer: Unit, node: ast.AST, owner: Class | None = None) -> None:
        for child in children(node):
            place = owner.name if owner else outer.name
            match child:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    unit = Unit(
                        f"{place}.{child.name}", outer.module, child, outer, owner.name if owner else ""
                    )
                    (owner.methods if owner else outer.inner)[child.name] = self.units[unit.name] = unit
                    self._define(unit, child)
                case ast.Lambda():
                    unit = Unit(
                        f"{place}.<lambda:{child.lineno}:{child.col_offset}>", outer.module, child, outer
                    )
                    self.lambdas[id(child)] = self.units[unit.name] = unit
                    self._define(unit, child)
                case ast.ClassDef():
                    defined = self.classes[f"{place}.{child.name}"] = Class(
                        f"{place}.{child.name}", outer, child
                    )
                    self._define(outer, child, defined)
                case _:
                    self._define(outer, child, owner)

    def meaning(self, node: ast.expr, unit: Unit) -> Meaning | None:
        """What an expression stands for in a unit; None where the syntax does not say.

        None too while the same expression is being looked up: what is bound to itself means nothing.
        """
        question = (id(node), unit.name)
        if question not in self._meanings:
            self._meanings[question] = None
            self._meanings[question] = self._look_up(node, unit)
        return self._meanings[question]

    def _look_up(self, node: ast.expr, unit: Unit) -> Meaning | None:
        meaning = None
        match node:
            case ast.Name(id=name):
                meaning = self._name(name, unit)
            case ast.Attribute(value=value, attr=attr):
                meaning = self._attribute(self.meaning(value, unit), attr)
            case ast.Lambda():
                meaning = Meaning("function", self.lambdas[id(node)].name)
            case ast.Call():
                meaning = self._result(node, unit)
            case ast.IfExp(body=first, orelse=second) | ast.BoolOp(values=[first, second]):
                meaning = self.meaning(first, unit) or self.meaning(second, unit)
            case ast.NamedExpr(value=value) | ast.Await(value=value):
                meaning = self.meaning(value, unit)
        return meaning

    def _name(self, name: str, unit: Unit) -> Meaning | None:
        scope: Unit | None = unit
        while scope is not None:
            meaning = self._local(name, scope)
            if meaning is not None:
                return meaning
            scope = scope.outer
        return None

    def _local(self, name: str, scope: Unit) -> Meaning | None:
        """What a name means that one scope binds: by definition, import, parameter or assignment."""
        if name in scope.inner:
            return Meaning("function", scope.inner[name].name)
        if f"{scope.name}.{name}" in self.classes:
            return Meaning("class", f"{scope.name}.{name}")
        if name in scope.imports:
            return self.dotted(scope.imports[name])
        return self._parameter(name, scope) or self._variable(name, scope)

    def _parameter(self, name: str, scope: Unit) -> Meaning | None:
        if scope.is_bound and name == first_parameter(scope.node):
            return Meaning("class" if "classmethod" in scope.decorators else "instance", scope.owner)
        if name not in scope.parameters:
            return None
        annotation = scope.annotations.get(name)
        typed = self.annotated(annotation, scope) if annotation is not None else None
        return typed or Meaning("parameter", f"{scope.name}#{name}")

    def _variable(self, name: str, scope: Unit) -> Meaning | None:
        if name in scope.annotations and (typed := self.annotated(scope.annotations[name], scope)):
            return typed
        return self.meaning(scope.assigned[name], scope) if name in scope.assigned else None

    def dotted(self, name: str) -> Meaning:
        """What a dotted name stands for: it follows packages that import from their modules."""
        if name in self.checkout.by_name:
            return Meaning("module", name)
        holder, _, attr = name.rpartition(".")
        if holder.split(".")[0] not in self.packages:
            return Meaning("foreign", name)
        return self._attribute(self.dotted(holder), attr) or Meaning("foreign", name)

    def _attribute(self, base: Meaning | None, attr: str) -> Meaning | None:
        match base:
            case Meaning(sort="module", name=name):
                if f"{name}.{attr}" in self.checkout.by_name:
                    return Meaning("module", f"{name}.{attr}")
                return self._local(attr, self.units[name])
            case Meaning(sort="foreign", name=name):
                return Meaning("foreign", f"{name}.{attr}")
            case Meaning(sort="class" | "instance", name=name):
                return self._member(name, attr)
        return None

    def _member(self, name: str, attr: str) -> Meaning | None:
        """A method, the type of a field or of a property's value; looked up in base classes too."""
        method = self.method(name, attr)
        if method is not None:
            if method.decorators & PROPERTIES:
                return self.returned(method)
            return Meaning("function", method.name)
        for ancestor in self.ancestors(name):
            if attr in ancestor.fields:
                return self.annotated(ancestor.fields[attr], ancestor.unit)
            if (start := ancestor.methods.get("__init__")) and (typed := self._set_in(start, attr)):
                return typed
        return None

    def _set_in(self, start: Unit, attr: str) -> Meaning | None:
        """The type of what `__init__` assigns to `self.attr`."""
        for node in start.body:
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Attribute)
                and node.targets[0].attr == attr
            ):
                return self.meaning(node.value, start)
        return None

    def method(self, name: str, attr: str) -> Unit | None:
        """A method of a class or of its nearest base that has it."""
        return next((base.methods[attr] for base in self.ancestors(name) if attr in base.methods), None)

    def implementations(self, method: str) -> list[str]:
        """Methods that a call of a protocol's method may run: of the classes that have all its methods."""
        protocol = self.classes.get(method.rpartition(".")[0])
        if protocol is None or not any(
            ast.unparse(base).endswith("Protocol") for base in protocol.node.bases
        ):
            return []
        needed = {name for name, unit in protocol.methods.items() if not unit.decorators & PROPERTIES}
        classes = [
            each for each in self.classes.values() if each is not protocol and needed <= each.methods.keys()
        ]
        return (
            [each.methods[name].name for each in classes for name in needed & {method.rpartition(".")[2]}]
            if len(needed) > 1
            else []
        )

    def ancestors(self, name: str) -> Iterator[Class]:
        """A class and its base classes, as far as they are the product's."""
        if (defined := self.classes.get(name)) is None:
            return
        yield defined
        for base in defined.node.bases:
            meaning = self.meaning(base, defined.unit)
            if meaning and meaning.sort == "class" and meaning.name != name:
                yield from self.ancestors(meaning.name)

    def _result(self, call: ast.Call, unit: Unit) -> Meaning | None:
        """What a call returns: an instance, or the function that `partial` fills."""
        function = self.meaning(call.func, unit)
        match function:
            case Meaning(sort="class", name=name):
                return Meaning("instance", name)
            case Meaning(sort="function", name=name):
                return self.returned(self.units[name])
            case Meaning(sort="foreign", name="functools.partial") if call.args:
                return self.meaning(call.args[0], unit)
        return None

    def returned(self, function: Unit) -> Meaning | None:
        """An instance of the class that a function's annotation says it returns."""
        returns = function.node.returns if isinstance(function.node, Function) else None
        return self.annotated(returns, function.outer or function) if returns is not None else None

    def annotated(self, annotation: ast.expr, unit: Unit) -> Meaning | None:
        """An instance of the class that an annotation names, alone or beside None; also one in quotes."""
        match annotation:
            case ast.Constant(value=str(text)):
                return self.annotated(ast.parse(text, mode="eval").body, unit)
            case ast.BinOp(left=left, right=right):
                return self.annotated(left, unit) or self.annotated(right, unit)
            case ast.Name() | ast.Attribute():
                meaning = self.meaning(annotation, unit)
                return Meaning("instance", meaning.name) if meaning and meaning.sort == "class" else None
        return None
