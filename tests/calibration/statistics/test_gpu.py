"""What only a GPU has: hidden states that stay on it, and a cap on its memory."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from calibration.statistics import hidden
from calibration.statistics.budget import Budget
from calibration.statistics.memory import Caps, sizes_of
from tests.calibration.statistics.passes import job, load, outputs, run, start, write_large, write_tokens
from tests.jobs import build_statistics as build

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
WIDE = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_key_value_heads": 4}
SEQUENCES, SEQ_LEN, BATCH, LAYERS = 22, 512, 4, 5


def memory(gpu_bytes: int) -> Budget:
    return Budget(device="cuda", gpu_bytes=gpu_bytes, host_bytes=1 << 40)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("layer-*"))}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_large(tmp_path / "source", LAYERS, **WIDE)
    write_tokens(tmp_path / "tokens", SEQUENCES, SEQ_LEN)
    return tmp_path


def work(root: Path, name: str, gpu_bytes: int, record: str = "all"):
    caps = asdict(memory(gpu_bytes))
    params = {"record": record, "batch_size": BATCH, "device": "cuda"}
    return job(root / "source", root / "tokens", root / name, memory=caps, **params)


def least(root: Path, *, search: bool = True) -> int:
    """What a pass needs without keeping hidden states on the GPU; `search` is AWQ's."""
    config = load(root / "source").config
    caps = Caps(memory(1 << 40), sizes_of(config, torch.bfloat16, SEQ_LEN), BATCH * SEQ_LEN, search=search)
    return caps.gpu_predicted


def test_files_and_gpu_memory_carry_the_same_bits(root: Path):
    ample = run(work(root, "ample", 1 << 36), root / "a")
    tight = run(work(root, "tight", least(root)), root / "b")
    assert content(ample) == content(tight)


def test_hidden_states_are_those_of_the_whole_model_on_the_gpu(root: Path):
    run(work(root, "resume", least(root, search=False), "ranges"), root / "out")
    found = outputs(root / "resume", LAYERS, SEQUENCES, BATCH, (SEQ_LEN, 1024), torch.bfloat16)
    model = load(root / "source").to("cuda")
    model.model.norm = torch.nn.Identity()
    tokens_ST = write_tokens(root / "tokens", SEQUENCES, SEQ_LEN).long().cuda()
    with torch.no_grad():
        parts = [model.base_model(input_ids=b, use_cache=False)[0] for b in tokens_ST.split(BATCH)]
    assert found.equal(torch.cat(parts).cpu())


def test_a_killed_pass_continues_with_the_same_bits(root: Path):
    child = start(work(root, "resume", least(root)), root / "killed")
    assert child.stdout is not None
    for line in child.stdout:
        done, total = map(int, line.split())
        if done > total * 0.7:
            child.kill()
            break
    child.wait()
    child.communicate()
    out = run(work(root, "resume", least(root)), root / "resumed")
    assert 0 < json.loads((out / "report.json").read_text())["layers_resumed"] < LAYERS
    assert content(out) == content(run(work(root, "straight", 1 << 36), root / "expected"))


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
def test_a_pass_that_keeps_its_states_on_the_gpu_continues_from_what_it_saved(
    root: Path, monkeypatch: pytest.MonkeyPatch, share: float
):
    monkeypatch.setattr(hidden, "SAVE_EVERY_S", 0.0)

    def interrupt(done: int, total: int, _: str) -> None:
        if done > share * total:
            raise KeyboardInterrupt

    # in a process of its own: an interrupted pass of this one leaves its tensors until the process ends
    child = start(work(root, "straight", least(root)), root / "expected")
    _, told = child.communicate()
    assert child.returncode == 0, told
    (root / "killed").mkdir()
    for _ in range(2):  # the second time from what the first saved
        with pytest.raises(KeyboardInterrupt):
            build(work(root, "resume", 1 << 36), root / "killed", interrupt)
    out = run(work(root, "resume", 1 << 36), root / "resumed")
    assert content(out) == content(root / "expected")


def test_peaks_of_both_memories_are_below_what_is_predicted(root: Path):
    child = start(work(root, "resume", least(root)), root / "out")
    _, told = child.communicate()
    assert child.returncode == 0, told
    for kind, found in json.loads((root / "out" / "report.json").read_text())["memory_bytes"].items():
        assert found["measured"] <= found["predicted"], kind


def test_an_allocation_above_the_cap_says_so(root: Path):
    child = start(work(root, "resume", 800_000_000), root / "out")
    _, told = child.communicate()
    assert child.returncode == 1
    assert "MemoryExceeded: GPU memory: the pass needs more than the cap of 0.80 GB" in told
