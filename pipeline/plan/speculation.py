"""Why a recipe's speculative decoding cannot be built, as far as it is known before the first byte; pure.

A draft model is a second model of the same recipe: its own source and format, the target's tp and pp. It
calibrates on the recipe's data, and its KV cache stays in its own dtype.
"""

from collections.abc import Iterator
from dataclasses import replace

from pipeline import engines
from pipeline.backend.draft_net import DraftNet
from pipeline.checkpoint import medusa_heads
from pipeline.checkpoint.layout_checks import reasons as layout_reasons
from pipeline.drafting.modes import BUILT, WITH_DRAFT, WITH_HEADS
from pipeline.errors import SourceError
from pipeline.plan.facts import Facts, Source
from pipeline.plan.request import request
from recipes.formats import FORMATS
from recipes.precision import Precision
from recipes.schema import Recipe, Speculative


def draft_recipe(recipe: Recipe, facts: Facts) -> Recipe | None:
    """The recipe as if its draft model were all there is; None without one."""
    speculative = recipe.speculative
    if speculative is None or speculative.draft is None or facts.draft is None:
        return None
    changed = {
        "model": speculative.draft,
        "engine": recipe.engine.model_copy(update={"ep": _ep(recipe, facts.draft)}),
        "format": speculative.draft_format,
        "kv_cache": "auto",
        "speculative": None,
        "tune": None,
    }
    return recipe.model_copy(update=changed)


def draft_facts(facts: Facts) -> Facts | None:
    """The facts with the draft model in the source's place; None without one."""
    # draft=None as well, or the draft's own plan would plan a draft
    return None if facts.draft is None else replace(facts, source=facts.draft, draft=None)


def _ep(recipe: Recipe, draft: Source) -> int:
    """The target's where the draft has experts too."""
    return recipe.engine.ep if draft.shape.experts is not None else 1


def reasons(recipe: Recipe, facts: Facts) -> list[str]:
    """Lists why not, each with the recipe field to change; empty without speculative decoding."""
    speculative = recipe.speculative
    if speculative is None:
        return []
    return [
        *_mode(speculative),
        *_length(recipe, speculative),
        *_data(recipe, speculative),
        *_pair(recipe, facts),
        *_heads(recipe, facts),
    ]


def _mode(speculative: Speculative) -> Iterator[str]:
    if speculative.mode not in BUILT:
        yield (
            f"speculative.mode: the heads of {speculative.mode!r} are not converted by this version; "
            f"choose one of {', '.join(BUILT)}"
        )
    elif speculative.mode == WITH_DRAFT and speculative.draft is None:
        yield f"speculative.draft: {WITH_DRAFT} needs a smaller model; add 'draft: {{path: ...}}'"
    elif speculative.mode in WITH_HEADS and speculative.draft is None:
        yield f"speculative.draft: {speculative.mode} needs heads of the model; add 'draft: {{path: ...}}'"
    elif speculative.mode not in (WITH_DRAFT, *WITH_HEADS) and speculative.draft is not None:
        yield f"speculative.draft: {speculative.mode} proposes tokens by itself; leave draft out"
    # a separate if: this can be wrong whatever is said of `draft` above
    if speculative.mode in WITH_HEADS and speculative.draft_format != "none":
        yield (
            f"speculative.draft_format: {speculative.draft_format!r} is for a draft model; heads stay in "
            "their own type, leave it out"
        )
    elif speculative.draft is None and speculative.draft_format != "none":
        yield (
            f"speculative.draft_format: {speculative.draft_format!r} is for a draft model, and there is none"
        )


def _length(recipe: Recipe, speculative: Speculative) -> Iterator[str]:
    if speculative.max_draft_len >= recipe.engine.max_seq_len:
        yield (
            f"speculative.max_draft_len: {speculative.max_draft_len} leaves nothing of engine.max_seq_len "
            f"{recipe.engine.max_seq_len}; give less than that, usually 3 to 10"
        )


def _data(recipe: Recipe, speculative: Speculative) -> Iterator[str]:
    fmt = FORMATS[speculative.draft_format]
    if fmt.calibrated and recipe.calibration is None:
        yield (
            f"speculative.draft_format: {fmt.name!r} has calibrated scales; add 'calibration', or choose one "
            f"of {', '.join(name for name, known in FORMATS.items() if not known.calibrated)}"
        )
    elif (
        recipe.calibration is not None and recipe.calibration.statistics == "ranges" and fmt.needs == "search"
    ):
        yield (
            f"calibration.statistics: 'ranges' is not enough for speculative.draft_format {fmt.name!r}; "
            "use 'all'"
        )


def _pair(recipe: Recipe, facts: Facts) -> Iterator[str]:
    """What keeps the two models from working together; every rank holds a part of both."""
    draft, target, speculative = facts.draft, facts.source, recipe.speculative
    if draft is None or speculative is None:
        return
    if draft.shape.vocab_size != target.shape.vocab_size:
        yield (
            f"speculative.draft: its vocabulary has {draft.shape.vocab_size} tokens, the model's "
            f"{target.shape.vocab_size}; choose a draft of the same family"
        )
    # empty for a hub commit, whose tokenizer is not here: the sharded step refuses it then
    elif draft.vocabulary and target.vocabulary and draft.vocabulary != target.vocabulary:
        yield (
            "speculative.draft: its tokenizer gives ids to other tokens than the model's; "
            "choose a draft of the same family"
        )
    if draft.weight_bytes >= target.weight_bytes:
        yield (
            f"speculative.draft: {draft.weight_bytes / 1e9:.1f} GB are no less than the model's "
            f"{target.weight_bytes / 1e9:.1f} GB; a draft must be much smaller to save time"
        )
    if draft.shape.max_position_embeddings < recipe.engine.max_seq_len:
        yield (
            f"speculative.draft: it knows {draft.shape.max_position_embeddings} positions, "
            f"engine.max_seq_len is {recipe.engine.max_seq_len}; choose another draft or a shorter length"
        )
    engine, precision = recipe.engine, Precision.parse(speculative.draft_format)
    for reason in layout_reasons(draft.shape, precision, engine.tp, engine.pp, _ep(recipe, draft)):
        yield f"speculative.draft: {reason}"


def _heads(recipe: Recipe, facts: Facts) -> Iterator[str]:
    """What keeps heads from working beside the model."""
    speculative, engine = recipe.speculative, recipe.engine
    if facts.heads is None or speculative is None:
        return
    shape, heads_facts, backend = facts.source.shape, facts.heads, engines.backend(engine.backend)
    try:
        if speculative.mode == "medusa":
            heads = medusa_heads.read(heads_facts.tensors)
            yield from medusa_heads.reasons(heads, shape, speculative.max_draft_len, engine.tp, engine.pp)
        else:
            net = DraftNet(
                config=heads_facts.config, tensors=heads_facts.tensors, path=str(heads_facts.places.path)
            )
            yield from backend.eagle_reasons(net, request(recipe, facts, engine))
    except SourceError as exc:
        yield f"speculative.draft: {heads_facts.places.path}: {exc}"
