"""push, import: versions to and from other systems."""

from typing import Any

import click

from pipeline.cli.app import App


@click.command()
@click.argument("reference", metavar="NAME[@ALIAS|:VERSION]")
@click.argument("target", metavar="TARGET")
@click.option(
    "--part",
    type=click.Choice(["engine", "checkpoint"]),
    help="What to push; default: the quantized checkpoint to hf, the engine to oci and mlflow.",
)
@click.pass_obj
def push(app: App, /, reference: str, target: str, part: Any) -> None:
    """Copy a version to another system: every byte is verified, and it appears there once complete.

    \b
    TARGET is one of
      hf:DIR               a directory in Hugging Face layout, with a model card
      hf://OWNER/NAME      a commit to a repository of a Hugging Face hub
      oci:DIR[:TAG]        a manifest of an OCI image layout, in the CNCF ModelPack format
      mlflow:URL[#MODEL]   a new version of a registered model

    Example: enginery registry push demo/int4_awq_tp2@candidate oci:./layout:v1
    """
    from pipeline.cli.progress import Bar
    from pipeline.exchange import exchange  # httpx, huggingface_hub: not for --help

    with Bar(app.out, f"pushing {reference}") as progress:
        pushed = exchange.push(reference, target, app.client, part, progress)
    app.out.value(
        {"reference": reference, "part": pushed.what, "where": pushed.where, **pushed.facts},
        text=f"pushed the {pushed.what} of {reference} to {pushed.where}"
        # only MLflow says whether it is new; elsewhere it always is
        + ("" if pushed.facts.get("new", True) else ", which has it already"),
        short=pushed.where,
    )


@click.command(name="import")
@click.argument("source", metavar="SOURCE")
@click.argument("name")
@click.pass_obj
def import_(app: App, /, source: str, name: str) -> None:
    """Register an engine or checkpoint built elsewhere as a version of NAME, verdict UNVERIFIED.

    \b
    SOURCE is one of
      DIR                          an engine, a pulled version, or a checkpoint in Hugging Face layout
      hf://OWNER/NAME[@REVISION]   a checkpoint on a Hugging Face hub
      oci:DIR[:TAG]                a manifest of an OCI image layout
      mlflow:URL#MODEL             a version of a registered model

    Example: enginery registry import ./engine-from-elsewhere team/llama
    """
    from pipeline.cli.progress import Bar
    from pipeline.exchange import exchange  # httpx, huggingface_hub: not for --help

    with Bar(app.out, f"importing {source}") as progress:
        adopted = exchange.import_version(source, name, app.client, app.site.host, progress)
    app.announce()
    if adopted.found.code:
        app.out.warn(
            "it contains compiled code, which runs with your permissions; use it only if you trust its origin"
        )
    facts = adopted.found.facts
    app.out.value(
        {
            "name": adopted.name,
            "version": adopted.number,
            "key": adopted.key,
            "kind": adopted.found.kind,
            "verdict": "UNVERIFIED",
            "facts": dict(facts),
        },
        text=f"imported {adopted.found.kind} {adopted.name}:{adopted.number}, UNVERIFIED: "
        f"{facts['backend']}, {facts['format']}, tp {facts['tp']}, pp {facts['pp']}",
        short=f"{adopted.name}:{adopted.number}",
    )
