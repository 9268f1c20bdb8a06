import json

import torch
from safetensors.torch import load_file

from calibration.writer import CheckpointWriter

TENSORS = {name: torch.full((10,), float(number)) for number, name in enumerate("abcde")}


def written(out, max_file_bytes):
    out.mkdir()
    writer = CheckpointWriter(out, max_file_bytes)
    for name, tensor in TENSORS.items():
        writer.add(name, tensor)
        assert writer.pending_bytes <= max(max_file_bytes, tensor.nbytes)
    writer.close()
    return sorted(path.name for path in out.iterdir())


def test_one_file_has_no_index(tmp_path):
    assert written(tmp_path / "out", 1000) == ["model.safetensors"]
    assert load_file(tmp_path / "out" / "model.safetensors").keys() == TENSORS.keys()


def test_several_files_are_numbered_and_indexed(tmp_path):
    names = written(tmp_path / "out", 80)
    assert names == [
        *(f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)),
        "model.safetensors.index.json",
    ]
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 5 * 40
    for name, tensor in TENSORS.items():
        assert torch.equal(load_file(tmp_path / "out" / index["weight_map"][name])[name], tensor)


def test_a_tensor_larger_than_a_file_gets_its_own(tmp_path):
    assert len(written(tmp_path / "out", 10)) == len(TENSORS) + 1
