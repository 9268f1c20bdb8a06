"""The identity of a version: what was built, and what it was judged by. Pure."""

from collections.abc import Mapping
from typing import Any

from artifacts import digest

UNJUDGED = frozenset({"name", "publish", "schedule", "version"})
"""Recipe fields that affect neither the build nor the verdict."""


def identity(
    engine_key: str,
    content: str | None,
    verdict: str,
    recipe: Mapping[str, Any],
    lineage: Mapping[str, str],
) -> str:
    """Digest of engine key, manifest digest, verdict and the basis of the verdict.

    `content` is None for versions published under schema 1, which did not record it.
    """
    return digest.of_json([engine_key, content, verdict, judged_by(recipe, lineage)])


def judged_by(recipe: Mapping[str, Any], lineage: Mapping[str, str]) -> dict[str, Any]:
    """What a verdict depends on in addition to the engine.

    The keys of engine and evaluation cover everything in a recipe that affects building and scoring, with
    files by their bytes instead of their paths; only the gate's limits are in no key. Without an evaluation,
    the recipe itself counts.
    """
    evaluation = lineage.get("evaluation")
    # Nothing was scored, so that no key covers what the recipe wanted.
    if evaluation is None:
        return {"recipe": {name: value for name, value in recipe.items() if name not in UNJUDGED}}
    gate = recipe.get("gate")
    limits = (
        {name: value for name, value in gate.items() if name != "data"} if isinstance(gate, Mapping) else {}
    )
    return {"evaluation": evaluation, "gate": limits}
