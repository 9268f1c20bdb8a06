"""Step evaluation: the built engine against the source checkpoint on the same tokens; in a child process."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from pipeline.backend.loaded_engine import LoadedEngine
from pipeline.evaluate.divergence import Baseline, Candidate, records, tail_mass
from pipeline.evaluate.gate import CONFIDENCE, Record, estimates
from pipeline.evaluate.load_engine import runner_of
from pipeline.process.meter import Progress
from pipeline.step.judged import build_of
from pipeline.step.step_parameters import EvaluationJob
from pipeline.trtllm.proof import prove


def build(job: EvaluationJob, progress: Progress) -> None:
    """Writes scores.json (every metric with its interval) and samples.jsonl (one record per sequence)."""
    directory, baseline = job.inputs["engine"], job.inputs["baseline"]
    about = json.loads((directory / "engine.json").read_text())
    # before the engine is loaded: a damaged baseline fails at once
    begin = json.loads((baseline / "scores.json").read_text())["sequences_begin_with"]
    with runner_of(directory).load(directory) as engine:
        facts = {"sequences_begin_with": begin, **proven_twin(engine, about), **build_of(directory)}
        evaluate(engine, baseline, job.out, progress, facts=facts)


def proven_twin(engine: LoadedEngine, about: Mapping[str, Any]) -> dict[str, Any]:
    """Which other engine gives the scores, and the proof that it knows the same; empty where there is none.

    BuildFailed where the engine that is served generates other tokens than its twin scores as likely.
    """
    if not about.get("scored"):
        return {}
    return {"scored": about["scored"], "proof": prove(engine, about["vocab_size"], about["max_seq_len"])}


def evaluate(
    engine: LoadedEngine,
    baseline_dir: Path,
    out: Path,
    progress: Progress,
    *,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Scores the baseline's tokens and writes what the gate reads; values that are not finite are kept.

    `facts` go into scores.json beside the metrics.
    """
    tokens = load_file(baseline_dir / "tokens.safetensors")["tokens"]
    baseline = Baseline(**load_file(baseline_dir / "records.safetensors"))
    sample_records = records(baseline, score(engine, tokens, baseline.top_ids, progress))
    # NaN goes into samples.jsonl as it is: the gate has to see it to fail.
    lines = (
        json.dumps({"sequence": number, **asdict(record)}) for number, record in enumerate(sample_records)
    )
    (out / "samples.jsonl").write_text("".join(line + "\n" for line in lines))
    document = {**scores(sample_records, baseline), **facts}
    (out / "scores.json").write_text(json.dumps(document, indent=2, allow_nan=False) + "\n")


def score(engine: LoadedEngine, tokens: np.ndarray, ids: np.ndarray, progress: Progress) -> Candidate:
    """What the engine says after each but the last of [S, T] tokens, asked about `ids` [S, T-1, K]."""
    sequences, length = tokens.shape
    whole = torch.from_numpy(tokens).long()
    parts = []
    progress(0, tokens.size, "tokens")
    asked = (whole[:, :-1].contiguous(), whole[:, 1:].contiguous(), torch.from_numpy(ids).long())
    for part in engine.score(*asked):
        parts.append([each.numpy() for each in (part.targets, part.indices, part.top1)])
        done = sum(len(arrays[0]) for arrays in parts)
        progress(done * length, sequences * length, "tokens")
    return Candidate(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def scores(sample_records: Sequence[Record], baseline: Baseline) -> dict[str, Any]:
    """Every metric with its interval; null where it is not finite.

    `kl` is a lower bound, see `divergence.token_kl`; the mean tail mass says how much it may leave out.
    """
    metrics = {
        # JSON has no NaN; samples.jsonl keeps it, and the gate reads that file
        name: {end: value if math.isfinite(value) else None for end, value in asdict(estimate).items()}
        for name, estimate in estimates(sample_records).items()
    }
    return {
        "metrics": metrics,
        "confidence": CONFIDENCE,
        "sequences": len(sample_records),
        "tokens": sum(record.tokens for record in sample_records),
        "top_k": int(baseline.top_ids.shape[-1]),
        "mean_tail_mass": float(tail_mass(baseline.top_logprob).mean()),
    }
