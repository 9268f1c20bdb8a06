"""Step baseline: what the source checkpoint says about the gate's data; runs in a child process."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import AutoModelForCausalLM

from calibration.data.drawing import Drawing, TokenRows, draw
from calibration.data.packing import Packed, pack
from calibration.data.rendering import Reader
from calibration.data.report import begin
from calibration.model.linears import attention
from calibration.parameters import located
from pipeline.errors import SourceError
from pipeline.evaluate.divergence import Baseline, tail_mass
from pipeline.evaluate.gate import GATE_SEED
from pipeline.process.meter import Progress
from pipeline.step.step_parameters import BaselineJob

LOGIT_BYTES = 32 << 20
"""Float32 logits of one forward pass, unless a single sequence needs more; small, for steady progress."""

ROWS = 512
"""Positions turned into log-probabilities at a time."""


def build(job: BaselineJob, progress: Progress) -> None:
    """Writes tokens.safetensors (`tokens` [S, T] int32), records.safetensors, scores.json and report.json.

    records.safetensors holds `target_logprob` [S, T-1] f32, `top_ids` [S, T-1, K] int32 and `top_logprob`
    [S, T-1, K] f32, best first. Raises DataError for gate data that cannot be used or does not suffice, and
    SourceError for a checkpoint that cannot score it.
    """
    params, source, out = job.params, job.inputs["source"], job.out
    reader = Reader.open(source, job.places.model)
    files = located([params.data], job.places, job.inputs)
    rows = draw(Drawing([params.data], files, GATE_SEED), reader, progress)
    token_ids = [sample.token_ids for sample in rows.samples]
    # before the model is loaded: too little text is refused at once
    packed = pack(token_ids, params.seq_len, params.max_sequences, reader.prefix)
    progress(0, packed.tokens.size, "tokens")
    model = load(source)
    baseline = score(model, packed.tokens, params.top_k, progress)
    save_file({"tokens": packed.tokens}, out / "tokens.safetensors")
    save_file(
        {
            "target_logprob": baseline.target_logprob,
            "top_ids": baseline.top_ids,
            "top_logprob": baseline.top_logprob,
        },
        out / "records.safetensors",
    )
    begun = begin(packed, reader)
    _write(out / "scores.json", {**scores(baseline), "sequences_begin_with": begun})
    _write(out / "report.json", {**report(rows, packed, baseline, model), "sequences_begin_with": begun})


def load(source: Path) -> Any:
    """The checkpoint in its own dtype, but for the head, which computes logits in float32.

    Logits rounded to bfloat16 tie: on the margin between the two likeliest tokens that noise would count as
    disagreement of the engine.
    """
    try:
        config = json.loads((source / "config.json").read_text())
        model = AutoModelForCausalLM.from_pretrained(
            source,
            dtype="auto",
            attn_implementation=attention(config),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as exc:
        raise SourceError(
            f"{source}: transformers cannot load the checkpoint ({exc}); repair its files"
        ) from exc
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(
        head.weight.float(), requires_grad=False
    )  # a copy: embeddings may be tied
    # the head's input is cast too: a float32 weight does not multiply bfloat16 states
    head.register_forward_pre_hook(lambda _, args: (args[0].float(),))
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def score(model: Any, tokens: np.ndarray, top_k: int, progress: Progress) -> Baseline:
    """Scores every token after a sequence's first, with the `top_k` likeliest at its position, for [S, T].

    The first is the BOS that the tokenizer puts in front, where it puts one: read, and not scored.
    """
    vocab, (num, length) = model.config.vocab_size, tokens.shape
    parts = []
    for start, batch in _batches(tokens, max(1, LOGIT_BYTES // (length * vocab * 4))):
        parts.append(_score_batch(model, torch.from_numpy(batch).long(), min(top_k, vocab)))
        # asked per batch: a broken checkpoint is refused at its first bad sequences
        if not np.isfinite(parts[-1][0]).all():
            raise SourceError(
                f"the source checkpoint gives values that are not finite in sequences {start} to "
                f"{start + len(batch) - 1} of the gate's data; it cannot be a baseline"
            )
        progress((start + len(batch)) * length, num * length, "tokens")
    return Baseline(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _batches(tokens: np.ndarray, size: int) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(tokens), size):
        yield start, tokens[start : start + size]


@torch.inference_mode()
def _score_batch(model: Any, tokens: torch.Tensor, top_k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-probabilities of targets, ids and log-probabilities of the likeliest tokens, for [B, T] tokens."""
    tokens = tokens.to(model.device)
    # the last position predicts a token that is not there
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1].flatten(0, 1)
    targets = tokens[:, 1:].flatten()
    scored: list[tuple[torch.Tensor, ...]] = []
    # in pieces: log_softmax makes a second array of the logits' size
    for rows, batch_targets in zip(torch.split(logits, ROWS), torch.split(targets, ROWS), strict=True):
        logprob = torch.log_softmax(rows.float(), dim=-1)
        top = logprob.topk(top_k, dim=-1)
        scored.append((logprob.gather(1, batch_targets[:, None])[:, 0], top.indices.int(), top.values))
    target, ids, top_logprob = (torch.cat(pieces).cpu().numpy() for pieces in zip(*scored, strict=True))
    shape = (tokens.shape[0], tokens.shape[1] - 1)
    return target.reshape(shape), ids.reshape(*shape, top_k), top_logprob.reshape(*shape, top_k)


def scores(baseline: Baseline) -> dict[str, Any]:
    """Perplexity of the source checkpoint, and over how much text."""
    # float64: a float32 sum over many thousand tokens loses digits
    nll = -baseline.target_logprob.astype(np.float64).mean()
    sequences, positions = baseline.target_logprob.shape
    return {"perplexity": math.exp(nll), "tokens": sequences * positions, "sequences": sequences}


def report(rows: TokenRows, packed: Packed, baseline: Baseline, model: Any) -> dict[str, Any]:
    """What was scored, and with what, for readers."""
    sequences, seq_len = packed.tokens.shape
    tail = tail_mass(baseline.top_logprob)
    return {
        "sources": list(rows.sources),
        "samples": len(rows.samples),
        "sequences": sequences,
        "seq_len": seq_len,
        "dropped_tail_tokens": packed.dropped_tail_tokens,
        "left_out_sequences": packed.left_out_sequences,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "top_k": baseline.top_ids.shape[-1],
        "tail_mass": {"mean": float(tail.mean()), "p95": float(np.quantile(tail, 0.95))},
    }


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")
