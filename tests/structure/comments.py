"""Comments that explain: `#` lines and ends of lines, without directives to tools."""

import ast
import re
from collections.abc import Iterator

from tests.structure.hits import Hit
from tests.structure.tree import Checkout, Module

DIRECTIVE = re.compile(r"#!?\s*(noqa|type:|fmt:|mypy:|ruff:|pragma|pylint|isort|-\*-|!/)")


def comments(checkout: Checkout) -> list[Hit]:
    """Every line with a comment that is for people."""
    return [hit for module in checkout.modules for hit in _comments_of(module)]


def _comments_of(module: Module) -> Iterator[Hit]:
    quoted = _quoted_spans(module)
    for number, line in enumerate(module.lines, 1):
        for column in (place.start() for place in re.finditer("#", line)):
            if not _within(number, len(line[:column].encode()), quoted.get(number, ())):
                if not DIRECTIVE.match(line[column:]):
                    yield Hit(module.path, number, line[column:])
                break


Span = tuple[tuple[int, int], tuple[int, int]]


def _quoted_spans(module: Module) -> dict[int, list[Span]]:
    """Line -> the strings that stand on it, each from (line, byte) to (line, byte)."""
    spans: dict[int, list[Span]] = {}
    for node in module.nodes:
        if isinstance(node, ast.JoinedStr) or (
            isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
        ):
            end = (node.end_lineno or node.lineno, node.end_col_offset or 0)
            for line in range(node.lineno, end[0] + 1):
                spans.setdefault(line, []).append(((node.lineno, node.col_offset), end))
    return spans


def _within(line: int, column: int, spans: list[Span] | tuple[()]) -> bool:
    return any(start <= (line, column) < end for start, end in spans)
