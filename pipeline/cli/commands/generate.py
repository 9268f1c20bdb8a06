"""generate: text from a published engine; and the facts of this host that decide what loads."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.app import App
from pipeline.cli.command_parameters import COUNT, MOST, Finite
from recipes.regular import is_directory

if TYPE_CHECKING:
    from artifacts.version import VersionRecord

REFERENCE = click.argument("reference", metavar="NAME[@ALIAS|:VERSION]")


def _text(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """The prompt, unless it came as bytes that are not UTF-8."""
    try:
        # argv holds undecodable bytes as surrogates, which are no text for a tokenizer
        value.encode()
    except UnicodeEncodeError:
        raise click.BadParameter("is not UTF-8; give text") from None
    return value


@click.command()
@REFERENCE
@click.argument("prompt", callback=_text)
@click.option(
    "-n",
    "--max-new-tokens",
    type=COUNT,
    default=64,
    show_default=True,
    help="Most tokens to generate.",
)
@click.option(
    "--temperature",
    type=Finite(0, MOST),
    default=0.0,
    show_default=True,
    help="Sampling temperature; 0 takes the likeliest token.",
)
@click.option(
    "--seed",
    type=click.IntRange(-(1 << 63), (1 << 63) - 1),
    default=0,
    show_default=True,
    help="Seed of the sampling, where --temperature is above 0.",
)
@click.option("--chat", is_flag=True, help="Send PROMPT as a user message through the chat template.")
@click.option(
    "--date",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Date for chat templates that print it; default: today.",
)
@click.pass_obj
def generate(app: App, /, reference: str, prompt: str, **options: Any) -> None:
    """Continue PROMPT with a published engine or a pulled directory.

    Example: enginery generate demo/int4_awq_tp2@candidate "def main("
    """
    generate_text(app, reference, prompt, **options)


def generate_text(app: App, reference: str, prompt: str, **options: Any) -> None:
    """Streams the continuation to stdout, and its speed to stderr."""
    from pipeline.evaluate import serving  # starts child processes

    if (day := options.pop("date", None)) is not None:
        options["date"] = day.date().isoformat()
    chosen = serving.Options(**options)
    with _engine_of(app, reference) as directory:
        serving.require_engine(directory)
        # a chat template wraps the prompt, so that the answer does not continue it
        app.out.stream("" if chosen.chat else prompt)
        result = serving.generate(directory, prompt, app.out.stream, chosen)
        app.out.stream("\n")
    if app.out.json_mode:
        app.out.value(result, text="")
    app.out.say(
        f"{result['new_tokens']} tokens, {result['tokens_per_s']:.1f} tokens/s, "
        f"first after {result['ttft_ms']:.0f} ms"
        + (f"; the chat template's date is {result['date']}" if result["date"] else "")
    )


def facts_here(app: App) -> dict[str, Any]:
    """What this host and its TensorRT-LLM installations offer to an engine."""
    from pipeline.cli.commands.doctor import toolchains_of  # probes the host
    from pipeline.rebuild import compatibility

    return compatibility.facts_here(app.site.host, toolchains_of(app))


@contextmanager
def _engine_of(app: App, reference: str) -> Iterator[Path]:
    """The engine's directory, every file that may have changed checked; kept from sweeps in the block."""
    if is_directory(reference):
        require_pulled(reference)
        yield Path(reference)
        return
    record = app.client.resolve(reference)
    with engine_of(app, record, [record.engine_key], "use") as directory:
        yield directory


@contextmanager
def engine_of(app: App, record: "VersionRecord", keys: Iterable[str], use: str) -> Iterator[Path]:
    """A version's engine in the store, whole; the artifacts of `keys` stay while the block runs."""
    from pipeline.cli.progress import Bar  # rich: not for --help

    app.client.require_own_store()
    with app.client.store.reading(keys, f"the {use} of {record.reference}"):
        # the manifest must be the published one before its files are read
        app.client.manifest(record)
        with Bar(app.out, f"fetch {record.reference}") as progress:
            directory = app.client.store.require(record.address, record.reference, progress)
        yield directory


def require_pulled(reference: str) -> None:
    """Refuses a directory that `verify` would refuse; reads only what may have changed since it last was."""
    from artifacts.digest import FileDigests  # not for --help
    from artifacts.manifest import VERSION
    from artifacts.pull.pulled import require_published, verify_pulled
    from artifacts.store.opening import caches
    from pipeline.evaluate.serving import require_engine

    if not Path(reference, VERSION).is_file():
        require_engine(Path(reference))  # which says more of a directory that never was one
    remembered = FileDigests(caches(os.environ) / "digests.db")
    require_published(reference, verify_pulled(Path(reference), digests=remembered.digests))
