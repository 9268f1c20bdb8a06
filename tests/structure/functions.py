"""Sizes of functions and files, and whether functions state what they return."""

import ast
from statistics import median

from tests.structure.hits import Hit
from tests.structure.tree import Checkout, Function

LONG_FILE = 300
"""Lines beyond which a file may hold a second noun."""


def function_lines(checkout: Checkout) -> list[int]:
    """Lines of every function, shortest first: from `def` to its end, without decorators."""
    return sorted(
        (function.end_lineno or function.lineno) - function.lineno + 1
        for module in checkout.modules
        for function in module.functions
    )


def quantile(sizes: list[int], share: float) -> int:
    """The size that `share` of the sorted sizes do not exceed; the median for 0.5; 0 of none."""
    if not sizes:
        return 0
    return round(median(sizes)) if share == 0.5 else sizes[min(int(share * len(sizes)), len(sizes) - 1)]


def long_files(checkout: Checkout) -> list[Hit]:
    """Files of more than LONG_FILE lines."""
    return [
        Hit(module.path, len(module.lines), "lines")
        for module in checkout.modules
        if len(module.lines) > LONG_FILE
    ]


def annotated_share(checkout: Checkout) -> float:
    """Share of functions that state what they return; 1.0 where there are none. Triton kernels cannot."""
    functions = [
        function for module in checkout.modules for function in module.functions if not _is_kernel(function)
    ]
    return sum(function.returns is not None for function in functions) / len(functions) if functions else 1.0


def _is_kernel(function: Function) -> bool:
    return any(ast.unparse(decorator).startswith("triton.jit") for decorator in function.decorator_list)
