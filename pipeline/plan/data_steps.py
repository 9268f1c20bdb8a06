"""The steps that bring text into a plan: hub datasets, the calibration set, the check for leakage; pure."""

from collections.abc import Mapping

from calibration.parameters import (
    Blend,
    CalibrationSetParams,
    Draw,
    LeakageParams,
    TextPlaces,
    TextSource,
)
from pipeline.evaluate.gate import GATE_SEED
from pipeline.plan.facts import Facts
from pipeline.step.step import Step
from recipes.calibration import Calibration
from recipes.data import Data
from recipes.schema import Gate


def sources(items: tuple[Data, ...], facts: Facts) -> tuple[list[TextSource], TextPlaces, dict[str, str]]:
    """Sources by digest, where they are, and as inputs (role -> key of a dataset step)."""
    texts, inputs = [], {}
    for number, item in enumerate(items):
        data_facts = facts.data[item]
        if data_facts.hub is None:
            texts.append(data_facts.source)
        else:
            role = f"dataset_{number}"
            texts.append(data_facts.source.model_copy(update={"dataset": role}))
            inputs[role] = dataset(item, facts).key
    files = tuple(facts.data[item].files for item in items)
    return texts, TextPlaces(files=files, model=facts.source.where), inputs


def names(items: tuple[Data, ...], facts: Facts) -> str:
    """The names of the sources in messages."""
    return ", ".join(facts.data[item].what for item in items)


def dataset(item: Data, facts: Facts) -> Step:
    """Data files of a hub dataset at a commit; beside `source`, the only step that has the network."""
    files = facts.data[item].hub
    assert files is not None
    return Step(
        kind="dataset",
        inputs={},
        params=files.params,
        places=files.places,
        what=f"{item.title}, files: {len(files.params.files)}",
        size_bytes=files.size_bytes,
    )


def calibration_set(calibration: Calibration, facts: Facts, source: Step, tools: Mapping[str, str]) -> Step:
    """Token sequences to measure ranges on; its key knows nothing of the gate."""
    data, places, inputs = sources(calibration.data, facts)
    weights, total = tuple(item.weight for item in calibration.data), calibration.total
    return Step(
        kind="calibration_set",
        inputs={"source": source.key, **inputs},
        params=CalibrationSetParams(
            # the recipe's count and date join the source here: `facts` knows nothing of how much is taken
            data=tuple(
                text.drawn(item.samples, calibration.date)
                for text, item in zip(data, calibration.data, strict=True)
            ),
            blend=None
            if total is None
            else Blend(samples=total.samples, tokens=total.tokens, weights=weights),
            seq_len=calibration.seq_len,
            max_sequences=calibration.max_sequences,
            pack=calibration.pack,
            truncate=calibration.truncate,
            seed=calibration.seed,
            tools=tools,
        ),
        places=places,
        what=f"{names(calibration.data, facts)}, {calibration.seq_len} tokens",
    )


def leakage(gate: Gate, facts: Facts, source: Step, tokens: Step) -> Step:
    """Proof that no calibration sample stands in the gate's data, before a GPU is used.

    Where the tokenizer has tokens that the model lacks, also that no row which the gate will draw uses one.
    """
    (data,), places, inputs = sources((gate.data,), facts)
    # only then can a drawn row use a token that the model has no row for
    draws = bool(facts.source.beyond)
    return Step(
        kind="leakage",
        # the tokenizer is read only where rows are drawn
        inputs={"calibration_set": tokens.key, **inputs} | ({"source": source.key} if draws else {}),
        params=LeakageParams(
            gate=data, drawn=Draw(samples=gate.data.samples, seed=GATE_SEED) if draws else None
        ),
        places=places,
        what=f"calibration samples not in {names((gate.data,), facts)}",
    )
