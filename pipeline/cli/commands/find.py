"""find: what loads here, or on another host; why the others do not; and a recipe for what is missing."""

import gc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from artifacts.finding.needs import INSTALLATION
from pipeline.cli.app import App
from pipeline.cli.command_parameters import COUNT, PATH, refuse_unused
from pipeline.cli.commands.generate import facts_here
from pipeline.cli.commands.show import rows_of, tabulate

if TYPE_CHECKING:
    from artifacts.finding.match import Match
    from artifacts.version import VersionRecord
    from pipeline.advice.suggest import Suggestion

FEW = 8
"""Dropped versions that are listed one by one; more are listed in groups."""

CLOSEST = 3
"""Versions that a recipe is tried to be made from."""

PROGRAMS = (*INSTALLATION, "torch")


def _runtime(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> dict[str, str] | None:
    versions = {}
    for text in texts:
        name, equals, version = text.partition("==")
        if not equals or not version or name not in PROGRAMS:
            raise click.BadParameter(f"{text!r} is no PROGRAM==VERSION; programs are {', '.join(PROGRAMS)}")
        versions[name] = version
    return versions or None


def _slo(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> dict[str, float] | None:
    bounds = {}
    for text in texts:
        name, _equals, bound = text.partition("=")
        try:
            bounds[name] = float(bound)
        except ValueError:
            raise click.BadParameter(f"{text!r} is no METRIC=NUMBER, e.g. ttft_ms_p95=300") from None
    return bounds or None


def _gpu(_: click.Context, __: click.Parameter, text: str | None) -> tuple[str, int | None] | None:
    """`TYPE`, or `NxTYPE`."""
    if text is None:
        return None
    # the part before "x" must be a number: a type may have an "x" in its own name
    count, times, kind = text.partition("x")
    return (kind, int(count)) if times and count.isdigit() and int(count) else (text, None)


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
@click.option("--limit", type=COUNT, help="Versions to show; default: 20, or all with --json or -q.")
@click.option("--any-host", is_flag=True, help="Also versions that were built for other hosts.")
@click.option("--recipe", type=PATH, help="Write the recipe for what is missing here.")
@click.pass_obj
def find(
    app: App, /, rank: str, limit: int | None, any_host: bool, recipe: Path | None, **filters: Any
) -> None:
    """Find versions that load here, or there, best first; say why others do not; make a recipe if none does.

    Example: enginery find --model Llama-3.1-8B-Instruct --gpu 2xh200 --slo ttft_ms_p95=300
    """
    if filters["gpu"] is not None:
        refuse_unused("with --gpu, which compares with that GPU's host instead of this one", "any_host")
    people = not (app.out.json_mode or app.out.quiet)
    query = _build_query(
        app, any_host, {key.rstrip("_"): value for key, value in filters.items() if value is not None}
    )
    from artifacts.finding.match import RANKS  # not for --help

    client = app.client
    gc.freeze()  # what is imported is no garbage: a search of many versions need not look through it
    try:
        matches = client.find(rank=rank, limit=limit or (20 if people else None), **query)
    except ValueError as exc:
        # names in --rank and --slo are known to the search alone
        raise click.UsageError(str(exc)) from None
    suits = [match for match in matches if not match.reasons]
    _show(app, matches, (RANKS[rank][0], *query.get("slo", {})))
    _print_dropped(app, matches)
    if suits and recipe is not None:
        app.out.say(f"{suits[0].record.reference} suits; no recipe is written")
    if not suits:
        _suggest(app, query, matches, recipe)


def _build_query(app: App, any_host: bool, filters: dict[str, Any]) -> dict[str, Any]:
    """What is asked for with what the host offers: this one, or one of which only some is known."""
    from pipeline.process.gpus import TARGETS
    from pipeline.rebuild.compatibility import elsewhere

    kind, count = filters.pop("gpu", (None, None))
    if kind is not None:
        filters["gpu"] = kind
        target = TARGETS.get(kind.lower())
        filters |= {"sm": [target.sm], "memory_bytes": target.memory_bytes} if target else {}
        filters |= {"gpu_count": count} if count else {}
    # neither asks about this host, so that nothing of it is compared
    if any_host or kind is not None:
        return filters
    host_facts = facts_here(app)
    counts = elsewhere(host_facts, filters)
    if "gpus" not in counts:
        app.out.say("GPUs are not compared: this host has none, and --gpu names none")
    return {**filters, **counts}


def _show(app: App, matches: "Sequence[Match]", metrics: Sequence[str]) -> None:
    """A table of what suits, with the metrics asked about; as JSON also what does not, and why."""
    suits = [match.record for match in matches if not match.reasons]
    if not app.out.json_mode:
        tabulate(app, suits, metrics)
        return
    dropped = [match for match in matches if match.reasons]
    app.out.value(
        {
            "suits": rows_of(app, suits, metrics),
            "dropped": [
                {"version": match.record.reference, "reasons": [reason._asdict() for reason in match.reasons]}
                for match in dropped
            ],
        },
        text="",
    )


def _print_dropped(app: App, matches: "Sequence[Match]") -> None:
    """A reason for each of a few, groups of many; a JSON run has them in its answer."""
    from artifacts.finding.match import groups

    dropped = [match for match in matches if match.reasons and not app.out.json_mode]
    if len(dropped) <= FEW:
        for match in dropped:
            app.out.say(f"dropped {match.record.reference}: {'; '.join(match.dropped)}")
        return
    for group in groups(dropped):
        names = [match.record.reference for match in group.matches[:2]]
        more = f" and {len(group.matches) - 2:,} more" if len(group.matches) > 2 else ""
        app.out.say(f"dropped for {', '.join(group.facts)}: {', '.join(names)}{more}")
        for text in group.texts():
            app.out.say(f"  {text}")


def _suggest(app: App, query: Mapping[str, Any], matches: "Sequence[Match]", target: Path | None) -> None:
    """A recipe that lacks nothing, made of a version that lacks little."""
    from artifacts.version import IMPORTED  # with the registry

    file, suggestion = target or Path("recipe.yaml"), None
    for suggestion, judgement in _judged(app, query, matches, file):
        if judgement.usable:
            _write_suggestion(app, suggestion, target)
            app.out.say(judgement.text)
            return
        app.out.say(f"no recipe made of {suggestion.of}: {judgement.text}")
    if suggestion is None and any(match.record.origin == IMPORTED for match in matches):
        app.out.say("no recipe can be made of what was imported; write one with `enginery init`")
    elif suggestion is None:
        app.out.say(_explain_nothing(app, query))


class _Judgement(NamedTuple):
    usable: bool
    text: str


def _judged(
    app: App, query: Mapping[str, Any], matches: "Sequence[Match]", file: Path
) -> "Iterator[tuple[Suggestion, _Judgement]]":
    """Recipes made of the closest versions, each with what speaks against it; other formats come last."""
    from artifacts.finding.match import closest, match
    from artifacts.version import BUILT
    from pipeline.advice.suggest import formats_like, placed, suggest

    built = [
        candidate for candidate in matches if candidate.record.origin == BUILT
    ]  # what is imported has no recipe
    near = [placed(app.registry.resolve(candidate.record.reference)) for candidate in closest(built, CLOSEST)]
    for record in near or _other_records(app, query):
        (judged,) = match([record], query)
        if len(matches) > FEW:
            app.out.say(f"closest: {record.reference}: {'; '.join(judged.dropped)}")
        missed = list(dict.fromkeys(reason.fact for reason in judged.reasons))
        suggestion = suggest(record, missed, query, _siblings(app, record))
        yield suggestion, _judge(app, suggestion, file)
    # only behind all recipes of the same format, and where no format was asked for
    for format_ in formats_like(near[0].recipe) if near and "format" not in query else ():
        (judged,) = match([near[0]], query)
        missed = list(dict.fromkeys(reason.fact for reason in judged.reasons))
        suggestion = suggest(
            near[0], [*missed, "format"], {**query, "format": format_}, _siblings(app, near[0])
        )
        judgement = _judge(app, suggestion, file)
        # other formats are only tries: one that does not plan is not worth a line
        if judgement.usable:
            yield suggestion, judgement


def _judge(app: App, suggestion: "Suggestion", file: Path) -> _Judgement:
    """Whether the recipe plans, where its model and data are files of this host; the hub is not asked."""
    from pipeline.plan.facts import data_items
    from pipeline.plan.planning import draft
    from recipes.errors import RecipeError
    from recipes.load import Loaded

    if suggestion.recipe is None:
        return _Judgement(False, "; ".join(suggestion.open))
    if suggestion.recipe.model.path is None or any(
        item.path is None for _, item in data_items(suggestion.recipe)
    ):
        return _Judgement(True, f"look at it with `enginery plan {file}`")
    try:
        planned = draft(Loaded(suggestion.recipe, file.absolute()), app.site)
    except RecipeError as exc:
        return _Judgement(False, "; ".join(exc.problems))
    lacks = "; ".join(planned.refusals.host)
    return _Judgement(
        True, f"it plans; this host cannot build it: {lacks}" if lacks else "it plans on this host"
    )


def _write_suggestion(app: App, suggestion: "Suggestion", target: Path | None) -> None:
    """Writes the recipe, or prints it where people read it."""
    if target is not None:
        _write(target, suggestion.to_yaml())
    elif not (app.out.json_mode or app.out.quiet):
        app.out.line(suggestion.to_yaml().rstrip())
    where = f"written to {target}" if target else "--recipe FILE writes it"
    app.out.say(f"a recipe that would suit, made of {suggestion.of}; {where}")


def _other_records(app: App, query: Mapping[str, Any]) -> "list[VersionRecord]":
    """Versions of another commit or model, for a recipe that was asked for by REPO@COMMIT."""
    repo, _, commit = query.get("model", "").partition("@")
    if not commit:
        return []
    rest = {key: value for key, value in query.items() if key not in ("name", "model")}
    matches = app.client.find(**rest, model=repo) or app.client.find(**rest)
    return [app.registry.resolve(match.record.reference) for match in matches[:1]]


def _siblings(app: App, record: "VersionRecord") -> "list[VersionRecord]":
    """The newest versions of each name with the same model."""
    # a recipe with a calibration of its own needs none of another version
    if record.recipe.get("calibration") is not None:
        return []
    matches = app.client.find(model=record.model, limit=FEW, rank="accuracy")
    return [app.registry.resolve(match.record.reference) for match in matches[:FEW]]


def _explain_nothing(app: App, query: Mapping[str, Any]) -> str:
    import difflib  # only where nothing was found

    models = app.registry.models()
    if not models:
        return f"nothing is published in {app.store_url}; run a recipe with `enginery run RECIPE`"
    want = str(query.get("model") or query.get("name"))
    near = difflib.get_close_matches(want, models, n=3, cutoff=0.4) or models[:5]
    return f"no version of {want!r} is published; there are versions of {', '.join(near)}"


def _write(target: Path, text: str) -> None:
    try:
        with target.open("x") as out:
            out.write(text)
    except FileExistsError:
        raise click.UsageError(f"{target} exists; give another file") from None
