"""The steps that bring text into a plan: hub datasets, the calibration set, the check for leakage; pure."""

from collections.abc import Mapping
from typing import Any

from pipeline.evaluate.gate import GATE_SEED
from pipeline.plan.facts import Facts
from pipeline.step.step import Step
from recipes.calibration import Calibration
from recipes.data import Data
from recipes.schema import Gate


def sources(
    items: tuple[Data, ...], facts: Facts
) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, str]]:
    """Sources as params (by digest), as places (by path), and as inputs (role -> key of a dataset step)."""
    params, files, inputs = [], [], {}
    for number, item in enumerate(items):
        found = facts.data[item]
        one = {**found.params, "samples": item.samples}
        if found.hub is not None:
            role = f"dataset_{number}"
            one["dataset"], inputs[role] = role, dataset(item, facts).key
        params.append(one)
        files.append(list(found.files))
    return params, {"files": files}, inputs


def names(items: tuple[Data, ...], facts: Facts) -> str:
    """The sources as people call them."""
    return ", ".join(facts.data[item].what for item in items)


def dataset(item: Data, facts: Facts) -> Step:
    """Data files of a hub dataset at a commit; beside `source`, the only step that has the network."""
    found = facts.data[item].hub
    assert found is not None
    return Step(
        kind="dataset",
        inputs={},
        params=found.params,
        places=found.places,
        what=f"{item.title}, files: {len(found.params['files'])}",
        size_bytes=found.size_bytes,
    )


def calibration_set(calibration: Calibration, facts: Facts, source: Step, tools: Mapping[str, str]) -> Step:
    """Token sequences to measure ranges on; its key knows nothing of the gate."""
    data, places, inputs = sources(calibration.data, facts)
    params: dict[str, Any] = {
        "data": [{**one, "date": calibration.date} for one in data],
        "seq_len": calibration.seq_len,
        "max_sequences": calibration.max_sequences,
        "pack": calibration.pack,
        "truncate": calibration.truncate,
        "seed": calibration.seed,
        "tools": tools,
    }
    if calibration.total is not None:
        weights = [item.weight for item in calibration.data]
        params["blend"] = {**calibration.total.model_dump(exclude_none=True), "weights": weights}
    return Step(
        kind="calibration_set",
        inputs={"source": source.key, **inputs},
        params=params,
        places={**places, "model": facts.source.where},
        what=f"{names(calibration.data, facts)}, {calibration.seq_len} tokens",
    )


def leakage(gate: Gate, facts: Facts, source: Step, tokens: Step) -> Step:
    """Proof that no calibration sample stands in the gate's data, before a GPU is used.

    Where the tokenizer has tokens that the model lacks, also that no row which the gate will draw uses one.
    """
    (data,), places, inputs = sources((gate.data,), facts)
    params: dict[str, Any] = {"gate": {name: value for name, value in data.items() if name != "samples"}}
    if facts.source.beyond:
        inputs["source"] = source.key
        params["drawn"] = {"samples": data["samples"], "seed": GATE_SEED}
    return Step(
        kind="leakage",
        inputs={"calibration_set": tokens.key, **inputs},
        params=params,
        places={**places, "model": facts.source.where},
        what=f"calibration samples not in {names((gate.data,), facts)}",
    )
