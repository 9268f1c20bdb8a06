"""The tuning checklist as advice on a recipe; each rule is a pure function and fires or does not."""

from pipeline import engines
from pipeline.advice.lint import evidence
from pipeline.backend.lint_rule import Advice, Rule
from pipeline.models.shape import ModelShape
from recipes.schema import Recipe

OF_EVERY_BACKEND: tuple[Rule, ...] = (
    evidence.calibration_length,
    evidence.gate_length,
    evidence.gate_size,
)
"""Rules on what the accuracy is judged by."""


def rule_names() -> list[str]:
    """Names of all rules, those of every backend first."""
    rules = [rule for name in engines.names() for rule in engines.backend(name).advice]
    return list(dict.fromkeys(rule.__name__ for rule in (*OF_EVERY_BACKEND, *rules)))


def lint(recipe: Recipe, shape: ModelShape) -> list[Advice]:
    """Everything worth changing, or worth a trial; what gains most first."""
    # The backend's rules gain speed; those on evidence keep the gate honest, and come last.
    rules = (*engines.backend(recipe.engine.backend).advice, *OF_EVERY_BACKEND)
    return [advice for rule in rules if (advice := rule(recipe, shape)) is not None]
