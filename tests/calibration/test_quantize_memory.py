"""The memory that deriving takes does not grow with the model."""

import json
import os
import subprocess  # noqa: TID251 the peak of a process is measured in a process of its own
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from calibration.model.linears import layout

pytestmark = pytest.mark.slow

CHILD = """
import json, sys
from pathlib import Path
import calibration.quantize.quantize
from tests.jobs import build_quantized as build

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10

Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before = peak()
build(json.loads(sys.argv[1]), Path(sys.argv[2]), lambda *_: None)
print(peak() - before)
"""
HIDDEN, INNER = 1024, 4096


def checkpoint(root: Path, num_layers: int) -> int:
    """Writes a checkpoint of random weights; returns its bytes."""
    config = {"model_type": "llama", "num_hidden_layers": num_layers, "dtype": "bfloat16"}
    root.mkdir()
    (root / "config.json").write_text(json.dumps(config))
    shapes = {"gate_proj": (INNER, HIDDEN), "up_proj": (INNER, HIDDEN), "down_proj": (HIDDEN, INNER)}
    tensors = {}
    norms = [
        f"model.layers.{n}.{norm}layernorm"
        for n in range(num_layers)
        for norm in ("input_", "post_attention_")
    ]
    for name in sorted([*layout(config).linears(), *norms, "model.embed_tokens", "model.norm", "lm_head"]):
        module = name.rpartition(".")[2]
        shape = shapes.get(module, (HIDDEN,) if "norm" in module else (HIDDEN, HIDDEN))
        tensors[f"{name}.weight"] = torch.rand(shape, dtype=torch.bfloat16) - 0.5
    save_file(tensors, root / "model.safetensors")
    return sum(tensor.nbytes for tensor in tensors.values())


def test_peak_memory_is_a_few_tensors_however_many_there_are(tmp_path: Path):
    peaks, sizes = [], []
    for num_layers in (2, 10):
        root, out = tmp_path / f"{num_layers}", tmp_path / f"out{num_layers}"
        sizes.append(checkpoint(root, num_layers))
        out.mkdir()
        job = {"params": {"format": "int8_wo"}, "places": {}, "inputs": {"source": str(root)}}
        done = subprocess.run(
            [sys.executable, "-c", CHILD, json.dumps(job), str(out)],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        peaks.append(int(done.stdout))
    assert sizes[1] > sizes[0] + (250 << 20)
    assert max(peaks) < 120 << 20
