"""Every reason, known before the first second of work, why a recipe cannot be built; pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from calibration.data.blend import shares
from calibration.model.linears import Layout
from calibration.quantize.assignment import idle_exceptions
from pipeline import engines
from pipeline.checkpoint import layout_checks as checkpoint_checks
from pipeline.child.kinds import KINDS
from pipeline.errors import BackendUnavailable
from pipeline.evaluate import tuning_search
from pipeline.evaluate.gate import MIN_SAMPLES
from pipeline.models.shape import ModelShape
from pipeline.plan import speculation
from pipeline.plan.calibration_memory import memory_shortage
from pipeline.plan.facts import Facts, Source
from pipeline.plan.recipe_fit import misfits
from pipeline.plan.request import request
from pipeline.process.gpus import TARGETS
from pipeline.step.step import Step
from recipes.errors import RecipeError
from recipes.load import Loaded
from recipes.regular import shortened
from recipes.schema import Engine, Recipe

SHOWN = 5
"""Tokens that a note lists."""

MIN_SEQ_LEN = 4
"""A prompt token or two, and two new ones to take a time between."""

DISK_MARGIN_BYTES = 256 << 20
"""Room for logs, compiled code and tokenizers above the weights."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """Why not: what the recipe's author can change, and what this host lacks."""

    recipe: tuple[str, ...]
    host: tuple[str, ...]

    def require_none(self, loaded: Loaded) -> None:
        """Raises RecipeError for the recipe's problems, else BackendUnavailable for the host's."""
        if self.recipe:
            raise RecipeError(loaded.file, [f"{loaded.recipe.name}: {problem}" for problem in self.recipe])
        if self.host:
            raise BackendUnavailable(
                "\n".join(
                    [
                        f"this host cannot build {loaded.recipe.name}",
                        *(f"  {problem}" for problem in self.host),
                    ]
                )
            )


def refusals(recipe: Recipe, facts: Facts) -> Refusals:
    """Every reason against the recipe in itself and against building it here."""
    shape, engine = facts.source.shape, recipe.engine
    problems = (
        *_tensors(facts),
        *_lengths(recipe, facts),
        *_blend(recipe, facts),
        *_memory(recipe, facts, declared=True),
        *_target(recipe),
        *idle_exceptions(recipe.precision, _layout(shape)),
        *_method(recipe, shape),
        *checkpoint_checks.reasons(shape, recipe.precision, engine.tp, engine.pp, engine.ep),
        *speculation.reasons(recipe, facts),
        *_settings(recipe, facts),
    )
    # whether it fits is computed only for a recipe that is sound otherwise
    unfit = () if problems else misfits(recipe, facts, engine_candidates(recipe))
    return Refusals(
        recipe=problems,
        host=(
            *_source(facts),
            *unfit,
            *_backend(recipe, facts),
            *_tools(recipe, facts),
            *_memory(recipe, facts, declared=False),
        ),
    )


def measuring(recipe: Recipe, facts: Facts) -> Refusals:
    """Every reason against measuring on the calibration set here."""
    return Refusals(
        recipe=(
            *_tensors(facts),
            *_lengths(recipe, facts),
            *_blend(recipe, facts),
            *_caps(recipe, facts, declared=True),
        ),
        host=(*_source(facts), *_tools(recipe, facts), *_caps(recipe, facts, declared=False)),
    )


def notes(facts: Facts) -> Iterator[str]:
    """What of the models is cast or not read, and what may be in the way later, depending on the data."""
    for place, source in models(facts).items():
        yield from (f"{place}: {note}" for note in source.notes)
        if source.beyond:
            tokens = ", ".join(f"{text} = {number}" for text, number in list(source.beyond.items())[:SHOWN])
            more = len(source.beyond) - SHOWN
            yield (
                f"{place}: the model has {source.shape.vocab_size} tokens, its tokenizer gives higher ids to "
                f"{tokens}{f', {more} more' if more > 0 else ''}; rows that use them are refused"
            )


def warnings(recipe: Recipe) -> tuple[str, ...]:
    """What may be meant as it is, and is worth a look before it is built."""
    calibration = recipe.calibration
    if calibration is None or not recipe.needs_calibration:
        return ()
    # of a search, the longest: one point that outruns calibration is enough to warn
    longest = max(engine.max_seq_len for engine in engine_candidates(recipe))
    if calibration.seq_len >= longest:
        return ()
    return (
        f"calibration.seq_len: ranges are measured on {calibration.seq_len} tokens, the engine will serve up "
        f"to {longest}; later positions are not measured",
    )


def engine_candidates(recipe: Recipe) -> list[Engine]:
    """The engine settings that the recipe may build: one, or every point of its search."""
    if recipe.tune is None:
        return [recipe.engine]
    points = tuning_search.points(recipe.tune.space, recipe.tune.budget, default=recipe.engine)
    return [tuning_search.apply(recipe.engine, point) for point in points]


def capacity(steps: tuple[Step, ...], facts: Facts) -> tuple[str, ...]:
    """Why the steps that are still to be built do not fit this host's disk or memory."""
    problems = []
    needed = sum(step.size_bytes for step in steps) + (DISK_MARGIN_BYTES if steps else 0)
    if needed > facts.free_bytes:
        problems.append(
            f"disk: the steps to build need about {needed / 1e9:.1f} GB; the store has "
            f"{facts.free_bytes / 1e9:.1f} GB free; free {(needed - facts.free_bytes) / 1e9:.1f} GB more "
            "there (`enginery store gc --dry-run` shows what can go), or choose another --store"
        )
    # the largest, not the sum: steps run one after another
    hungriest = max(steps, key=lambda step: step.memory_bytes, default=None)
    if hungriest is not None and hungriest.memory_bytes > facts.host.memory_bytes:
        problems.append(
            f"memory: {hungriest.kind} needs about {hungriest.memory_bytes / 1e9:.1f} GB; "
            f"this host has {facts.host.memory_bytes / 1e9:.1f} GB"
        )
    return tuple(problems)


def _lengths(recipe: Recipe, facts: Facts) -> Iterator[str]:
    shape, gate, calibration = facts.source.shape, recipe.gate, recipe.calibration
    if gate.max_sequences != "all" and gate.max_sequences < MIN_SAMPLES:
        yield (
            f"gate.max_sequences: {gate.max_sequences} samples can never decide; give at least {MIN_SAMPLES}"
        )
    if calibration is not None and calibration.seq_len > shape.max_position_embeddings:
        yield (
            f"calibration.seq_len: {calibration.seq_len} is more than the model's "
            f"{shape.max_position_embeddings} positions"
        )


def _blend(recipe: Recipe, facts: Facts) -> Iterator[str]:
    """Sources that are too small for their share of the rows, where that is known already."""
    calibration = recipe.calibration
    if calibration is None or calibration.total is None or calibration.total.samples is None:
        return
    total = calibration.total.samples
    # the same rounding as the step that draws the rows, or the two would disagree
    sizes = shares(total, [item.weight for item in calibration.data])
    for number, (item, size) in enumerate(zip(calibration.data, sizes, strict=True)):
        rows, place = facts.data[item].rows, f"calibration.data.{number}: {item.title}"
        if size == 0:
            yield f"{place}: its share of {total} samples is less than one; raise the total or its weight"
        # not counted yet: then the step that draws refuses it
        elif rows is not None and rows < size:
            yield f"{place} has {rows} rows; its share is {size}: add rows, or lower the total or its weight"


def _memory(recipe: Recipe, facts: Facts, *, declared: bool) -> Iterator[str]:
    """Reasons against the caps where the recipe's statistics are recorded within them."""
    calibration = recipe.calibration
    if calibration is not None and recipe.needs_calibration and calibration.method == "one_pass":
        yield from _caps(recipe, facts, declared=declared)


def _caps(recipe: Recipe, facts: Facts, *, declared: bool) -> Iterator[str]:
    """Why not even one sequence can be calibrated within the caps that are the recipe's, or the host's."""
    calibration = recipe.calibration
    if calibration is None:
        return
    shortage = memory_shortage(calibration, facts)
    if shortage is None:
        return
    caps = {"host": calibration.memory.host_gb, "gpu": calibration.memory.gpu_gb}
    # the same shortage blames the recipe if it set the cap, else the host: never both
    if declared == (caps[shortage.kind] is not None):
        yield f"calibration.memory: {shortage}"


def _engine_lengths(engine: Engine, recipe: Recipe, shape: ModelShape) -> Iterator[str]:
    if engine.max_seq_len > shape.max_position_embeddings:
        yield (
            f"engine.max_seq_len: {engine.max_seq_len} is more than the model's "
            f"{shape.max_position_embeddings} positions; choose at most {shape.max_position_embeddings}"
        )
    if recipe.gate.seq_len > engine.max_seq_len:
        yield (
            f"gate.seq_len: {recipe.gate.seq_len} does not fit engine.max_seq_len {engine.max_seq_len}; "
            "lower the one or raise the other"
        )
    if engine.max_seq_len < MIN_SEQ_LEN:
        yield f"engine.max_seq_len: {engine.max_seq_len} is too short to measure; give at least {MIN_SEQ_LEN}"


def _target(recipe: Recipe) -> Iterator[str]:
    target = recipe.engine.target
    # of a mixed precision, the format that asks for the newest GPU
    fmt = max(recipe.precision.formats, key=lambda fmt: fmt.min_sm)
    if target == "host":
        return
    if target not in TARGETS:
        yield f"engine.target: unknown target {target!r}; have host, {', '.join(TARGETS)}"
    elif TARGETS[target].sm < fmt.min_sm:
        able = [name for name, gpu in TARGETS.items() if gpu.sm >= fmt.min_sm]
        yield (
            f"format: {fmt.name} needs sm_{fmt.min_sm}; {target} is sm_{TARGETS[target].sm}; "
            f"choose a target of {', '.join(able)}, or another format"
        )


def _layout(shape: ModelShape) -> Layout:
    return Layout(shape.model_type, shape.num_layers, shape.experts.count if shape.experts else 0)


def _method(recipe: Recipe, shape: ModelShape) -> Iterator[str]:
    names = [fmt.name for fmt in recipe.precision.formats if fmt.weight != "source"]
    if recipe.calibration is None or recipe.calibration.method != "modelopt":
        return
    if shape.experts is not None:
        yield (
            "calibration.method: ModelOpt's own calibration would see experts as transformers fuses them, "
            "without a name or range for each; use one_pass"
        )
    if len(names) > 1:
        yield (
            f"calibration.method: ModelOpt's own calibration knows one format at a time, not "
            f"{', '.join(names)}; use one_pass"
        )


def _settings(recipe: Recipe, facts: Facts) -> Iterator[str]:
    """Reasons against the engine settings, or against any point of their search."""
    try:
        candidates = engine_candidates(recipe)
    except ValueError as exc:
        yield f"tune.space: {exc}"
        return
    problems = [
        reason for engine in candidates for reason in _engine_lengths(engine, recipe, facts.source.shape)
    ]
    backend = engines.backend(recipe.engine.backend)
    for engine in candidates:
        wanted = request(recipe, facts, engine)
        # reasons rest on options that are valid; of invalid ones only the mistake is told
        problems += _options(engine, backend.options(wanted)) or backend.reasons(wanted)
    yield from dict.fromkeys(problems)


def _options(engine: Engine, model: type[BaseModel]) -> list[str]:
    """What is wrong with a backend's own options; names are listed where one is unknown."""
    try:
        model.model_validate(engine.options)
    except ValidationError as exc:
        names = f" (allowed: {', '.join(model.model_fields)})"
        return [
            f"engine.options.{'.'.join(str(part) for part in error['loc'])}: {error['msg']}, "
            f"found {shortened(repr(error['input']))}{names if error['type'] == 'extra_forbidden' else ''}"
            for error in exc.errors(include_url=False)
        ]
    return []


def _source(facts: Facts) -> Iterator[str]:
    """What of the models is not here."""
    for place, source in models(facts).items():
        if reason := source.lacking or source.missing:
            yield f"{place}.path: {reason}"


def _tensors(facts: Facts) -> Iterator[str]:
    """Where a model's weights and its config.json disagree."""
    for place, source in models(facts).items():
        yield from (f"{place}: {problem}" for problem in source.problems)


def models(facts: Facts) -> dict[str, Source]:
    """The models that a recipe names, by the field that names them."""
    draft = {} if facts.draft is None else {"speculative.draft": facts.draft}
    return {"model": facts.source, **draft}


def _backend(recipe: Recipe, facts: Facts) -> Iterator[str]:
    reason = engines.backend(recipe.engine.backend).missing(request(recipe, facts, recipe.engine))
    if reason is not None:
        yield reason


def _tools(recipe: Recipe, facts: Facts) -> Iterator[str]:
    """Every tool that a key names; ModelOpt only where a checkpoint is quantized or its KV cache is."""
    needed = {name for maker in KINDS.values() for name in maker.tools}
    if not recipe.precision.quantizes and recipe.kv_cache == "auto":
        # it enters no key of such a recipe, so its absence is no reason
        needed -= {"nvidia-modelopt"}
    for name in sorted(needed - facts.host.tools.keys()):
        yield f"{name} is not installed; install Enginery's requirements"
