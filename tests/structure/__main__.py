"""Prints the figures of a checkout, or its worst files: `python -m tests.structure [ROOT] [--worst N --of FIGURE]`."""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.structure import backends, comments, mappings, names
from tests.structure.hits import Hit, rank_files
from tests.structure.tree import Checkout, read_checkout

WORST: Mapping[str, Callable[[Checkout], list[Hit]]] = {
    "names": names.vague_names,
    "mappings": mappings.untyped_annotations,
    "params": mappings.params_subscripts,
    "backends": backends.backend_comparisons,
}


def main() -> int:
    """Prints what the arguments ask for; 0, or 2 where there is no checkout."""
    arguments = _parser().parse_args()
    checkout = read_checkout(arguments.root)
    if arguments.of == "comments":
        _print_uncommented(checkout, arguments.worst)
    else:
        _print_worst(WORST[arguments.of](checkout), arguments.worst, arguments.under)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.structure", description=__doc__)
    parser.add_argument("root", nargs="?", type=Path, default=Path(), help="a checkout; here if absent")
    parser.add_argument("--worst", type=int, default=20, metavar="N", help="files that are listed")
    parser.add_argument("--of", choices=[*WORST, "comments"], default="names")
    parser.add_argument(
        "--under", default="", metavar="PREFIX", help="only files below, each place on a line"
    )
    return parser


def _print_worst(hits: list[Hit], number: int, under: str) -> None:
    hits = [hit for hit in hits if hit.path.startswith(under)]
    if under:
        print(*hits, sep="\n")
    for path, count in rank_files(hits)[:number]:
        print(f"{count:5} {path}")
    print(f"{len(hits):5} in all")


def _print_uncommented(checkout: Checkout, number: int) -> None:
    """Lists the files of 60 lines of code and more that explain least."""
    counts = dict(rank_files(comments.comments(checkout)))
    long = [module for module in checkout.modules if module.code_lines >= 60]
    for module in sorted(
        long, key=lambda module: (counts.get(module.path, 0) / module.code_lines, -module.code_lines)
    )[:number]:
        print(
            f"{counts.get(module.path, 0):5} comments in {module.code_lines:4} lines of code  {module.path}"
        )
    print(f"{sum(counts.values()):5} in {checkout.code_lines} lines of code")


if __name__ == "__main__":
    sys.exit(main())
