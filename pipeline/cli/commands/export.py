"""export: a published engine as the configuration of a server."""

from pathlib import Path
from pkgutil import iter_modules

import click

from pipeline.cli.app import App
from pipeline.cli.command_parameters import PATH
from pipeline.cli.commands.generate import engine_of

EXPORTERS = Path(__file__).parents[2] / "export" / "exporters"
"""Its files are the targets; they are listed without an import, which would slow `--help` down."""

TARGETS = "|".join(sorted(module.name.replace("_", "-") for module in iter_modules([str(EXPORTERS)])))


@click.command()
@click.argument("reference", metavar="NAME[@ALIAS|:VERSION]")
@click.option("--to", "target", required=True, metavar=TARGETS, help="Server to export to.")
@click.option("--out", type=PATH, help="Directory to make; default: NAME-VERSION-TARGET here.")
@click.option("--root", help="Path that the directory has where it is served; default: where it is written.")
@click.option(
    "--link", "files", flag_value="link", default=True, help="Link engine files to the store (default)."
)
@click.option("--copy", "files", flag_value="copy", help="Copy engine files.")
@click.option(
    "--reference", "files", flag_value="reference", help="Leave engine files in the store, name their path."
)
@click.option(
    "--set", "pairs", multiple=True, metavar="NAME=VALUE", help="A setting of the target; repeatable."
)
@click.pass_obj
def export(  # noqa: PLR0913, PLR0917 what click hands over
    app: App,
    /,
    reference: str,
    target: str,
    out: Path | None,
    root: str | None,
    files: str,
    pairs: tuple[str, ...],
) -> None:
    """Write what a server needs to serve a version: configuration, start script, engine files.

    Example: enginery export llama-3.1-8b/fp8_tp2_h100@prod --to triton --out ./llama --set decoupled=true
    """
    from pipeline.export import exporters  # pydantic and YAML: not for --help
    from pipeline.export.engine_reader import read_deployment
    from pipeline.export.export_settings import parse_settings
    from pipeline.export.export_writer import write_export

    chosen = exporters.exporter(target)
    record = app.client.resolve(reference)
    with engine_of(app, record, [record.engine_key, *record.lineage.values()], "export"):
        deployment = read_deployment(record, app.client.store)
        directory = (out or Path(f"{deployment.slug}-{deployment.number}-{target}")).absolute()
        where = root or (str(directory) if chosen.settings.model_fields["root"].is_required() else None)
        settings = parse_settings(chosen.settings, pairs, files=files, **({"root": where} if where else {}))
        texts, trees = exporters.export(target, deployment, settings)
        names = write_export(directory, texts, trees, settings)
    steps = chosen.next_steps(deployment, settings)
    app.out.value(
        {
            "version": deployment.label,
            "target": target,
            "directory": str(directory),
            "files": names,
            "next": steps,
        },
        text="\n".join(
            [
                f"exported {deployment.label} to {directory}: {len(names)} files",
                *(f"next: {s}" for s in steps),
            ]
        ),
        short=str(directory),
    )
