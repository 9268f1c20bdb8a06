"""A mixture of experts that is really compiled, for ranks that hold different experts."""

from pathlib import Path

import pytest
import torch

from pipeline.engines.aoti.aoti_runner import load
from tests.jobs import build_aoti as build
from tests.pipeline.engines import experts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),  # torch's compiler warns of torch
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*all_gather_tensor.* is deprecated:FutureWarning"),
]


def test_a_compiled_engine_equals_the_reference_for_every_batch_and_time(tmp_path: Path):
    source = experts.source(tmp_path / "source", "mixtral", num_hidden_layers=1)
    checkpoint = experts.quantized(tmp_path, source, "fp8")
    sharded = experts.shard(checkpoint, "fp8", (2, 1, 2), tmp_path / "sharded")
    out = tmp_path / "engine"
    out.mkdir()
    params = {
        "tp": 2, "pp": 1, "ep": 2, "format": "fp8", "max_batch_size": 2, "max_seq_len": 32,
        "options": {"threads": 1}, "toolchain": {},
    }  # fmt: skip
    build(
        {"params": params, "places": {}, "inputs": {"sharded_checkpoint": str(sharded)}}, out, lambda *_: None
    )
    tokens = torch.randint(0, 384, (2, 24), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = experts.reference(checkpoint)(tokens).logits
    with load(out) as engine:
        for batch, time in ((1, 1), (2, 1), (1, 24), (2, 17)):  # 16 and more tokens run vectorized
            error = (engine.logits(tokens[:batch, :time]) - expected[:batch, :time]).abs() / expected.std()
            assert error.amax(-1).median() < 1e-4
            assert error.mean() < 1e-2
        prompt = tokens[0, :5].tolist()
        [text] = engine.generate([prompt], 6)
        whole = torch.tensor([prompt + text])
        assert engine.logits(whole)[0, len(prompt) - 1 : -1].argmax(-1).tolist() == text
