"""ls, show, find, pull, verify, promote, generate: for those who use what was published."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.app import App
from pipeline.commands.trust import trust_options, trusted

if TYPE_CHECKING:
    from artifacts.registry import VersionRecord

REFERENCE = click.argument("reference", metavar="NAME[@ALIAS|:VERSION]")

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
    "measured",
)
"""Facts of a version that people see first."""


@click.command()
@click.argument("name", required=False)
@click.pass_obj
def ls(app: App, name: str | None) -> None:
    """List published names, or the versions of NAME.

    Example: enginery ls demo/int4_awq_tp2
    """
    names = [name] if name else app.registry.names()
    records = [record for one in names for record in app.registry.versions(one)]
    app.out.rows([_row(record) for record in records], id_column="version")
    if not records:
        app.out.say(f"nothing is published in {app.store_url}; run a recipe with `enginery run RECIPE`")


@click.command()
@click.argument("reference", metavar="NAME[@ALIAS|:VERSION]|KEY")
@click.pass_obj
def show(app: App, reference: str) -> None:
    """Show one version, or the artifact whose key begins with KEY: coverage, reports, inputs.

    Example: enginery show demo/int4_awq_tp2@candidate
    """
    from pipeline.exhibit import find_key  # numpy: not for --help

    key = find_key(app.site.store, reference)
    if key is None:
        _show_version(app, reference)
    else:
        _show_artifact(app, key)


def _show_artifact(app: App, key: str) -> None:
    """What an artifact is made of and what people see of it."""
    from pipeline.exhibit import exhibit  # with find_key
    from pipeline.output import duration, size

    manifest, root = app.site.store.manifest(key), app.site.store.path(key)
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
    record = app.client.resolve(reference)
    if app.out.json_mode or app.out.quiet:
        app.out.value(record.as_dict(), text="", short=record.engine_key)
        return
    app.out.line(
        f"{record.name}:{record.number}   verdict {record.verdict}   "
        f"published {record.published_at:%Y-%m-%d %H:%M} UTC"
    )
    app.out.line(f"engine {record.engine_key}")
    facts = record.facts
    app.out.line("   ".join(f"{name} {facts[name]}" for name in SHOWN if name in facts))
    wanted = record.recipe["format"]
    if not isinstance(wanted, str):
        exceptions = ", ".join(f"{pattern}: {name}" for pattern, name in wanted["except"].items())
        app.out.line(f"linears {wanted['default']}, except {exceptions}")
    speeds = _speeds(record)
    plain = [m for m in record.metrics if "@" not in m.name and m.name not in speeds[0]]
    app.out.rows(
        [{"metric": m.name, "value": m.value, "low": m.low, "high": m.high} for m in plain],
        id_column="metric",
    )
    app.out.rows(speeds, id_column="batch_size")
    app.out.rows([{"input": kind, "key": key} for kind, key in record.lineage.items()], id_column="key")
    aliases = [f"@{alias} -> :{number}" for alias, number in app.registry.aliases(record.name).items()]
    app.out.line("aliases " + (", ".join(aliases) or "none"))


@click.command()
@click.option("--name", help="Only versions of this name.")
@click.option("--format", "format_", help="Only this quantization format.")
@click.option("--kv-cache", help="Only this type of the KV cache, e.g. float8_e4m3fn.")
@click.option("--backend", help="Only this engine backend.")
@click.option("--tp", type=int, help="Only this tensor-parallel degree.")
@click.option("--pp", type=int, help="Only this pipeline-parallel degree.")
@click.option("--any-host", is_flag=True, help="Also versions that were built for other hosts.")
@click.pass_obj
def find(app: App, /, any_host: bool, **wanted: Any) -> None:
    """Find versions that load here, fastest first; each dropped one with its reason.

    Example: enginery find --format fp8 --tp 2
    """
    asked = {key.rstrip("_"): value for key, value in wanted.items() if value is not None}
    here = {} if any_host else _facts_here(app)
    found = app.client.find(**asked, **here)
    app.out.rows([_row(one.record) for one in found if not one.dropped], id_column="version")
    for one in found:
        if one.dropped:
            app.out.say(f"dropped {one.record.name}:{one.record.number}: {'; '.join(one.dropped)}")


@click.command()
@REFERENCE
@click.argument("directory", type=click.Path(path_type=Path))
@trust_options
@click.pass_obj
def pull(
    app: App, reference: str, directory: Path, trusted_key: tuple[Path, ...], require_signed: bool
) -> None:
    """Copy a version to DIRECTORY, every byte verified on the way.

    Example: enginery pull demo/int4_awq_tp2@candidate ./engine
    """
    from artifacts.match import match  # not for --help

    (found,) = match([app.client.resolve(reference)], _facts_here(app))
    app.client.trusted_keys = trusted(trusted_key, require_signed)
    path = app.client.pull(reference, directory)
    if found.dropped:
        app.out.warn(f"this host cannot load {reference}: {'; '.join(found.dropped)}")
    app.out.value(
        {"directory": str(path)},
        text=f"pulled {reference} to {path}; run it: enginery generate {path} 'def '",
        short=str(path),
    )


@click.command()
@REFERENCE
@trust_options
@click.pass_obj
def verify(app: App, reference: str, trusted_key: tuple[Path, ...], require_signed: bool) -> None:
    """Hash every file of a version, or of a pulled directory, again.

    Example: enginery verify ./engine
    """
    from artifacts.errors import ArtifactCorrupt  # pydantic: not for --help

    where: str | Path = Path(reference) if Path(reference).is_dir() else reference
    problems = app.client.verify(where)
    if problems:
        raise ArtifactCorrupt("\n".join([f"{reference} is not as published:", *(f"  {p}" for p in problems)]))
    keys = trusted(trusted_key, require_signed)
    signed = () if keys is None else app.client.require_trusted(where, keys)
    by = f", and signed by {', '.join(key[:16] for key in signed)}" if signed else ""
    app.out.value(
        {"reference": reference, "problems": [], "signed_by": list(signed)},
        text=f"{reference}: every file is as published{by}",
        short=reference,
    )


@click.command()
@REFERENCE
@click.argument("alias")
@click.option("--expect", type=int, help="Version the alias must point at now; default: what it is found at.")
@click.option("--new", is_flag=True, help="The alias must not exist yet.")
@click.pass_obj
def promote(app: App, reference: str, alias: str, expect: int | None, new: bool) -> None:
    """Point ALIAS at a version, unless somebody moved it first.

    Example: enginery promote demo/int4_awq_tp2:3 prod --expect 2
    """
    record = app.client.resolve(reference)
    found = app.registry.aliases(record.name).get(alias)
    expected = None if new else expect if expect is not None else found
    app.registry.promote(record.name, alias, to=record.number, expect=expected)
    app.announce()
    app.out.value(
        {"name": record.name, "alias": alias, "version": record.number, "was": found},
        text=f"{record.name}@{alias} is version {record.number}" + (f" (was {found})" if found else ""),
        short=f"{record.name}:{record.number}",
    )


@click.command()
@REFERENCE
@click.argument("prompt")
@click.option("-n", "--max-new-tokens", type=click.IntRange(min=1), default=64, show_default=True)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="0 takes the likeliest token.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--chat", is_flag=True, help="Send PROMPT as a user message through the chat template.")
@click.pass_obj
def generate(app: App, /, reference: str, prompt: str, **options: Any) -> None:
    """Let a published engine, or a pulled directory, continue PROMPT.

    Example: enginery generate demo/int4_awq_tp2@candidate "def main("
    """
    generate_text(app, reference, prompt, **options)


def generate_text(app: App, reference: str, prompt: str, **options: Any) -> None:
    """Streams the continuation to stdout, and its speed to stderr."""
    from pipeline import serving  # starts child processes

    chosen = serving.Options(**options)
    directory = Path(reference) if Path(reference).is_dir() else _engine_of(app, reference)
    serving.require_engine(directory)
    app.out.stream("" if chosen.chat else prompt)
    result = serving.generate(directory, prompt, app.out.stream, chosen)
    app.out.stream("\n")
    if app.out.json_mode:
        app.out.value(result, text="")
    app.out.say(
        f"{result['new_tokens']} tokens, {result['tokens_per_s']:.1f} tokens/s, "
        f"first after {result['ttft_ms']:.0f} ms"
    )


def _facts_here(app: App) -> dict[str, Any]:
    """What this host and its TensorRT-LLM installations offer to an engine."""
    from pipeline.commands.care import toolchains_of  # probes the host
    from pipeline.compatibility import facts_here

    return facts_here(app.site.host, toolchains_of(app))


def _engine_of(app: App, reference: str) -> Path:
    """The engine's directory in the store, after a check of every file that may have changed."""
    from artifacts.errors import ArtifactCorrupt  # pydantic: not for --help

    record = app.client.resolve(reference)
    store = app.site.store
    store.manifest(record.engine_key)
    if not store.intact(record.engine_key):
        problems = store.verify(record.engine_key)
        raise ArtifactCorrupt(
            "\n".join([f"{reference} is damaged in the store; run its recipe again", *problems])
        )
    return store.path(record.engine_key)


def _speeds(record: "VersionRecord") -> list[dict[str, Any]]:
    """One row per measured batch size, from the metrics named `figure@batch`."""
    rows: dict[int, dict[str, Any]] = {}
    for metric in record.metrics:
        figure, at, batch = metric.name.partition("@")
        if at:
            rows.setdefault(int(batch), {"batch_size": int(batch)})[figure] = metric.value
    return list(rows.values()) or [{}]


def _row(record: "VersionRecord") -> dict[str, Any]:
    return {
        "version": f"{record.name}:{record.number}",
        "aliases": " ".join(f"@{alias}" for alias in record.aliases),
        "format": record.facts["format"],
        "tp": record.facts["tp"],
        "pp": record.facts["pp"],
        "verdict": record.verdict,
        "perplexity_ratio": record.metric("perplexity_ratio"),
        "kl": record.metric("kl"),
        "top1": record.metric("top1_agreement"),
        "tokens_per_s": record.metric("tokens_per_s"),
        "MB": (record.metric("size_bytes") or 0.0) / 1e6,
    }
