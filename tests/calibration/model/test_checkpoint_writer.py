import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from calibration.model import checkpoint_writer
from calibration.model.checkpoint_writer import DTYPES, SMALL_BYTES, CheckpointWriter

TENSORS = {name: torch.full((10,), float(number)) for number, name in enumerate("abcde")}


def written(out: Path, max_file_bytes: int, tensors=TENSORS):
    out.mkdir()
    with CheckpointWriter(out, max_file_bytes) as made:
        for name, tensor in tensors.items():
            made.add(name, tensor)
    return sorted(path.name for path in out.iterdir())


def loaded(out: Path):
    return {name: t for path in out.glob("*.safetensors") for name, t in load_file(path).items()}


def same(one, other: torch.Tensor):
    return one.dtype == other.dtype and torch.equal(one.view(torch.uint8), other.view(torch.uint8))


def test_one_file_has_no_index(tmp_path: Path):
    assert written(tmp_path / "out", 1000) == ["model.safetensors"]
    assert load_file(tmp_path / "out" / "model.safetensors").keys() == TENSORS.keys()


def test_several_files_are_numbered_and_indexed(tmp_path: Path):
    names = written(tmp_path / "out", 80)
    assert names == [
        *(f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)),
        "model.safetensors.index.json",
    ]
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 5 * 40
    for name, tensor in TENSORS.items():
        assert torch.equal(load_file(tmp_path / "out" / index["weight_map"][name])[name], tensor)


def test_a_tensor_larger_than_a_file_gets_its_own(tmp_path: Path):
    assert len(written(tmp_path / "out", 10)) == len(TENSORS) + 1


def test_small_tensors_end_a_file_when_they_become_many(tmp_path: Path):
    count = 2 + checkpoint_writer.MAX_HELD_BYTES // (SMALL_BYTES // 2)
    half = torch.zeros(SMALL_BYTES // 2, dtype=torch.int8)
    names = written(tmp_path / "out", 1 << 40, {f"t{i}": half for i in range(count)})
    assert len(names) == 3
    assert len(loaded(tmp_path / "out")) == count


def test_names_that_would_not_fit_the_header_begin_another_file(tmp_path: Path):
    large = torch.zeros(SMALL_BYTES, dtype=torch.int8)
    tensors = {"large": large} | {f"{'n' * 3000}{i}": TENSORS["a"] for i in range(100)}
    assert len(written(tmp_path / "out", 1 << 40, tensors)) == 3
    assert loaded(tmp_path / "out").keys() == tensors.keys()


sizes = st.sampled_from([0, 1, 3, 8, 4099, SMALL_BYTES, SMALL_BYTES + 1, SMALL_BYTES + 8])
kinds = st.sampled_from([dtype for dtype in DTYPES if dtype is not torch.bool])


@settings(deadline=None, max_examples=40)
@given(parts=st.lists(st.tuples(kinds, sizes), min_size=1, max_size=8))
def test_every_type_and_size_comes_back_as_it_was(parts, tmp_path_factory: pytest.TempPathFactory):
    generator = torch.Generator().manual_seed(len(parts))
    tensors = {
        f"t{number}": torch.randint(
            0, 256, (-(-size // dtype.itemsize) * dtype.itemsize,), dtype=torch.uint8, generator=generator
        ).view(dtype)
        for number, (dtype, size) in enumerate(parts)
    } | {"scalar": torch.tensor(1.5)}
    out = tmp_path_factory.mktemp("property") / "out"
    written(out, 3 * SMALL_BYTES, tensors)
    found = loaded(out)
    assert found.keys() == tensors.keys()
    assert all(same(found[name].reshape(-1), tensor.reshape(-1)) for name, tensor in tensors.items())


@pytest.mark.parametrize("large", [False, True])
def test_the_same_tensors_make_the_same_bytes(tmp_path: Path, large: bool):
    tensors = TENSORS | ({"large": torch.ones(SMALL_BYTES)} if large else {})
    for name in ("one", "two"):
        written(tmp_path / name, 1 << 30, tensors)
    one, two = (tmp_path / name / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
