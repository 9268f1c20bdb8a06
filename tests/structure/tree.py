"""A checkout as its syntax trees; reads files below a root, imports none of them."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PRODUCT = ("artifacts", "calibration", "pipeline", "recipes")
"""The import packages of the product, in any checkout."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One Python file of the product."""

    path: str
    """Relative to the root of the checkout, with slashes."""
    source: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source, self.path)

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """Every node of the file, outer ones before inner ones."""
        nodes: list[ast.AST] = [self.tree]
        for node in nodes:
            nodes += children(node)
        return tuple(nodes)

    @property
    def name(self) -> str:
        """Dotted name that imports the module; a package has the name of its folder."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def is_package(self) -> bool:
        return self.path.endswith("/__init__.py")

    @cached_property
    def lines(self) -> tuple[str, ...]:
        return tuple(self.source.splitlines())

    @cached_property
    def scopes(self) -> tuple[Function | ast.Lambda, ...]:
        """Every function, method and lambda, nested ones too."""
        return tuple(node for node in self.nodes if isinstance(node, Function | ast.Lambda))

    @cached_property
    def functions(self) -> tuple[Function, ...]:
        """Every function and method, nested ones too."""
        return tuple(node for node in self.nodes if isinstance(node, Function))

    @cached_property
    def code_lines(self) -> int:
        """Lines that hold code: neither blank, nor only a comment, nor a string that stands alone."""
        prose = set(self.prose_lines())
        texts = (line.strip() for number, line in enumerate(self.lines, 1) if number not in prose)
        return sum(bool(text) and not text.startswith("#") for text in texts)

    def prose_lines(self) -> Iterator[int]:
        """Numbers of the lines of docstrings: strings that stand alone as statements."""
        for node in self.nodes:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)


@dataclass(frozen=True)
class Checkout:
    """The Python files of a checkout's product, and the line counts of what stands beside them."""

    modules: tuple[Module, ...]
    test_lines: int = 0
    readme_lines: int = 0

    @cached_property
    def by_name(self) -> Mapping[str, Module]:
        return {module.name: module for module in self.modules}

    @cached_property
    def code_lines(self) -> int:
        return sum(module.code_lines for module in self.modules)

    @cached_property
    def lines(self) -> int:
        return sum(len(module.lines) for module in self.modules)


def children(node: ast.AST) -> list[ast.AST]:
    """The nodes right below one, as `ast.iter_child_nodes` yields them, without `Load` and `Store`; several times as fast."""
    below: list[ast.AST] = []
    for value in vars(node).values():
        if isinstance(value, list):
            below += [item for item in value if isinstance(item, ast.AST)]
        elif isinstance(value, ast.AST) and not isinstance(value, ast.expr_context):
            below.append(value)
    return below


def read_checkout(root: Path) -> Checkout:
    """The checkout at `root`: today's tree, an unpacked older commit, or any tree with these packages."""
    packages = [root / name for name in PRODUCT if (root / name).is_dir()]
    if not packages:
        raise FileNotFoundError(f"{root}: none of the packages {', '.join(PRODUCT)} is there")
    files = sorted(file for package in packages for file in package.rglob("*.py"))
    return Checkout(
        modules=tuple(
            Module(file.relative_to(root).as_posix(), file.read_text(encoding="utf-8")) for file in files
        ),
        test_lines=sum(_count_lines(file) for file in (root / "tests").rglob("*.py")),
        readme_lines=_count_lines(root / "README.md"),
    )


def _count_lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines()) if file.is_file() else 0


def owner(module: Module, line: int) -> str:
    """The innermost function around a line, as `module.function`; the module where there is none."""
    around = [
        function
        for function in module.functions
        if function.lineno <= line <= (function.end_lineno or function.lineno)
    ]
    return f"{module.name}.{around[-1].name}" if around else module.name
