"""ls, show, diff: lists, details and comparisons of what is published."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.app import App
from pipeline.cli.command_parameters import COUNT

if TYPE_CHECKING:
    from artifacts.finding.match import Version
    from artifacts.registry.registry import Remarks, VersionRecord

SHOWN = (
    "backend",
    "format",
    "dtype",
    "kv_cache",
    "tp",
    "pp",
    "max_batch_size",
    "max_seq_len",
    "scored",
    "sequences_begin_with",
    "measured",
)
"""Facts of a version that `show` prints first."""

USUAL = ("perplexity_ratio", "kl", "top1_agreement", "tokens_per_s", "size_bytes")
"""Metrics that every list of versions shows."""

FIRST = 50
"""Versions that a terminal shows of a longer list; JSON has all."""


@click.command()
@click.argument("name", required=False)
@click.option("--limit", type=COUNT, help=f"Versions to show; default: {FIRST}, or all with --json or -q.")
@click.pass_obj
def ls(app: App, name: str | None, limit: int | None) -> None:
    """List the newest version of every name and those with an alias, or the versions of NAME.

    Example: enginery ls demo/int4_awq_tp2
    """
    people = not (app.out.json_mode or app.out.quiet)
    most = limit or (FIRST if people else None)
    versions, count = app.registry.listed(name, limit=most)
    if name and not versions:
        app.registry.versions(name)  # says which names are close
    tabulate(app, versions)
    if not versions:
        app.out.say(f"nothing is published in {app.store_url}; run a recipe with `enginery run RECIPE`")
    elif count > len(versions):
        more = "older ones" if name else "others"
        app.out.say(f"{len(versions):,} of {count:,} are shown; `--limit {count}` shows the {more} too")


@click.command()
@click.argument("reference", metavar="NAME[@ALIAS|:VERSION]|KEY")
@click.pass_obj
def show(app: App, reference: str) -> None:
    """Show one version, or the artifact whose key begins with KEY: coverage, reports, inputs.

    Example: enginery show demo/int4_awq_tp2@candidate
    """
    from pipeline.pages.artifact_view import find_key  # numpy: not for --help

    # a name is looked up only where no key begins so
    key = find_key(app.site.store, reference)
    if key is None:
        _show_version(app, reference)
    else:
        _show_artifact(app, key)


def _show_artifact(app: App, key: str) -> None:
    """Prints an artifact: its kind, files, report and inputs."""
    from pipeline.pages.artifact_view import exhibit, root_of  # with find_key
    from pipeline.units import duration, size

    manifest = app.site.store.manifest(key)
    root = root_of(app.site.store, key, manifest.kind)
    seen, inputs = exhibit(manifest.kind, root), manifest.step.get("inputs", {})
    if app.out.json_mode or app.out.quiet:
        answer = {"kind": manifest.kind, "key": key, "path": str(root), "inputs": inputs}
        whole = {**answer, "params": manifest.step.get("params", {}), "document": seen.document}
        app.out.value(whole, text="", short=key)
        return
    peak = manifest.peak_memory_bytes
    took = f"{duration(manifest.seconds)}{f', peak {size(peak)}' if peak else ''}"
    app.out.line(f"{manifest.kind} {key}   {size(manifest.size_bytes)}   took {took}")
    app.out.line(f"files {root}")
    for line in seen.lines:
        app.out.line(line)
    for title, rows in seen.tables:
        app.out.rows(rows, id_column="", title=title)
    app.out.rows([{"input": role, "key": of} for role, of in inputs.items()], id_column="key")
    for warning in seen.warnings:
        app.out.warn(warning)


def _show_version(app: App, reference: str) -> None:
    from artifacts.registry.remarks import notices  # SQLAlchemy: not for --help

    record = app.client.resolve(reference)
    remarks = app.registry.remarks([(record.name, record.number)])[record.name, record.number]
    if app.out.json_mode or app.out.quiet:
        app.out.value({**record.as_dict(), **remarks.as_dict()}, text="", short=record.engine_key)
        return
    app.out.line(
        f"{record.name}:{record.number}   verdict {record.verdict}   "
        f"published {record.published_at:%Y-%m-%d %H:%M} UTC"
    )
    for notice in notices(record, remarks):
        app.out.notice(notice.tone, notice.text)
    aliases = [f"@{alias} -> :{number}" for alias, number in app.registry.aliases(record.name).items()]
    app.out.line(f"engine {record.engine_key}")
    app.out.line("aliases " + (", ".join(aliases) or "none"))
    facts = record.facts
    app.out.line("   ".join(f"{name} {facts[name]}" for name in SHOWN if name in facts))
    format_ = record.recipe.get("format", "none")
    if not isinstance(format_, str):
        exceptions = ", ".join(f"{pattern}: {name}" for pattern, name in format_["except"].items())
        app.out.line(f"linears {format_['default']}, except {exceptions}")
    speeds = _speeds(record)
    figures = speeds[0] if speeds else {}
    # figures by batch have a table of their own, and plain names only repeat one of its rows
    plain = [m for m in record.metrics if "@" not in m.name and m.name not in figures]
    app.out.line("")
    app.out.rows(
        [{"metric": m.name, "value": m.value, "low": m.low, "high": m.high} for m in plain],
        id_column="metric",
    )
    if speeds:
        app.out.line("")
        app.out.rows(speeds, id_column="batch_size")
    app.out.line("")
    app.out.rows([{"input": kind, "key": key} for kind, key in record.lineage.items()], id_column="key")


@click.command()
@click.argument("before", metavar="BEFORE")
@click.argument("after", metavar="AFTER")
@click.pass_obj
def diff(app: App, before: str, after: str) -> None:
    """Show what differs between two versions, and whether it is more than noise.

    Example: enginery diff demo/int4_awq_tp2@prod demo/int4_awq_tp2@candidate
    """
    from artifacts.finding.compare import NOTES, compare  # pydantic: not for --help
    from pipeline.pages.sample_difference import paired  # numpy

    left, right = app.client.resolve(before), app.client.resolve(after)
    comparison = compare(left, right, paired(app.client.store, left, right))
    if app.out.json_mode or app.out.quiet:
        app.out.value(comparison.as_dict(), text="", short=comparison.summary)
        return
    app.out.line(comparison.summary)
    for title, differences in comparison.sections:
        if differences:
            app.out.line(f"\n{title}{f' ({NOTES[title]})' if title in NOTES else ''}")
            for difference in differences:
                app.out.line(f"  {difference.text}")


def _speeds(record: "VersionRecord") -> list[dict[str, Any]]:
    """One row per measured batch size, from the metrics named `figure@batch`."""
    rows: dict[int, dict[str, Any]] = {}
    for metric in record.metrics:
        figure, at, batch = metric.name.partition("@")
        if at:
            rows.setdefault(int(batch), {"batch_size": int(batch)})[figure] = metric.value
    return list(rows.values())


def tabulate(app: App, versions: "Sequence[Version]", metrics: Sequence[str] = ()) -> None:
    """Lists versions with what was asked; remarks stand in the last column, waivers in full below."""
    # of all at once: one query, however many versions
    remarks = app.registry.remarks([(version.name, version.number) for version in versions])
    rows = [row(app, version, remarks[version.name, version.number], metrics) for version in versions]
    # a JSON row always has every column
    if not app.out.json_mode and not any(version["notes"] for version in rows):
        rows = [{name: value for name, value in version.items() if name != "notes"} for version in rows]
    app.out.rows(rows, id_column="version")
    if not app.out.json_mode:
        for version in versions:
            for waiver in remarks[version.name, version.number].open_waivers:
                app.out.warn(f"{version.reference}: {waiver}")


def rows_of(app: App, versions: "Sequence[Version]", metrics: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Versions as lines of a list; `metrics` are metrics that have columns beside the usual ones."""
    remarks = app.registry.remarks([(version.name, version.number) for version in versions])
    return [row(app, version, remarks[version.name, version.number], metrics) for version in versions]


def row(app: App, version: "Version", remarks: "Remarks", metrics: Sequence[str] = ()) -> dict[str, Any]:
    """A version as a line of a list."""
    from artifacts.registry.remarks import marks  # SQLAlchemy: not for --help

    figures = {
        "version": version.reference,
        "aliases": " ".join(f"@{alias}" for alias in version.aliases),
        "format": version.facts.get("format"),
        "tp": version.facts.get("tp"),
        "pp": version.facts.get("pp"),
        "verdict": version.verdict,
        "perplexity_ratio": version.metric("perplexity_ratio"),
        "kl": version.metric("kl"),
        "top1": version.metric("top1_agreement"),
        "tokens_per_s": version.metric("tokens_per_s"),
        **{name: version.metric(name) for name in metrics if name not in USUAL},
        "MB": (version.metric("size_bytes") or 0.0) / 1e6,
        "notes": marks(version, remarks) or None,
    }
    return {**figures, "origin": version.origin, **remarks.as_dict()} if app.out.json_mode else figures
