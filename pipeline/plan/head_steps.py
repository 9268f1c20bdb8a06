"""The steps that bring heads into a sharded checkpoint; pure."""

from dataclasses import replace

from pipeline.checkpoint.rank_place import SOURCE_TYPES
from pipeline.drafting import eagle
from pipeline.drafting.heads import Heads
from pipeline.models.shape import ModelShape
from pipeline.plan.facts import Facts
from pipeline.step.step import Step
from pipeline.step.step_parameters import Proposals
from pipeline.weights.tensors import item_bytes
from recipes.schema import Recipe, Speculative


def added(recipe: Recipe, facts: Facts, checkpoint: Step) -> list[Step]:
    """The sharded checkpoint, after the own copy of its heads where the recipe has any."""
    if facts.heads is None or recipe.speculative is None:
        return [checkpoint]
    mode = recipe.speculative.mode
    heads = source(facts.heads, mode)
    both = replace(
        checkpoint,
        # heads change the rank files, so the checkpoint with heads has a key of its own
        inputs={**checkpoint.inputs, "heads": heads.key},
        params=checkpoint.params.model_copy(update={"speculative": proposals(recipe.speculative)}),
        what=f"{checkpoint.what}, with {mode} heads",
        size_bytes=checkpoint.size_bytes + _written(facts.heads, facts.source.shape, recipe.speculative),
    )
    return [heads, both]


def proposals(speculative: Speculative) -> Proposals:
    """What of speculative decoding enters keys, beside the checkpoint of what proposes."""
    return Proposals(mode=speculative.mode, max_draft_len=speculative.max_draft_len)


def source(heads: Heads, mode: str) -> Step:
    """The own copy of the heads."""
    return Step(
        kind="source",
        variant="heads",
        inputs={},
        params=heads.params,
        places=heads.places,
        what=f"{mode} heads in {heads.places.path}",
        size_bytes=heads.weight_bytes,
        role="heads",
    )


def _written(heads: Heads, shape: ModelShape, speculative: Speculative) -> int:
    """Bytes of the heads in the rank files; EAGLE's net is there once per level, with the model's head."""
    if speculative.mode != "eagle":
        return heads.weight_bytes
    table = shape.vocab_size * shape.hidden_size * item_bytes(SOURCE_TYPES[shape.dtype])
    # each level carries the model's output table as well
    return eagle.depth(eagle.tree(speculative.max_draft_len)) * (heads.weight_bytes + table)
