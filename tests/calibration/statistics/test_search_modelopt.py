"""Our search against ModelOpt's `awq_lite`: output errors on tokens that neither saw."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import modelopt.torch.quantization as mtq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from calibration.model.linears import Layout
from calibration.statistics import awq_search
from tests.benchmarks import synthetic

DEMO = Path(__file__).resolve().parents[3] / "recipes" / "demo"
BATCH = 4
SEQ_LEN = 128
SMALL = {
    "num_hidden_layers": 2, "hidden_size": 512, "intermediate_size": 1408, "num_attention_heads": 8,
    "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 4096,
}  # fmt: skip


def texts(name: str) -> list[str]:
    rows = [json.loads(line) for line in (DEMO / "data" / name).read_text().splitlines()]
    return [row["text"] for row in rows]


def demo() -> tuple[Path, torch.Tensor, torch.Tensor]:
    """The trained demo model, its calibration data, and its gate's data."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "model")
    sets = []
    for name in ("calibration.jsonl", "gate.jsonl"):
        ids = [token for text in texts(name) for token in tokenizer(text)["input_ids"]]
        sets.append(torch.tensor(ids[: 32 * SEQ_LEN]).view(32, SEQ_LEN))
    return DEMO / "model", sets[0], sets[1]


def wide(tmp_path: Path) -> tuple[Path, torch.Tensor, torch.Tensor]:
    """Random weights with outlier channels, wider than the demo's."""
    synthetic.write(synthetic.LLAMA | SMALL, tmp_path)
    sets = [synthetic.tokens(SMALL["vocab_size"], 32, SEQ_LEN, seed=seed).long() for seed in (0, 1)]
    return tmp_path, sets[0], sets[1]


def load(root: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(root, dtype="auto", local_files_only=True).eval()


def forward(model: Any, tokens_ST: torch.Tensor) -> None:
    with torch.no_grad():
        for batch_BT in tokens_ST.split(BATCH):
            model.base_model(input_ids=batch_BT, use_cache=False)


def inputs(model: Any, tokens_ST: torch.Tensor) -> dict[str, torch.Tensor]:
    """Everything [N, I] that each linear of the layers saw."""
    seen: dict[str, list[torch.Tensor]] = {}
    handles = [
        module.register_forward_pre_hook(
            lambda _, args, n=name: seen.setdefault(n, []).append(args[0].flatten(0, 1))
        )
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and ".layers." in name
    ]
    forward(model, tokens_ST)
    for handle in handles:
        handle.remove()
    return {name: torch.cat(batches) for name, batches in seen.items()}


def fused(names: Mapping[str, Any], num_layers: int) -> list[tuple[str, ...]]:
    """Names of the linears that share their input, and of those that do not."""
    together = [group.linears for group in Layout("llama", num_layers).groups()]
    return together + [(name,) for name in names if not any(name in group for group in together)]


def modelopts(root: Path, tokens_ST: torch.Tensor) -> dict[str, Any]:
    """What ModelOpt's search keeps of each linear: best_alpha and best_scale."""
    model, preset = load(root), copy.deepcopy(mtq.INT4_AWQ_CFG)
    preset["algorithm"] = {"method": "awq_lite", "debug": True}
    mtq.quantize(model, preset, lambda model: forward(model, tokens_ST))
    return {n: m.awq_lite for n, m in model.named_modules() if hasattr(m, "awq_lite") and ".layers." in n}


def error(weight_OI: torch.Tensor, factors_I: torch.Tensor, x_NI: torch.Tensor) -> float:
    """Squared output error of a linear whose inputs are multiplied by the factors."""
    change = awq_search.error(weight_OI, factors_I, 128, torch.float32)
    return float((x_NI.float() @ change.T).square().sum())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:modelopt")
@pytest.mark.parametrize("case", ["demo", "wide"])
def test_outputs_are_no_further_off_than_with_modelopts_search(case: str, tmp_path: Path):
    root, calibration, held_out = demo() if case == "demo" else wide(tmp_path)
    theirs, model = modelopts(root, calibration), load(root)
    seen, unseen = inputs(model, calibration), inputs(model, held_out)
    totals = {"ours": 0.0, "theirs": 0.0}
    for names in fused(seen, model.config.num_hidden_layers):
        x_NI = seen[names[0]]
        weights = [model.get_submodule(name).weight.detach() for name in names]
        moments = awq_search.Moments(x_NI.shape[1], "cpu")
        moments.add(x_NI)
        found = awq_search.best(weights, moments.gram_II, x_NI.float().abs().mean(dim=0))
        kept = [(1 / theirs[name].best_scale).to(weights[0].dtype) for name in names]
        modelopt = torch.stack(kept).mean(dim=0).float()  # what its export makes of a group
        output = sum(float((unseen[names[0]].float() @ w.float().T).square().sum()) for w in weights)
        for who, factors_I in (("ours", found.smoothing_I), ("theirs", modelopt)):
            totals[who] += sum(error(w, factors_I, unseen[names[0]]) for w in weights) / output
        if len(names) == 1:
            same = awq_search.EXPONENTS[int(found.losses_C.argmin())] == pytest.approx(
                theirs[names[0]].best_alpha
            )
            ours = error(weights[0], found.smoothing_I, x_NI)
            assert same or ours <= 1.01 * error(weights[0], modelopt, x_NI), names
    print(f"{case}: relative output errors, summed: {totals}")
    assert totals["ours"] <= totals["theirs"]
