"""From a recipe and facts to steps with keys; pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline import engines
from pipeline.checkpoint import naming
from pipeline.checkpoint.loadable import stored
from pipeline.checkpoint.rank_layout import LAYOUT_VERSION
from pipeline.checkpoint.slicing import rank_bytes
from pipeline.evaluate import tuning_search
from pipeline.fit import host_bytes
from pipeline.models.shape import ModelShape
from pipeline.plan import data_steps, head_steps, speculation
from pipeline.plan.checkpoint_steps import CheckpointSteps, tools
from pipeline.plan.facts import Facts
from pipeline.plan.request import request
from pipeline.step.step import Step, origins
from pipeline.step.step_parameters import (
    BaselineParams,
    EngineParams,
    EnginePlaces,
    EvaluationParams,
    MeasurementParams,
    ShardedParams,
    TimedHost,
    Timing,
    TunedParams,
    TunedPlaces,
)
from recipes.load import Loaded
from recipes.schema import Engine, Recipe

TOP_K = 64
"""Most likely tokens per position that the baseline keeps for the KL divergence."""

TIMING = Timing(prompt_len=64, new_tokens=32, repeats=3)
"""How an engine is timed, where its limits allow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One point of a search, as steps."""

    point: Mapping[str, Any]
    engine: Step
    measurement: Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything a recipe makes, in order."""

    recipe: Recipe
    file: Path
    steps: tuple[Step, ...]
    trials: tuple[Trial, ...]
    """Points that `tune` builds and measures before the engine step; empty without `tune`."""
    shape: ModelShape

    def step(self, kind: str) -> Step:
        """The target model's step of that kind."""
        return next(step for step in self.steps if step.name == kind)

    @property
    def all_steps(self) -> tuple[Step, ...]:
        """The steps and the trials' steps, in the order they run."""
        cut = next(number for number, step in enumerate(self.steps) if step.kind == "engine")
        trial_steps = [step for trial in self.trials for step in (trial.engine, trial.measurement)]
        return (*self.steps[:cut], *trial_steps, *self.steps[cut:])


def plan(loaded: Loaded, facts: Facts) -> Plan:
    """Orders the steps of one recipe; each key follows from the keys before it."""
    recipe = loaded.recipe
    prepared, checkpoint = _up_to_checkpoint(recipe, facts)
    drafted, draft = _draft_steps(recipe, facts, prepared, checkpoint)
    maker = _Maker(recipe, facts, checkpoint.size_bytes, draft)
    # trials are outside `steps`: with a cached tuned engine none of them runs
    trials = maker.trials(checkpoint)
    engine = maker.tuned_engine(trials) if trials else maker.engine(checkpoint, recipe.engine)
    baseline = maker.baseline(prepared[0])
    steps = (
        *prepared,
        *drafted,
        engine,
        maker.measurement(engine),
        baseline,
        maker.evaluation(engine, baseline),
    )
    # only after all steps are known: an error may name the copy that another step made
    names = origins(steps)
    return Plan(
        recipe=recipe,
        file=loaded.file,
        steps=tuple(step.traced(names) for step in steps),
        trials=tuple(replace(trial, engine=trial.engine.traced(names)) for trial in trials),
        shape=facts.source.shape,
    )


def _up_to_checkpoint(recipe: Recipe, facts: Facts) -> tuple[list[Step], Step]:
    """The steps, source first, up to the checkpoint that the recipe's backend builds from, and that one."""
    backend = engines.backend(recipe.engine.backend)
    sharded = backend.checkpoint == "sharded_checkpoint"
    precision = stored(recipe.precision) if backend.quantizes_at_build else recipe.precision
    weights = sum(rank_bytes(facts.source.shape, precision, 1, 1, recipe.kv_cache))
    first = CheckpointSteps(recipe, facts, weights, precision)
    source = first.source()
    # downloads first: a hub that fails does so before hours of work
    prepared = [source, *first.datasets()]
    checkpoint = measured = source
    # a quantized KV cache alone needs a checkpoint too: it carries the cache's scales
    if precision.quantizes or recipe.kv_cache != "auto":
        if recipe.needs_calibration:
            measuring, measured = first.calibration(source)
            prepared += measuring
        checkpoint = first.quantized_checkpoint(source, measured)
        prepared.append(checkpoint)
    if sharded:
        # the release decides tensor names only, so the key holds the names and not the release
        toolchain = facts.choice.toolchain if backend.uses_toolchain else None
        release = toolchain.version if toolchain else ""
        checkpoint = _sharded_checkpoint(
            recipe,
            checkpoint,
            weights,
            at_build=precision != recipe.precision,
            names=naming.param(facts.source.shape.architecture, release),
        )
        prepared += head_steps.added(recipe, facts, checkpoint)
        checkpoint = prepared[-1]
    return prepared, checkpoint


def _draft_steps(
    recipe: Recipe, facts: Facts, prepared: list[Step], target: Step
) -> tuple[list[Step], Step | None]:
    """The draft model's steps that are not there already, and the one that makes its checkpoint.

    A sharded one also reads the target's checkpoint, to refuse another vocabulary. Heads that do not come
    into rank files are handed on as they are.
    """
    drafting, about = speculation.draft_recipe(recipe, facts), speculation.draft_facts(facts)
    if facts.heads is not None and recipe.speculative is not None and target.kind != "sharded_checkpoint":
        heads = head_steps.source(facts.heads, recipe.speculative.mode)
        return [heads], heads
    if drafting is None or about is None:
        return [], None
    # steps that both models share, datasets for instance, are built once
    prepared_keys = {step.key for step in prepared}
    steps, last = _up_to_checkpoint(drafting, about)
    steps = [
        step
        for step in steps
        # the target's step proves the same of the same data; `last` is added below, perhaps changed
        if step.key not in prepared_keys and step.kind != "leakage" and step is not last
    ]
    if last.kind == "sharded_checkpoint":
        # the key depends on the target too: the same draft beside another model is checked anew
        last = replace(last, inputs={**last.inputs, "target": target.inputs["checkpoint"]})
    draft_steps = [replace(step, role="draft") for step in (*steps, last)]
    return draft_steps, draft_steps[-1]


def _sharded_checkpoint(
    recipe: Recipe, checkpoint: Step, weights: int, *, at_build: bool, names: str | None
) -> Step:
    """One weight file per rank, in TensorRT-LLM layout."""
    engine = recipe.engine
    return Step(
        kind="sharded_checkpoint",
        inputs={"checkpoint": checkpoint.key},
        params=ShardedParams(
            format=recipe.precision,
            kv_cache=recipe.kv_cache,
            tp=engine.tp,
            pp=engine.pp,
            ep=engine.ep,
            layout_version=LAYOUT_VERSION,
            # None, not False: what is None is left out of the key, and older keys stay valid
            at_build=at_build or None,
            names=names,
        ),
        what=f"tp {engine.tp}, pp {engine.pp}" + (f", ep {engine.ep}" if engine.ep > 1 else ""),
        size_bytes=weights,
    )


def sensitivity(loaded: Loaded, facts: Facts) -> tuple[Step, ...]:
    """The steps that measure what each linear's quantization costs, in order; the recipe needs `calibration`.

    The recipe's format is in no key: all formats are measured at once.
    """
    maker = CheckpointSteps(loaded.recipe, facts, 0, loaded.recipe.precision)
    source, read = maker.source(), maker.calibration_datasets()
    tokens = maker.calibration_set(source)
    statistics = maker.statistics(source, tokens)
    steps = (source, *read, tokens, statistics, maker.sensitivity(source, statistics))
    return tuple(step.traced(origins(steps)) for step in steps)


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes the steps from a checkpoint to a judged engine."""

    recipe: Recipe
    facts: Facts
    quantized_bytes: int
    """Size of the weights in the checkpoint."""
    draft: Step | None
    """The step that makes the draft model's checkpoint."""

    def engine(self, checkpoint: Step, engine: Engine) -> Step:
        """The engine for one set of settings."""
        backend, asked_for = engines.backend(engine.backend), request(self.recipe, self.facts, engine)
        weights, draft, speculative = self.quantized_bytes, self.draft, self.recipe.speculative
        weights += draft.size_bytes if draft else 0
        # the twin that is scored in the engine's place has the same weights once more (`engine_parts`)
        twin = self.quantized_bytes if speculative and backend.checkpoint == "sharded_checkpoint" else 0
        return Step(
            kind="engine",
            variant=engine.backend,
            inputs={backend.checkpoint: checkpoint.key} | ({"draft_checkpoint": draft.key} if draft else {}),
            params=EngineParams(
                backend=engine.backend,
                format=self.recipe.precision,
                target=engine.target,
                tp=engine.tp,
                pp=engine.pp,
                ep=engine.ep,
                kv_cache=self.recipe.kv_cache,
                max_batch_size=engine.max_batch_size,
                max_seq_len=engine.max_seq_len,
                # effective values, not the recipe's: a default that changes must change the key
                options=backend.settings(asked_for),
                toolchain=backend.identity(asked_for),
                speculative=head_steps.proposals(speculative) if speculative else None,
            ),
            places=EnginePlaces(toolchain=asked_for.toolchain),
            what=f"{engine.backend}, batch {engine.max_batch_size}, {engine.max_seq_len} tokens"
            + (f", {speculative.mode} of {speculative.max_draft_len}" if speculative else ""),
            size_bytes=weights + twin,
            memory_bytes=host_bytes(asked_for)
            if backend.uses_toolchain
            else weights + cache_bytes(engine, self.facts.source.shape, self.recipe.kv_cache),
        )

    def trials(self, checkpoint: Step) -> tuple[Trial, ...]:
        """Every point of the recipe's search; none without `tune`."""
        search = self.recipe.tune
        if search is None:
            return ()
        trials = []
        for point in tuning_search.points(search.space, search.budget, default=self.recipe.engine):
            settings = tuning_search.apply(self.recipe.engine, point)
            # an ordinary engine step: the same settings without a search have the same key
            engine = self.engine(checkpoint, settings)
            trials.append(
                Trial(
                    point=point,
                    engine=engine,
                    measurement=self.measurement(engine),
                )
            )
        return tuple(trials)

    def tuned_engine(self, trials: tuple[Trial, ...]) -> Step:
        """The best feasible trial's engine, with every trial beside it."""
        search = self.recipe.tune
        assert search is not None
        inputs = {}
        for number, trial in enumerate(trials):
            inputs[f"engine_{number}"] = trial.engine.key
            inputs[f"measurement_{number}"] = trial.measurement.key
        return Step(
            kind="engine",
            variant="tuned",
            inputs=inputs,
            params=TunedParams(
                points=tuple(trial.point for trial in trials),
                objective=search.objective,
                slo=search.slo,
            ),
            places=TunedPlaces(),
            what=f"best of {len(trials)} points by {search.objective}",
            size_bytes=self.quantized_bytes,
        )

    def measurement(self, engine: Step) -> Step:
        """Speed of an engine on this host, within the limits that it turns out to have."""
        host = self.facts.host
        return Step(
            kind="measurement",
            inputs={"engine": engine.key},
            params=MeasurementParams(
                prompt_len=TIMING.prompt_len,
                new_tokens=TIMING.new_tokens,
                repeats=TIMING.repeats,
                # in the key: a time is a property of engine and machine together
                host=TimedHost(cpu=host.cpu, cores=host.cores, gpus=tuple(gpu.name for gpu in host.gpus)),
            ),
            what="batch 1 and the largest",
        )

    def baseline(self, source: Step) -> Step:
        """Scores of the source checkpoint on the gate's data."""
        gate = self.recipe.gate
        (data,), places, inputs = data_steps.sources((gate.data,), self.facts)
        return Step(
            kind="baseline",
            inputs={"source": source.key, **inputs},
            params=BaselineParams(
                data=data.drawn(gate.data.samples, self.recipe.date),
                seq_len=gate.seq_len,
                max_sequences=gate.max_sequences,
                top_k=TOP_K,
                tools=tools(self.facts, "baseline"),
            ),
            places=places,
            what=f"{self.facts.data[gate.data].what}, {gate.max_sequences} x {gate.seq_len} tokens",
            memory_bytes=2 * self.facts.source.weight_bytes,
        )

    def evaluation(self, engine: Step, baseline: Step) -> Step:
        """The built engine against the baseline."""
        return Step(
            kind="evaluation",
            inputs={"engine": engine.key, "baseline": baseline.key},
            params=EvaluationParams(tools=tools(self.facts, "evaluation")),
            what="perplexity, KL, top-1 agreement",
        )


def cache_bytes(engine: Engine, shape: ModelShape, kv_cache: str) -> int:
    """KV cache of all ranks at the engine's limits; key heads are repeated where ranks are more."""
    # bytes of one element: fp8 and int8, the other two settings, have one
    element = 1 if kv_cache != "auto" else 4 if shape.dtype == "float32" else 2
    per_token = 2 * shape.num_layers * max(shape.num_kv_heads, engine.tp) * shape.head_dim * element
    # one position more than a request can fill, as in `aoti.sizes`: padding goes there
    return engine.max_batch_size * (engine.max_seq_len + 1) * per_token
