"""Perplexity of the demo checkpoint under ModelOpt's stock formats, simulated in bf16."""

from pathlib import Path

import modelopt.torch.quantization as mtq
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from recipes.demo.demo_model import perplexity
from recipes.demo.texts import Row

PRESETS = {
    "naive INT8": mtq.INT8_DEFAULT_CFG,
    "INT8 SmoothQuant": mtq.INT8_SMOOTHQUANT_CFG,
    "FP8": mtq.FP8_DEFAULT_CFG,
    "INT8 weights only": mtq.INT8_WEIGHT_ONLY_CFG,
    "INT4 AWQ": mtq.INT4_AWQ_CFG,
}
CALIBRATION_ROWS = 64


def quantized_perplexities(
    checkpoint: Path, calibration: list[Row], gate: list[list[int]], presets: tuple[str, ...] = tuple(PRESETS)
) -> dict[str, float]:
    """Return each preset's perplexity on the gate rows, calibrated on the first calibration rows."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint)
    rows = [tokenizer(row["text"])["input_ids"] for row in calibration[:CALIBRATION_ROWS]]
    perplexity_of = {}
    for name in presets:
        model = LlamaForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16).eval()
        mtq.quantize(model, PRESETS[name], lambda module: run_rows(module, rows))
        perplexity_of[name] = perplexity(model, gate)
    return perplexity_of


@torch.inference_mode()
def run_rows(model: LlamaForCausalLM, rows: list[list[int]]) -> None:
    """Run rows of token ids through a model for what its observers see."""
    for row in rows:
        model(torch.tensor([row], device=model.device), use_cache=False)
