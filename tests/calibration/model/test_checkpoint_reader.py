import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from calibration.errors import CheckpointError
from calibration.model.checkpoint_reader import Source


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    root = tmp_path / "copy"
    shutil.copytree(checkpoint, root)
    return root


def test_tensors_come_one_at_a_time_in_file_order(checkpoint: Path):
    expected = load_file(checkpoint / "model.safetensors")
    seen = dict(Source.open(checkpoint).tensors())
    assert list(seen) == list(Source.open(checkpoint).files)
    assert all(torch.equal(seen[name], expected[name]) for name in expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_names_file_and_tensor(copy: Path, bad: float):
    tensors = load_file(copy / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = bad
    save_file(tensors, copy / "model.safetensors")
    complaint = r"model\.safetensors: tensor model\.layers\.1\.mlp\.up_proj\.weight holds 1 NaN or infinite"
    with pytest.raises(CheckpointError, match=complaint):
        Source.open(copy).check_finite(lambda *_: None)
