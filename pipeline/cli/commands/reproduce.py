"""trust reproduce: builds a published version again and compares it."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.app import App
from pipeline.cli.command_parameters import PathType

if TYPE_CHECKING:
    from artifacts.version import VersionRecord
    from pipeline.rebuild.reproduction import Reproduction, Stage

SAID = {
    "identical": "every byte of the engine is as published, but for caches and timings",
    "equivalent": "the weights are as published; only compiled code, or what describes it, is different",
    "different": "the rebuild has other weights, or a file that servers or readers use is different",
}


REKEYED = (
    "enginery 0.1 published it, and keys are computed differently since: the same parameters have other keys"
)


@click.command()
@click.argument("reference", metavar="NAME[@ALIAS|:VERSION]")
@click.option(
    "--base",
    type=PathType(exists=True, file_okay=False),
    help="Where relative paths of its recipe start; default: where its file was, if that is here.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Fail unless every byte of the engine is as published, but for caches and timings.",
)
@click.pass_obj
def reproduce(app: App, /, reference: str, base: Path | None, strict: bool) -> None:
    """Build a version again in a temporary store, and compare it file by file.

    The rebuild is deleted. Exit 1 if weights differ, or an engine file that servers and readers use:
    config.json, the tokenizer. Compiled code and reports may differ.

    Example: enginery trust reproduce demo/int4_awq_tp2:1 --base recipes/demo
    """
    from pipeline.errors import NotReproduced  # pydantic: not for --help

    record = app.client.resolve(reference)
    reproduction = _rebuilt(app, record, (base or _folder(record)).absolute())
    _print_reproduction(app, reproduction)
    if reproduction.outcome == "different" or (strict and reproduction.outcome != "identical"):
        raise NotReproduced(
            f"{reproduction.reference}: {SAID[reproduction.outcome]}; the table says where it begins"
        )


def _folder(record: "VersionRecord") -> Path:
    """Where the recipe's file was when it was published, if this host has that place; otherwise here."""
    file = record.source.get("file")
    return Path(file).parent if file and Path(file).parent.is_dir() else Path()


def _rebuilt(app: App, record: "VersionRecord", base: Path) -> "Reproduction":
    from artifacts.store.local import LocalStore  # builds: not for --help
    from pipeline.cli.progress import Display
    from pipeline.errors import ExchangeRefused
    from pipeline.exchange.pushed_content import working_beside
    from pipeline.plan.planning import plan_one
    from pipeline.rebuild import reproduction as again

    loaded, published = again.recipe_of(record, base), app.site.store
    app.client.require_own_store()
    # refuses an engine that is not the published one, before hours of building
    app.client.manifest(record)
    lease = published.reading(
        [record.engine_key, *record.lineage.values()], f"the rebuild of {record.reference}"
    )
    with lease, working_beside(published.root / "reproduce") as scratch:
        # an empty store: nothing that was published is found there
        site = replace(app.site, store=LocalStore(scratch))
        plan = plan_one(loaded, site)
        # another model or other data would differ in every file, after hours
        if changed := again.changed_sources(record, plan):
            raise ExchangeRefused(
                f"{record.reference} was built from another {changed[0]} than {base} leads to; "
                "put that one there, or give its place with --base"
            )
        with Display(app.out) as display:
            again.rebuild(plan, site, display)
        return again.compare(record, plan, published, site.store)


def _print_reproduction(app: App, reproduction: "Reproduction") -> None:
    if app.out.json_mode:
        app.out.value(reproduction.as_dict(), text="")
        return
    app.out.rows([_row(stage) for stage in reproduction.stages], id_column="key")
    if any(stage.rekeyed for stage in reproduction.stages):
        app.out.line(REKEYED)
    for stage in reproduction.stages:
        for text in stage.asked:
            app.out.line(f"{stage.kind}: {text}")
        for difference in stage.differences:
            app.out.line(f"{stage.kind}/{difference.name}: {difference.what}\n  {difference.why}")
    app.out.line(f"{reproduction.reference}: {reproduction.outcome}: {SAID[reproduction.outcome]}")


def _row(stage: "Stage") -> dict[str, object]:
    compared = "gone from the store" if stage.missing else f"{stage.identical} files"
    return {
        "step": stage.kind,
        "key": stage.key[:12],
        "asked": _parameters_cell(stage),
        "identical": compared,
        "different": len(stage.differences),
    }


def _parameters_cell(stage: "Stage") -> str:
    if stage.rekeyed and not stage.asked:
        return "the same parameters"
    return "the same" if stage.key == stage.was else "otherwise"
