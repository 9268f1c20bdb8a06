"""A rule of `enginery lint`: what it returns, and how rules read a recipe; pure."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.models.shape import ModelShape
from pipeline.process.gpus import TARGETS
from recipes.formats import E4M3
from recipes.schema import Recipe

OFF = (None, False, "disable", "auto")
"""Values of an option that leave it off, or to us."""

DEFAULT_NUM_TOKENS = 8192
"""`max_num_tokens` of both TensorRT-LLM backends where the recipe gives none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One thing worth changing, or worth a trial."""

    id: str
    text: str
    effect: str
    """What was measured elsewhere, with its figures, or that nothing was."""
    source: str
    change: str
    """The line of the recipe, or the command, that takes the advice."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


Rule = Callable[[Recipe, ModelShape], Advice | None]
"""Its advice on a recipe for a model of that shape; None where the recipe needs none."""


def option(recipe: Recipe, dotted: str) -> Any:
    """A backend's option, nested ones by dots; None where the recipe does not give it."""
    value: Any = recipe.engine.options
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def on(recipe: Recipe, dotted: str) -> bool:
    """Whether the recipe turns an option on itself."""
    return option(recipe, dotted) not in OFF


def off(recipe: Recipe, dotted: str) -> bool:
    """Whether the recipe turns an option off itself."""
    return option(recipe, dotted) in (False, "disable")


def fp8(recipe: Recipe) -> bool:
    """Whether every linear computes in FP8 with one scale per tensor."""
    return all(fmt.name == "fp8" for fmt in recipe.precision.formats)


def eight_bit(recipe: Recipe) -> bool:
    """Whether every linear's inputs are FP8, in any format."""
    return all(fmt.activation == E4M3 for fmt in recipe.precision.formats)


def sm(recipe: Recipe) -> int:
    """Compute capability times ten of the target; 0 where the recipe names no GPU type."""
    target = TARGETS.get(recipe.engine.target)
    return target.sm if target else 0


def latency(recipe: Recipe) -> bool:
    """Whether answers are to be early rather than many."""
    return recipe.traffic is not None and recipe.traffic.goal == "latency"


def num_tokens(recipe: Recipe) -> int:
    """Tokens of one pass: the recipe's, else the default."""
    tokens = option(recipe, "max_num_tokens")
    return tokens if isinstance(tokens, int) else DEFAULT_NUM_TOKENS  # `auto` is a word


def longest_prompt(recipe: Recipe) -> int:
    """Tokens of the longest prompt; without `traffic`, one that leaves a token for the answer."""
    traffic, most = recipe.traffic, recipe.engine.max_seq_len
    if traffic is None:
        return most - 1
    # Prompts may be longer than usual as long as a usual answer fits behind them.
    return traffic.max_input_tokens or max(traffic.input_tokens, most - traffic.output_tokens)


def searched(recipe: Recipe, setting: str) -> bool:
    """Whether the recipe's search tries values of a setting."""
    return recipe.tune is not None and setting in recipe.tune.space
