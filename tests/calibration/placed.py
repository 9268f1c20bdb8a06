"""Puts a statistics artifact into a store, recorded the obvious way, where the real pass is not wanted."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from pipeline.plan.planning import plan_sensitivity
from pipeline.step.realize import Listener, Site, realize
from recipes.load import load
from tests.calibration.recorded import record


def place_statistics(recipe: Path, site: Site) -> None:
    """Makes the source and the calibration set of a recipe, and records its statistics."""
    (loaded,) = load(recipe)
    source, tokens, statistics, _ = plan_sensitivity(loaded, site)
    for step in (source, tokens):
        realize(step, site, Listener())
    model = AutoModelForCausalLM.from_pretrained(site.store.path(source.key), dtype=torch.bfloat16)
    tokens_ST = load_file(site.store.path(tokens.key) / "tokens.safetensors")["tokens"]
    with site.store.write(statistics.key, kind="statistics", step=statistics.as_dict(), host={}) as draft:
        record(model, tokens_ST, draft.path, batch_size=4)
