"""Divides the calibration set into batches, with masks for padding and sampled rows."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from calibration.errors import DataError

ROWS = 128
"""Tokens whose inputs are kept as a sample."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences that pass a layer together; indices are on the device."""

    number: int
    tokens_BT: torch.Tensor
    """On the host."""
    valid_N: torch.Tensor | None
    """Rows of the flattened batch that are not padding; None where there is no padding."""
    sample_R: torch.Tensor
    """Indices among those rows of the sampled ones."""
    num_valid: int


def load_batches(calibration_set: Path, batch_size: int, device: torch.device) -> list[Batch]:
    """Batches of a calibration set, padded on the right where it has `lengths` [S].

    Raises DataError for an empty set and for lengths that are none.
    """
    tensors = load_file(calibration_set / "tokens.safetensors")
    tokens_ST = tensors["tokens"].long()
    num_sequences, seq_len = tokens_ST.shape
    lengths_S = tensors.get("lengths", torch.full((num_sequences,), seq_len)).long()
    if lengths_S.shape != (num_sequences,) or not num_sequences:
        raise DataError(
            f"{calibration_set}: {num_sequences} sequences, {len(lengths_S)} lengths; build it again"
        )
    if int(lengths_S.min()) < 1 or int(lengths_S.max()) > seq_len:
        raise DataError(f"{calibration_set}: lengths must be 1 to {seq_len}; build it again")
    rows = sample_rows(int(lengths_S.sum()))
    return _cut(tokens_ST, lengths_S, rows, batch_size, device)


def sample_rows(tokens: int) -> torch.Tensor:
    """At most ROWS token numbers, spread evenly from the first to the last."""
    count = min(ROWS, tokens)
    return torch.arange(count) * (tokens - 1) // max(count - 1, 1)


def _cut(
    tokens_ST: torch.Tensor,
    lengths_S: torch.Tensor,
    rows: torch.Tensor,
    batch_size: int,
    device: torch.device,
) -> list[Batch]:
    batches, start = [], 0
    for number, tokens_BT in enumerate(torch.split(tokens_ST, batch_size)):
        lengths_B = lengths_S[number * batch_size :][: len(tokens_BT)]
        valid = torch.arange(tokens_BT.shape[1]) < lengths_B[:, None]
        num_valid = int(valid.sum())
        chosen = rows[(rows >= start) & (rows < start + num_valid)] - start
        valid_N = None if valid.all() else valid.flatten().nonzero().flatten().to(device)
        batches.append(Batch(number, tokens_BT, valid_N, chosen.to(device), num_valid))
        start += num_valid
    return batches
