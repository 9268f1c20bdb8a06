"""How the engines of a recipe fit the GPU type that they are for; pure."""

from collections.abc import Iterable, Iterator

from pipeline.engines import backend
from pipeline.fit import predict
from pipeline.fit.result import Fit
from pipeline.plan.facts import Facts
from pipeline.plan.request import request
from pipeline.process.gpus import TARGETS
from recipes.schema import Engine, Recipe


def predicted(recipe: Recipe, facts: Facts, engine: Engine) -> Fit | None:
    """How an engine without problems of its own fits; None where the recipe names no GPU type."""
    target = TARGETS.get(engine.target)
    if target is None or not backend(engine.backend).on_gpu:
        return None
    return predict(request(recipe, facts, engine), target)


def misfits(recipe: Recipe, facts: Facts, engines: Iterable[Engine]) -> Iterator[str]:
    """Engines that their GPUs cannot build, load, or serve one request with; each with what to change."""
    for engine in engines:
        fit = predicted(recipe, facts, engine)
        if fit is not None and fit.verdict == "impossible":
            limits = (
                f"batch {engine.max_batch_size}, {engine.max_seq_len} tokens, tp {engine.tp}, pp {engine.pp}"
            )
            change = f"cheapest change: {fit.fix}" if fit.fix else "no one change helps: use more GPUs"
            yield f"engine: does not fit {engine.target} ({limits}): {fit.reason}; {change}"
