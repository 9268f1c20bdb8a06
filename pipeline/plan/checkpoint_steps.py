"""The steps of a plan up to the quantized checkpoint; pure."""

from dataclasses import dataclass

from calibration.model.linears import Layout
from calibration.parameters import QuantizedParams, SensitivityParams, StatisticsParams, StatisticsPlaces
from calibration.statistics.budget import batch_size, host_bytes
from pipeline.child.kinds import KINDS
from pipeline.plan import data_steps
from pipeline.plan.calibration_memory import hidden_bytes, layer_sizes, memory_budget, memory_shortage
from pipeline.plan.facts import Facts
from pipeline.step.step import Step
from recipes.data import Data
from recipes.formats import FORMATS
from recipes.precision import Precision
from recipes.schema import Recipe

FLOAT32_COPIES = 6
"""Float32 copies of one linear's weight that measuring its sensitivity holds at once, at most."""


def tools(facts: Facts, kind: str) -> dict[str, str]:
    """Versions that enter a key of the kind; a missing tool is refused by the checks, not here."""
    return {name: facts.host.tools.get(name, "missing") for name in KINDS[kind].tools}


@dataclass(frozen=True, slots=True)
class CheckpointSteps:
    """Makes the steps of one recipe that come before any layout or engine."""

    recipe: Recipe
    facts: Facts
    quantized_bytes: int
    """Size of the weights in the checkpoint's format."""
    precision: Precision
    """The recipe's, or what of it the checkpoint has where the builder does the rest."""

    def source(self) -> Step:
        """The pinned snapshot."""
        facts, model = self.facts.source, self.recipe.model
        title = str(model.path) if model.path else f"{model.repo} @ {str(model.revision)[:12]}"
        return Step(
            kind="source",
            inputs={},
            params=facts.params,
            places=facts.places,
            what=title,
            size_bytes=facts.weight_bytes,
        )

    def datasets(self) -> list[Step]:
        """The hub datasets that the recipe reads, each once."""
        measured = self.calibration_datasets() if self.recipe.needs_calibration else []
        return _once([*measured, *self.hub((self.recipe.gate.data,))])

    def calibration_datasets(self) -> list[Step]:
        """The hub datasets that the calibration set is made of, each once."""
        calibration = self.recipe.calibration
        return _once(self.hub(calibration.data)) if calibration else []

    def hub(self, items: tuple[Data, ...]) -> list[Step]:
        """The steps of those sources that are hub datasets."""
        return [data_steps.dataset(item, self.facts) for item in items if item.repo is not None]

    def calibration_set(self, source: Step) -> Step:
        """Token sequences to measure ranges on."""
        calibration = self.recipe.calibration
        assert calibration is not None
        return data_steps.calibration_set(
            calibration, self.facts, source, tools(self.facts, "calibration_set")
        )

    def calibration(self, source: Step) -> tuple[list[Step], Step]:
        """The steps that measure ranges, and the one that the formats are derived from.

        ModelOpt's own calibration measures while it quantizes: it takes the calibration set itself.
        """
        calibration = self.recipe.calibration
        assert calibration is not None
        tokens = self.calibration_set(source)
        steps = [tokens, data_steps.leakage(self.recipe.gate, self.facts, source, tokens)]
        # no statistics step then: its pass and its quantizing are one child
        if calibration.method == "modelopt":
            return steps, tokens
        statistics = self.statistics(source, tokens)
        return [*steps, statistics], statistics

    def statistics(self, source: Step, tokens: Step) -> Step:
        """What one pass over the calibration set finds out, for every format."""
        calibration = self.recipe.calibration
        assert calibration is not None
        budget = memory_budget(calibration, self.facts.host)
        sizes = layer_sizes(self.facts.source.shape, calibration.seq_len)
        search = calibration.statistics == "all"
        shortage = memory_shortage(calibration, self.facts)  # then the step is shown, and refused
        # batch_size has no answer under a shortage, and the plan must still be printable
        batch = 1 if shortage else batch_size(sizes, calibration.seq_len, budget, search=search)
        return Step(
            kind="statistics",
            inputs={"source": source.key, "calibration_set": tokens.key},
            params=StatisticsParams(
                record=calibration.statistics,
                batch_size=batch,
                device=budget.device,
                tools=tools(self.facts, "statistics"),
            ),
            places=StatisticsPlaces(memory=budget, every_expert=self._every_expert()),
            what=f"{calibration.statistics}, {batch} x {calibration.seq_len} tokens at once",
            size_bytes=hidden_bytes(calibration, self.facts.source.shape),
            memory_bytes=host_bytes(sizes, batch * calibration.seq_len, budget, search=search),
        )

    def _every_expert(self) -> bool:
        """Whether the recipe needs the input ranges of every expert, so that one without ends the pass.

        It decides how early a pass fails, never what it finds, and so is no part of the key.
        """
        shape = self.facts.source.shape
        if shape.experts is None:
            return False
        names = Layout(shape.model_type, shape.num_layers, shape.experts.count)
        return any(self.recipe.precision.of(name).calibrated for stack in names.stacks() for name in stack)

    def sensitivity(self, source: Step, statistics: Step) -> Step:
        """What quantization costs each linear, in every format."""
        calibration, shape = self.recipe.calibration, self.facts.source.shape
        assert calibration is not None
        return Step(
            kind="sensitivity",
            inputs={"source": source.key, "statistics": statistics.key},
            params=SensitivityParams(
                # all formats at once: the key then serves every recipe with these statistics
                formats=tuple(name for name in FORMATS if name != "none"),
                smoothing=calibration.smoothing,
                device=memory_budget(calibration, self.facts.host).device,
                tools=tools(self.facts, "sensitivity"),
            ),
            what=f"{len(FORMATS) - 1} formats",
            memory_bytes=FLOAT32_COPIES * 4 * shape.intermediate_size * shape.hidden_size,
        )

    def quantized_checkpoint(self, source: Step, measured: Step) -> Step:
        """The weights in the recipe's format; `measured` is the source where nothing is calibrated."""
        recipe, calibration = self.recipe, self.recipe.calibration
        variant = "modelopt" if measured.kind == "calibration_set" else ""
        by_alpha = any(fmt.smoothing == "alpha" for fmt in self.precision.formats)
        return Step(
            kind="quantized_checkpoint",
            variant=variant,
            inputs={"source": source.key}
            | ({} if measured is source else {str(measured.kind): measured.key}),
            params=QuantizedParams(
                format=self.precision,
                kv_cache=recipe.kv_cache,
                # in the key only where a format reads it: other formats would be built again for nothing
                smoothing=calibration.smoothing if calibration is not None and by_alpha else None,
                tools=tools(self.facts, f"quantized_checkpoint.{variant}".rstrip(".")),
            ),
            what=f"{self.precision} by ModelOpt's own calibration" if variant else str(self.precision),
            size_bytes=self.quantized_bytes,
            # ModelOpt's calibration loads the whole model with transformers
            memory_bytes=2 * self.facts.source.weight_bytes if variant else 0,
        )


def _once(steps: list[Step]) -> list[Step]:
    # equal keys are one step: the gate may read the dataset that calibration reads
    return list({step.key: step for step in steps}.values())
