"""What makes a version that version: what was built, and what it was judged by. Pure."""

from collections.abc import Mapping
from typing import Any

from artifacts import digest

UNJUDGED = frozenset({"name", "publish", "schedule", "version"})
"""Fields of a recipe that change neither what is built nor what is asked of it."""


def identity(
    engine_key: str,
    content: str | None,
    verdict: str,
    recipe: Mapping[str, Any],
    lineage: Mapping[str, str],
) -> str:
    """Digest of engine key, digest of its manifest, verdict and what gave the verdict.

    `content` is None of versions published under schema 1, whose contents nobody knows.
    """
    return digest.of_json([engine_key, content, verdict, judged_by(recipe, lineage)])


def judged_by(recipe: Mapping[str, Any], lineage: Mapping[str, str]) -> dict[str, Any]:
    """What a verdict depends on beside the engine.

    The keys of the engine and of its evaluation hash all that a recipe says of what is built and scored,
    files by their bytes and not by their paths; only the gate's limits are in no key. Where nothing was
    evaluated, what counts is what the recipe says.
    """
    evaluation = lineage.get("evaluation")
    if evaluation is None:
        return {"recipe": {name: value for name, value in recipe.items() if name not in UNJUDGED}}
    gate = recipe.get("gate")
    limits = (
        {name: value for name, value in gate.items() if name != "data"} if isinstance(gate, Mapping) else {}
    )
    return {"evaluation": evaluation, "gate": limits}
