"""A really compiled engine of another family: soft caps, a window, norms around both blocks, scaled embedding."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from pipeline.engines.aoti.aoti_runner import load
from tests.jobs import build_aoti as build
from tests.pipeline.engines import checkpoints

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),  # torch's compiler warns of torch
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]

PARAMS = {
    "backend": "aoti", "target": "host", "max_batch_size": 2, "max_seq_len": 30, "tp": 1, "pp": 1,
    "options": {"dtype": "float32", "threads": 1, "autotune": False}, "format": "none",
    "toolchain": {"torch": torch.__version__},
}  # fmt: skip


def test_a_compiled_gemma_equals_transformers_in_one_pass_and_token_by_token(tmp_path: Path):
    directory = checkpoints.source(tmp_path / "source", "gemma2", num_hidden_layers=1)
    sharded, out = checkpoints.shard(directory, 1, 1, tmp_path / "sharded"), tmp_path / "engine"
    out.mkdir()
    job = {"params": PARAMS, "places": {}, "inputs": {"sharded_checkpoint": str(sharded)}}
    build(job, out, lambda *_: None)
    tokens = torch.randint(0, 251, (2, 24), generator=torch.manual_seed(1))
    model = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager").eval()
    with torch.no_grad():
        expected = model(tokens, use_cache=False).logits
    with load(out) as engine:
        for batch, time in ((1, 1), (2, 24), (1, 9)):
            found = engine.logits(tokens[:batch, :time])
            torch.testing.assert_close(found, expected[:batch, :time], rtol=1e-4, atol=1e-4)
        prompts = [tokens[0, :5].tolist(), tokens[1, :14].tolist()]
        for asked in (prompts, prompts[:1]):
            for prompt, text in zip(asked, engine.generate(asked, 12), strict=True):
                whole = torch.tensor([prompt + text])
                with torch.no_grad():
                    logits = model(whole, use_cache=False).logits
                assert logits[0, len(prompt) - 1 : -1].argmax(-1).tolist() == text
