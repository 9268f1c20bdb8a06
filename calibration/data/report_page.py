"""The report of a calibration set as one HTML file that needs nothing else."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from calibration.data.report_values import Duplicates, Report, ShownToken, SourceReport

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --paper: #fff; --faint: #667; --line: #d6dae2;
  --bar: #3b6fb5; --odd: #eef3fa; --special: #b4491f; --warn: #fff4d6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ef; --paper: #14181f; --faint: #99a2b3;
  --line: #333b48; --bar: #6fa0e0; --odd: #1d2634; --special: #f0915f; --warn: #3a3115; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .3rem .6rem;
  border-bottom: 1px solid var(--line); vertical-align: top; } .n { text-align: right; }
.warn { background: var(--warn); padding: .5rem .8rem; margin: .4rem 0; border-radius: 4px; }
.faint { margin-bottom: 0; }
.sequence { font: 13px/1.7 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere;
  border: 1px solid var(--line); border-radius: 4px; padding: .6rem .8rem; margin: .2rem 0 .6rem; }
.sequence span:nth-child(odd) { background: var(--odd); }
.sequence .special { color: var(--special); font-weight: 700; }
.faint { color: var(--faint); } rect { fill: var(--bar); } text { fill: var(--ink); font-size: 12px; }
"""

BAR, GAP, LABEL, LONGEST = 18, 6, 110, 560
"""Pixels: height of a bar, space between two, width of the labels, length of the longest bar."""


def page(report: Report) -> str:
    """The report as HTML; what comes from data files is escaped."""
    body = [
        "<h1>Calibration set</h1>",
        f"<p>{_summary(report)}</p>",
        *(f'<p class="warn">{escape(warning)}</p>' for warning in report["warnings"]),
        "<h2>Sources</h2>",
        _sources(report["sources"]),
        "<h2>Tokens per sample</h2>",
        _bars(report["sample_length_histogram"]),
        "<h2>What to know</h2>",
        _table(("", ""), _facts(report)),
        "<h2>First samples of each source, token by token</h2>",
        *(_sequence(sample["place"], sample["tokens"]) for sample in report["first_samples"]),
        "<h2>First sequence</h2>",
        _sequence("as it is measured", report["first_sequence"]),
        *_skipped(report["sources"]),
    ]
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Calibration set</title>\n'
        f"<style>{STYLE}</style>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _summary(report: Report) -> str:
    layout = "packed end to end" if report["packed"] else "one sample each, padded on the right"
    return (
        f"{report['sequences']:,} sequences of {report['seq_len']:,} tokens ({layout}): "
        f"{report['tokens']:,} tokens from {report['samples']:,} samples."
    )


def _sources(sources: Sequence[SourceReport]) -> str:
    rows = []
    for source in sources:
        columns = ", ".join(f"{role} from {name}" for role, name in source["read_as"]["columns"].items())
        rows.append(
            (
                source["file"],
                f"{source['read_as']['kind']}: {columns}",
                f"{source['rows']:,}",
                f"{len(source['skipped']):,}",
                f"{source['taken']:,}",
                f"{source['tokens']:,}",
            )
        )
    return _table(("file", "read as", "rows", "skipped", "taken", "tokens"), rows)


def _facts(report: Report) -> list[tuple[str, str]]:
    special, cut = report["special_tokens"], report["truncated"]
    exact, normalised = report["duplicates"]["exact"], report["duplicates"]["normalised"]
    bos = special["bos"]
    starts = (
        "the tokenizer puts none in front of text"
        if bos is None
        else f"{bos}; missing at {special['bos_missing']:,} starts, doubled at {special['bos_doubled']:,}"
    )
    calls = sum(source["chats"]["arguments_decoded"] for source in report["sources"])
    counts = ", ".join(f"{name} {count:,}" for name, count in special["counts"].items())
    return [
        ("Repeated samples", f"{exact['count']:,} exactly{_pairs(exact)}"),
        ("Repeated but for case and white space", f"{normalised['count']:,}{_pairs(normalised)}"),
        ("Cut samples", f"{cut['samples']:,}; {cut['share']:.1%} of all tokens were cut off"),
        (
            "Left over",
            f"{report['dropped_tail_tokens']:,} tokens after the last whole sequence, "
            f"{report['left_out_sequences']:,} sequences beyond max_sequences",
        ),
        ("Beginning of sequence", starts),
        *_begun(report),
        ("Special tokens", counts or "none"),
        (
            "Tool calls",
            f"arguments were decoded from JSON text in {calls:,} samples, as servers do before they render",
        ),
    ]


def _begun(report: Report) -> list[tuple[str, str]]:
    begin = report["sequences_begin_with"]
    if begin["tokens"] is None:
        return []
    return [("Sequences", f"{begin['sequences']:,} of {report['sequences']:,} begin with {begin['tokens']}")]


def _pairs(duplicates: Duplicates) -> str:
    return "".join(f"; {later} repeats {earlier}" for later, earlier in duplicates["examples"])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    numbers = {"rows", "skipped", "taken", "tokens"}
    kinds = ["n" if name in numbers else "" for name in head]
    lines = ["<table>"]
    if any(head):
        cells = zip(head, kinds, strict=True)
        lines.append("<tr>" + "".join(f'<th class="{kind}">{escape(name)}</th>' for name, kind in cells))
    for row in rows:
        cells = zip(row, kinds, strict=True)
        lines.append("<tr>" + "".join(f'<td class="{kind}">{escape(cell)}</td>' for cell, kind in cells))
    return "\n".join([*lines, "</table>"])


def _bars(histogram: Mapping[str, int]) -> str:
    """Horizontal bars with their counts, as SVG."""
    top = max(histogram.values(), default=1)
    height = len(histogram) * (BAR + GAP)
    parts = [f'<svg role="img" width="100%" viewBox="0 0 {LABEL + LONGEST + 70} {height}">']
    for number, (label, count) in enumerate(histogram.items()):
        # At least one pixel, so that a rare length is still seen.
        y, width = number * (BAR + GAP), max(1, round(LONGEST * count / top))
        parts.append(
            f'<text x="{LABEL - 8}" y="{y + 13}" text-anchor="end">{escape(label)}</text>'
            f'<rect x="{LABEL}" y="{y}" width="{width}" height="{BAR}"/>'
            f'<text x="{LABEL + width + 6}" y="{y + 13}">{count:,}</text>'
        )
    return "\n".join([*parts, "</svg>"])


def _sequence(title: str, tokens: Sequence[ShownToken]) -> str:
    pieces = (
        f'<span class="special">{escape(str(text))}</span>'
        if special
        else f"<span>{escape(str(text))}</span>"
        for text, special in tokens
    )
    return f'<p class="faint">{escape(title)}</p><div class="sequence">{"".join(pieces)}</div>'


def _skipped(sources: Sequence[SourceReport]) -> Iterable[str]:
    rows = [[line] for source in sources for line in source["skipped"]]
    return ["<h2>Skipped rows</h2>", _table(("",), rows)] if rows else []
