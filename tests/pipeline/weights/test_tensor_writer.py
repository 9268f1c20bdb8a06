"""The streaming writer: what it writes, the safetensors library reads."""

import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from pipeline.errors import BuildFailed, SourceError
from pipeline.weights.tensor_writer import ALIGNMENT, Span, TensorPlan, layout, write_safetensors
from pipeline.weights.tensors import item_bytes, read_header

NAMES = {"float32": "F32", "int8": "I8", "float16": "F16", "int64": "I64", "uint8": "U8"}


def planned(name, array, pieces=1) -> TensorPlan:
    """A plan that hands out an array in pieces."""
    flat = array.reshape(-1)
    return TensorPlan(name, NAMES[array.dtype.name], array.shape, lambda: iter(np.array_split(flat, pieces)))


def test_what_is_written_the_library_reads(tmp_path: Path):
    tensors: dict[str, np.ndarray] = {
        "b": np.arange(6, dtype=np.float16).reshape(2, 3),
        "a": np.arange(64, dtype=np.float32).reshape(8, 8),
        "odd": np.arange(5, dtype=np.int8),
        "scalar": np.array(7, np.int64),
        "empty": np.zeros((0, 4), np.float32),
    }
    write_safetensors(tmp_path / "x.safetensors", [planned(*item, pieces=2) for item in tensors.items()])
    read = load_file(tmp_path / "x.safetensors")
    assert read.keys() == tensors.keys()
    for name, expected in tensors.items():
        np.testing.assert_array_equal(read[name], expected)
        assert read[name].shape == expected.shape


def test_strided_views_are_written_in_their_own_order(tmp_path: Path):
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_safetensors(tmp_path / "x", [TensorPlan("m", "F32", (3, 2), lambda: [matrix[:, 1:3]])])
    np.testing.assert_array_equal(load_file(tmp_path / "x")["m"], matrix[:, 1:3])


def test_spans_are_copied_from_their_file(tmp_path: Path):
    (tmp_path / "source").write_bytes(bytes(range(256)))
    spans = [Span(tmp_path / "source", 250, 256), Span(tmp_path / "source", 0, 2)]
    write_safetensors(tmp_path / "x", [TensorPlan("m", "U8", (8,), lambda: spans)])
    assert load_file(tmp_path / "x")["m"].tolist() == [250, 251, 252, 253, 254, 255, 0, 1]


def test_span_beyond_its_file_is_an_error(tmp_path: Path):
    (tmp_path / "source").write_bytes(b"abc")
    plan = [TensorPlan("m", "U8", (8,), lambda: [Span(tmp_path / "source", 0, 8)])]
    with pytest.raises(SourceError, match="ended at byte 3, 8 expected"):
        write_safetensors(tmp_path / "x", plan)


def test_too_few_bytes_for_the_shape_are_an_error(tmp_path: Path):
    with pytest.raises(BuildFailed, match=r"'m' got 4 bytes, its shape \[2\] needs 8"):
        write_safetensors(tmp_path / "x", [TensorPlan("m", "F32", (2,), lambda: [b"abcd"])])


def test_a_name_is_planned_once(tmp_path: Path):
    with pytest.raises(ValueError, match="'m' is planned twice"):
        write_safetensors(tmp_path / "x", [planned("m", np.zeros(1, np.int8))] * 2)


def test_an_existing_file_is_not_overwritten(tmp_path: Path):
    (tmp_path / "x").touch()
    with pytest.raises(FileExistsError, match="x"):
        write_safetensors(tmp_path / "x", [])


def test_progress_counts_every_byte(tmp_path: Path):
    seen: list[Any] = []
    write_safetensors(tmp_path / "x", [planned("m", np.zeros(10, np.int8), pieces=3)], wrote=seen.append)
    assert seen == [4, 3, 3]


def test_chunks_are_made_one_at_a_time(tmp_path: Path):
    chunk_bytes, count = 1 << 20, 64
    plan = TensorPlan(
        "m", "U8", (count, chunk_bytes), lambda: (np.zeros(chunk_bytes, np.uint8) for _ in range(count))
    )
    tracemalloc.start()
    write_safetensors(tmp_path / "x", [plan])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * chunk_bytes


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["F32", "I8", "F16", "I64"]), st.integers(0, 200)), max_size=12))
def test_every_tensor_is_aligned_to_its_elements(tmp_path_factory: pytest.TempPathFactory, sizes):
    plan = [
        TensorPlan(str(i), dtype, (n,), partial(list, [bytes(n * item_bytes(dtype))]))
        for i, (dtype, n) in enumerate(sizes)
    ]
    path = tmp_path_factory.mktemp("aligned") / "x"
    write_safetensors(path, plan)
    for entry in read_header(path).values():
        assert entry.start % (ALIGNMENT if entry.nbytes % ALIGNMENT == 0 and entry.nbytes else 1) == 0
        assert entry.start % item_bytes(entry.dtype) == 0
    assert sorted(t.name for t in layout(plan)) == sorted(t.name for t in plan)
