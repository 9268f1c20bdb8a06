"""find: what loads here, or on another host; why the others do not; and a recipe for what is missing."""

import gc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from artifacts.finding.needs import INSTALLATION
from pipeline.cli.app import App
from pipeline.cli.commands.generate import facts_here
from pipeline.cli.commands.show import rows_of, tabulate
from pipeline.cli.parameter_types import COUNT, PATH
from pipeline.cli.unused_options import refuse_unused

if TYPE_CHECKING:
    from artifacts.finding.match import Match
    from artifacts.version import VersionRecord
    from pipeline.advice.suggest import Suggestion

FEW = 8
"""Dropped versions that are told one by one; more are told in groups."""

CLOSEST = 3
"""Versions that a recipe is tried to be made from."""

PROGRAMS = (*INSTALLATION, "torch")


def _runtime(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, str] | None:
    found = {}
    for text in given:
        name, equals, version = text.partition("==")
        if not equals or not version or name not in PROGRAMS:
            raise click.BadParameter(f"{text!r} is no PROGRAM==VERSION; programs are {', '.join(PROGRAMS)}")
        found[name] = version
    return found or None


def _slo(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, float] | None:
    found = {}
    for text in given:
        name, _equals, bound = text.partition("=")
        try:
            found[name] = float(bound)
        except ValueError:
            raise click.BadParameter(f"{text!r} is no METRIC=NUMBER, e.g. ttft_ms_p95=300") from None
    return found or None


def _gpu(_: click.Context, __: click.Parameter, given: str | None) -> tuple[str, int | None] | None:
    """`TYPE`, or `NxTYPE`."""
    if given is None:
        return None
    count, times, kind = given.partition("x")
    return (kind, int(count)) if times and count.isdigit() and int(count) else (given, None)


@click.command()
@click.option("--name", help="Only versions of this name.")
@click.option("--model", help="Only of this source checkpoint: repository, its last part, or directory.")
@click.option("--format", "format_", help="Only this quantization format.")
@click.option("--kv-cache", help="Only this type of the KV cache, e.g. float8_e4m3fn.")
@click.option("--backend", help="Only this engine backend.")
@click.option("--tp", type=COUNT, help="Only this tensor-parallel degree.")
@click.option("--pp", type=COUNT, help="Only this pipeline-parallel degree.")
@click.option("--max-batch-size", type=COUNT, help="At least this many requests at once.")
@click.option("--max-seq-len", type=COUNT, help="At least this many tokens per request.")
@click.option("--gpu", callback=_gpu, help="For a host with this GPU instead of here: h200, or 2xh200.")
@click.option("--driver", help="For a host with this driver instead of here, e.g. 570.86.10.")
@click.option("--runtime", multiple=True, callback=_runtime, help="For this program: tensorrt_llm==1.2.1.")
@click.option("--slo", multiple=True, callback=_slo, help="Measured within this, e.g. ttft_ms_p95=300.")
@click.option(
    "--rank", default="speed", show_default=True, help="speed, per_user, first_token, accuracy, size."
)
@click.option("--limit", type=COUNT, help="Versions to show; default: 20 to people.")
@click.option("--any-host", is_flag=True, help="Also versions that were built for other hosts.")
@click.option("--recipe", type=PATH, help="Write the recipe for what is missing here.")
@click.pass_obj
def find(
    app: App, /, rank: str, limit: int | None, any_host: bool, recipe: Path | None, **wanted: Any
) -> None:
    """Find versions that load here, or there, best first; say why others do not; make a recipe if none does.

    Example: enginery find --model Llama-3.1-8B-Instruct --gpu 2xh200 --slo ttft_ms_p95=300
    """
    if wanted["gpu"] is not None:
        refuse_unused("with --gpu, which compares with that GPU's host instead of this one", "any_host")
    people = not (app.out.json_mode or app.out.quiet)
    asked = _asked(
        app, any_host, {key.rstrip("_"): value for key, value in wanted.items() if value is not None}
    )
    from artifacts.finding.match import RANKS  # not for --help

    client = app.client
    gc.freeze()  # what is imported is no garbage: a search of many versions need not look through it
    try:
        found = client.find(rank=rank, limit=limit or (20 if people else None), **asked)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None
    suits = [one for one in found if not one.reasons]
    _show(app, found, (RANKS[rank][0], *asked.get("slo", {})))
    _say_dropped(app, found)
    if suits and recipe is not None:
        app.out.say(f"{suits[0].record.reference} suits; no recipe is written")
    if not suits:
        _suggest(app, asked, found, recipe)


def _asked(app: App, any_host: bool, wanted: dict[str, Any]) -> dict[str, Any]:
    """What is asked for with what the host offers: this one, or one of which only some is known."""
    from pipeline.process.gpus import TARGETS
    from pipeline.rebuild.compatibility import elsewhere

    kind, count = wanted.pop("gpu", (None, None))
    if kind is not None:
        wanted["gpu"] = kind
        known = TARGETS.get(kind.lower())
        wanted |= {"sm": [known.sm], "memory_bytes": known.memory_bytes} if known else {}
        wanted |= {"gpu_count": count} if count else {}
    if any_host or kind is not None:
        return wanted
    here = facts_here(app)
    counts = elsewhere(here, wanted)
    if "gpus" not in counts:
        app.out.say("GPUs are not compared: this host has none, and --gpu names none")
    return {**wanted, **counts}


def _show(app: App, found: "Sequence[Match]", asked: Sequence[str]) -> None:
    """A table of what suits, with the metrics asked about; as JSON also what does not, and why."""
    suits = [one.record for one in found if not one.reasons]
    if not app.out.json_mode:
        tabulate(app, suits, asked)
        return
    dropped = [one for one in found if one.reasons]
    app.out.value(
        {
            "suits": rows_of(app, suits, asked),
            "dropped": [
                {"version": one.record.reference, "reasons": [reason._asdict() for reason in one.reasons]}
                for one in dropped
            ],
        },
        text="",
    )


def _say_dropped(app: App, found: "Sequence[Match]") -> None:
    """A reason for each of a few, groups of many; a JSON run has them in its answer."""
    from artifacts.finding.match import groups

    dropped = [one for one in found if one.reasons and not app.out.json_mode]
    if len(dropped) <= FEW:
        for one in dropped:
            app.out.say(f"dropped {one.record.reference}: {'; '.join(one.dropped)}")
        return
    for group in groups(dropped):
        names = [one.record.reference for one in group.matches[:2]]
        more = f" and {len(group.matches) - 2:,} more" if len(group.matches) > 2 else ""
        app.out.say(f"dropped for {', '.join(group.facts)}: {', '.join(names)}{more}")
        for text in group.texts():
            app.out.say(f"  {text}")


def _suggest(app: App, asked: Mapping[str, Any], found: "Sequence[Match]", target: Path | None) -> None:
    """A recipe that lacks nothing, made of a version that lacks little."""
    from artifacts.version import IMPORTED  # with the registry

    file, made = target or Path("recipe.yaml"), None
    for made, judgement in _judged(app, asked, found, file):
        if judgement.usable:
            _give(app, made, target)
            app.out.say(judgement.text)
            return
        app.out.say(f"no recipe made of {made.of}: {judgement.text}")
    if made is None and any(one.record.origin == IMPORTED for one in found):
        app.out.say("no recipe can be made of what was imported; write one with `enginery init`")
    elif made is None:
        app.out.say(_nothing(app, asked))


class _Judgement(NamedTuple):
    usable: bool
    text: str


def _judged(
    app: App, asked: Mapping[str, Any], found: "Sequence[Match]", file: Path
) -> "Iterator[tuple[Suggestion, _Judgement]]":
    """Recipes made of the closest versions, each with what speaks against it; other formats come last."""
    from artifacts.finding.match import closest, match
    from artifacts.version import BUILT
    from pipeline.advice.suggest import formats_like, placed, suggest

    built = [one for one in found if one.record.origin == BUILT]  # what is imported has no recipe
    near = [placed(app.registry.resolve(one.record.reference)) for one in closest(built, CLOSEST)]
    for record in near or _others(app, asked):
        (judged,) = match([record], asked)
        if len(found) > FEW:
            app.out.say(f"closest: {record.reference}: {'; '.join(judged.dropped)}")
        missed = list(dict.fromkeys(reason.fact for reason in judged.reasons))
        made = suggest(record, missed, asked, _siblings(app, record))
        yield made, _judge(app, made, file)
    for format_ in formats_like(near[0].recipe) if near and "format" not in asked else ():
        (judged,) = match([near[0]], asked)
        missed = list(dict.fromkeys(reason.fact for reason in judged.reasons))
        made = suggest(near[0], [*missed, "format"], {**asked, "format": format_}, _siblings(app, near[0]))
        judgement = _judge(app, made, file)
        if judgement.usable:
            yield made, judgement


def _judge(app: App, made: "Suggestion", file: Path) -> _Judgement:
    """Whether the recipe plans, where its model and data are files of this host; the hub is not asked."""
    from pipeline.plan.facts import data_items
    from pipeline.plan.planning import draft
    from recipes.errors import RecipeError
    from recipes.load import Loaded

    if made.recipe is None:
        return _Judgement(False, "; ".join(made.open))
    if made.recipe.model.path is None or any(item.path is None for _, item in data_items(made.recipe)):
        return _Judgement(True, f"look at it with `enginery plan {file}`")
    try:
        planned = draft(Loaded(made.recipe, file.absolute()), app.site)
    except RecipeError as exc:
        return _Judgement(False, "; ".join(exc.problems))
    lacks = "; ".join(planned.refusals.host)
    return _Judgement(
        True, f"it plans; this host cannot build it: {lacks}" if lacks else "it plans on this host"
    )


def _give(app: App, made: "Suggestion", target: Path | None) -> None:
    """Writes the recipe, or prints it where people read it."""
    if target is not None:
        _write(target, made.to_yaml())
    elif not (app.out.json_mode or app.out.quiet):
        app.out.line(made.to_yaml().rstrip())
    where = f"written to {target}" if target else "--recipe FILE writes it"
    app.out.say(f"a recipe that would suit, made of {made.of}; {where}")


def _others(app: App, asked: Mapping[str, Any]) -> "list[VersionRecord]":
    """Versions of another commit or model, for a recipe that was asked for by REPO@COMMIT."""
    repo, _, commit = asked.get("model", "").partition("@")
    if not commit:
        return []
    rest = {key: value for key, value in asked.items() if key not in ("name", "model")}
    found = app.client.find(**rest, model=repo) or app.client.find(**rest)
    return [app.registry.resolve(one.record.reference) for one in found[:1]]


def _siblings(app: App, record: "VersionRecord") -> "list[VersionRecord]":
    """The newest versions of each name with the same model."""
    if record.recipe.get("calibration") is not None:
        return []
    found = app.client.find(model=record.model, limit=FEW, rank="accuracy")
    return [app.registry.resolve(one.record.reference) for one in found[:FEW]]


def _nothing(app: App, asked: Mapping[str, Any]) -> str:
    import difflib  # only where nothing was found

    models = app.registry.models()
    if not models:
        return f"nothing is published in {app.store_url}; run a recipe with `enginery run RECIPE`"
    want = str(asked.get("model") or asked.get("name"))
    near = difflib.get_close_matches(want, models, n=3, cutoff=0.4) or models[:5]
    return f"no version of {want!r} is published; there are versions of {', '.join(near)}"


def _write(target: Path, text: str) -> None:
    try:
        with target.open("x") as out:
            out.write(text)
    except FileExistsError:
        raise click.UsageError(f"{target} exists; give another file") from None
