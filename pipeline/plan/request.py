"""From a recipe and facts to what is asked of an engine backend; pure."""

from pipeline.backend.build_request import BuildRequest
from pipeline.plan.facts import Facts
from recipes.schema import Engine, Recipe


def request(recipe: Recipe, facts: Facts, engine: Engine) -> BuildRequest:
    """What the recipe asks of its backend with these settings."""
    return BuildRequest(
        engine=engine,
        shape=facts.source.shape,
        precision=recipe.precision,
        kv_cache=recipe.kv_cache,
        host=facts.host,
        traffic=recipe.traffic,
        speculative=recipe.speculative,
        draft=facts.draft.shape if facts.draft else None,
        heads_bytes=facts.heads.weight_bytes if facts.heads else 0,
        choice=facts.choice,
    )
