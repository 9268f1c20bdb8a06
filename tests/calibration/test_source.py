import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from calibration.errors import CheckpointError
from calibration.source import Source


@pytest.fixture
def copy(checkpoint, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(checkpoint, root)
    return root


def change_config(root, **changes):
    config = json.loads((root / "config.json").read_text())
    (root / "config.json").write_text(json.dumps(config | changes))


def test_tensors_come_one_at_a_time_in_file_order(checkpoint):
    expected = load_file(checkpoint / "model.safetensors")
    seen = dict(Source.open(checkpoint).tensors())
    assert list(seen) == list(Source.open(checkpoint).files)
    assert all(torch.equal(seen[name], expected[name]) for name in expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_names_file_and_tensor(copy, bad):
    tensors = load_file(copy / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = bad
    save_file(tensors, copy / "model.safetensors")
    complaint = r"model\.safetensors: tensor model\.layers\.1\.mlp\.up_proj\.weight holds 1 NaN or infinite"
    with pytest.raises(CheckpointError, match=complaint):
        Source.open(copy).check_finite(lambda *_: None)


def test_a_truncated_file_is_named(copy):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a whole safetensors file"):
        Source.open(copy)


def test_pickles_are_never_opened(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"only pickles \(pytorch_model\.bin\), which can run code"):
        Source.open(copy)


def test_no_weights_and_no_configuration_are_refused(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no weights; give a checkpoint with model\.safetensors"):
        Source.open(copy)
    (copy / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json: not valid JSON"):
        Source.open(copy)
    (copy / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        Source.open(copy)


def test_unknown_families_and_quantized_checkpoints_are_refused(copy):
    change_config(copy, model_type="bloom")
    with pytest.raises(CheckpointError, match="model_type 'bloom' is not supported; have llama, mistral"):
        Source.open(copy)
    change_config(copy, model_type="llama", quantization_config={})
    with pytest.raises(CheckpointError, match="quantized already"):
        Source.open(copy)


def index(root, weight_map):
    (root / "model.safetensors").rename(root / "model-1.safetensors")
    (root / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_an_index_that_promises_too_much_is_refused(copy):
    index(copy, {"model.norm.weight": "model-1.safetensors", "model.extra": "model-1.safetensors"})
    with pytest.raises(CheckpointError, match=r"model-1\.safetensors: lacks tensor model\.extra"):
        Source.open(copy)
    (copy / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model-2.safetensors"}})
    )
    with pytest.raises(CheckpointError, match=r"model-2\.safetensors: the file is missing"):
        Source.open(copy)
