"""The search for NaN and infinity, on bit patterns."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import SourceError
from pipeline.weights.finite import CHUNK_BYTES, MASKS, check_finite
from pipeline.weights.tensors import Checkpoint, read_header

UNSIGNED: dict[str, Any] = {"F64": np.uint64, "F32": np.uint32, "F16": np.uint16, "BF16": np.uint16,
            "F8_E5M2": np.uint8, "F8_E4M3": np.uint8}  # fmt: skip

NOT_FINITE = {
    "F64": [0x7FF0000000000000, 0xFFF0000000000000, 0x7FF8000000000000, 0x7FF0000000000001],
    "F32": [0x7F800000, 0xFF800000, 0x7FC00000, 0xFF800001],
    "F16": [0x7C00, 0xFC00, 0x7E00, 0xFC01],
    "BF16": [0x7F80, 0xFF80, 0x7FC0, 0xFF81],
    "F8_E5M2": [0x7C, 0xFC, 0x7D, 0xFF],
    "F8_E4M3": [0x7F, 0xFF],
}
"""Infinities and NaN of each type: IEEE 754, and the OCP 8-bit floating point specification."""

LARGEST = {"F64": 0xFFEFFFFFFFFFFFFF, "F32": 0xFF7FFFFF, "F16": 0xFBFF, "BF16": 0xFF7F,
           "F8_E5M2": 0xFB, "F8_E4M3": 0xFE}  # fmt: skip


def opened(path: Path, dtype: str, bits: np.ndarray) -> Checkpoint:
    """A file with an odd-sized tensor before the one under test, so that this is not aligned."""
    end = 3 + bits.nbytes
    header = json.dumps({
        "first": {"dtype": "I8", "shape": [3], "data_offsets": [0, 3]},
        "weight": {"dtype": dtype, "shape": [bits.size], "data_offsets": [3, end]},
    }).encode()  # fmt: skip
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\xff\xff\xff" + bits.tobytes())
    return Checkpoint(path.parent, {}, read_header(path))


@pytest.mark.parametrize("dtype", MASKS)
def test_every_infinity_and_nan_is_found_where_it_is(dtype: str, tmp_path: Path):
    size = CHUNK_BYTES // UNSIGNED[dtype]().itemsize
    for bad in NOT_FINITE[dtype]:
        for position in (0, size - 1, size, size + 2):
            bits = np.full(size + 3, LARGEST[dtype], UNSIGNED[dtype])
            bits[position] = bad
            with pytest.raises(SourceError, match=rf"'weight' of shape .* flat position {position};"):
                check_finite(opened(tmp_path / "a.safetensors", dtype, bits), lambda *_: None)


@pytest.mark.parametrize("dtype", MASKS)
def test_the_largest_numbers_are_finite(dtype: str, tmp_path: Path):
    bits = np.full(CHUNK_BYTES + 5, LARGEST[dtype], UNSIGNED[dtype])
    bits[0] = LARGEST[dtype] & ~(1 << (bits.itemsize * 8 - 1))
    seen = []
    check_finite(opened(tmp_path / "a.safetensors", dtype, bits), lambda *report: seen.append(report))
    assert seen[-1] == (bits.nbytes, bits.nbytes, "bytes checked")


@pytest.mark.parametrize("bits", [8, 16])
def test_the_masks_agree_with_numpy_and_with_a_count(bits: int):
    dtype = "F16" if bits == 16 else "F8_E4M3"
    unsigned, mask = MASKS[dtype]
    every = np.arange(1 << bits, dtype=unsigned)
    found = (every & unsigned(mask)) == mask
    if bits == 16:
        assert (found == ~np.isfinite(every.view(np.float16))).all()
    else:
        assert every[found].tolist() == [0x7F, 0xFF]


def test_integers_are_not_floats(tmp_path: Path):
    bits = np.full(8, 0xFF, np.uint8)
    check_finite(opened(tmp_path / "a.safetensors", "U8", bits), lambda *_: None)
