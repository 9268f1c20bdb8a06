"""Prints the figures of a checkout as a table, or the places that one figure counts.

python -m tests.structure                          this checkout
python -m tests.structure --against 0.1            the figures of 0.1, or of any commit, beside them
python -m tests.structure --worst 20 --of names    the files with the most vague names
python -m tests.structure --of backends --under pipeline/fit    every place below a folder
python -m tests.structure --of road                the shortest road of each kind of step
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.commits import unpack_commit
from tests.structure import backends, comments, functions, imports, mappings, names, road
from tests.structure.contract import CONTRACT
from tests.structure.figures import FIGURES, Figure
from tests.structure.hits import Hit, rank_files
from tests.structure.reach import reach
from tests.structure.tree import Checkout, read_checkout

PLACES: Mapping[str, Callable[[Checkout], list[Hit]]] = {
    "names": names.vague_names,
    "mappings": mappings.untyped_annotations,
    "params": mappings.params_subscripts,
    "backends": backends.backend_comparisons,
    "mentions": backends.backend_mentions,
    "upward": lambda checkout: imports.upward_imports(checkout, CONTRACT),
    "long": functions.long_files,
}
"""What `--of` counts by places in files."""

LISTS: Mapping[str, Callable[[Checkout], list[str]]] = {
    "circles": lambda checkout: [
        " <-> ".join(group) for group in imports.circles(imports.module_graph(checkout))
    ],
    "shared": lambda checkout: [
        f"{name}: {', '.join(paths)}" for name, paths in imports.shared_names(checkout).items()
    ],
    "order": lambda checkout: imports.order(imports.room_graph(checkout)),
    "road": lambda checkout: [f"{each.calls:3} {' -> '.join(each.path)}" for each in road.roads(checkout)],
    "reach": lambda checkout: [*reach(checkout).modules, *map(" -> ".join, reach(checkout).climbs)],
}
"""What `--of` lists otherwise; `order` is a contract that holds where rooms have no circles."""


def main(argv: Sequence[str] | None = None) -> int:
    """Prints what the arguments ask for."""
    arguments = _parser().parse_args(argv)
    checkout = read_checkout(arguments.root)
    if arguments.of is None:
        older = [read_commit(arguments.against)] if arguments.against else []
        print(table(*older, checkout))
    else:
        print(*_details(checkout, arguments.of, arguments.worst, arguments.under), sep="\n")
    return 0


def table(*checkouts: Checkout) -> str:
    """The figures as a Markdown table: of one checkout, or of an older one and of today's."""
    heads = ["figure", *["before", "now"][-len(checkouts) :], "goal"]
    rule = ["---", *["---:"] * (len(heads) - 1)]
    rows: list[list[str]] = []
    notes: list[str] = []
    for figure in FIGURES.values():
        values = [_measure(figure, checkout, notes) for checkout in checkouts]
        rows.append([figure.title, *map(figure.show, values), figure.show_goal()])
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows)]
    return "\n".join([*lines, *dict.fromkeys(notes)])


def _measure(figure: Figure, checkout: Checkout, notes: list[str]) -> float | None:
    """The figure's value; None, with a note that says why, where the checkout has no road."""
    try:
        return figure.measure(checkout)
    except road.RoadNotFound as exc:
        notes.append(f"\n{figure.title}: {exc}")
        return None


def read_commit(commit: str) -> Checkout:
    """The checkout of an older commit of this repository, unpacked for the moment."""
    with tempfile.TemporaryDirectory() as place:
        return read_checkout(unpack_commit(commit, Path(place, "commit")))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.structure",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "root", nargs="?", type=Path, default=Path(), help="a checkout; the working directory if absent"
    )
    parser.add_argument(
        "--against", metavar="COMMIT", help="prints the figures of this commit too; 0.1 is one"
    )
    parser.add_argument(
        "--of",
        choices=[*PLACES, *LISTS, "comments"],
        help="prints details instead",
    )
    parser.add_argument(
        "--worst", type=int, default=20, metavar="N", help="how many files are listed; 20 if absent"
    )
    parser.add_argument(
        "--under", default="", metavar="PREFIX", help="lists each place in files whose path starts so"
    )
    return parser


def _details(checkout: Checkout, subject: str, number: int, under: str) -> list[str]:
    if subject == "comments":
        return _uncommented(checkout, number)
    if subject in LISTS:
        return LISTS[subject](checkout)
    hits = [hit for hit in PLACES[subject](checkout) if hit.path.startswith(under)]
    ranked = [f"{count:5} {path}" for path, count in rank_files(hits)[:number]]
    return [*(map(str, hits) if under else ()), *ranked, f"{len(hits):5} in all"]


def _uncommented(checkout: Checkout, number: int) -> list[str]:
    """The files of 60 lines of code and more that explain least."""
    counts = dict(rank_files(comments.comments(checkout)))
    long = [module for module in checkout.modules if module.code_lines >= 60]
    long.sort(key=lambda module: (counts.get(module.path, 0) / module.code_lines, -module.code_lines))
    return [
        f"{counts.get(module.path, 0):5} comments in {module.code_lines:4} lines of code  {module.path}"
        for module in long[:number]
    ] + [f"{sum(counts.values()):5} in {checkout.code_lines} lines of code"]


if __name__ == "__main__":
    sys.exit(main())
