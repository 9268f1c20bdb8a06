"""Small checkpoints of every family, and passes over them."""

import json
import subprocess  # noqa: TID251 passes are killed from outside
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from calibration.model.linears import attention
from tests.jobs import build_statistics as build

ROOT = Path(__file__).resolve().parents[3]
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
                                  "high_freq_factor": 4.0, "original_max_position_embeddings": 64}},
    "mistral": {"sliding_window": 16, "head_dim": 64},
    "qwen2": {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    "qwen3": {"head_dim": 64, "tie_word_embeddings": True},
    "gemma2": {"head_dim": 64, "sliding_window": 16, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 48},
    "gemma3_text": {"head_dim": 64, "sliding_window": 16, "sliding_window_pattern": 2, "query_pre_attn_scalar": 48},
    "phi3": {"pad_token_id": 0, "eos_token_id": 2},
}  # fmt: skip
SIZES = {
    "vocab_size": 384, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.08,
}  # fmt: skip
ROOMY = {"device": "cpu", "gpu_bytes": 0, "host_bytes": 1 << 40}


def make(root: Path, family: str = "llama", dtype: str = "bfloat16", **changes: Any) -> Any:
    """Writes a random checkpoint in two files and returns its model, as transformers loads it."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **(SIZES | FAMILIES[family] | changes))
    model = AutoModelForCausalLM.from_config(config).to(getattr(torch, dtype))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(root, max_shard_size="700KB")
    return load(root)


def load(root: Path) -> Any:
    """The whole model, as transformers loads it."""
    kernel = attention(AutoConfig.from_pretrained(root).to_dict())
    return AutoModelForCausalLM.from_pretrained(root, dtype="auto", attn_implementation=kernel).eval()


def write_tokens(
    folder: Path, sequences: int = 7, seq_len: int = 48, lengths: list[int] | None = None
) -> torch.Tensor:
    """Writes a random calibration set and returns its tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens_ST = torch.randint(0, 384, (sequences, seq_len), generator=torch.manual_seed(1), dtype=torch.int32)
    extra = {} if lengths is None else {"lengths": torch.tensor(lengths, dtype=torch.int32)}
    save_file({"tokens": tokens_ST, **extra}, folder / "tokens.safetensors")
    return tokens_ST


def job(
    source: Path, tokens: Path, resume: Path, *, memory: dict[str, Any] | None = None, **params: Any
) -> dict[str, Any]:
    """What the pipeline would give the child."""
    return {
        "params": {"record": "all", "batch_size": 3, "device": "cpu", "tools": {}} | params,
        "places": {"memory": memory or ROOMY, "resume": str(resume)},
        "inputs": {"source": str(source), "calibration_set": str(tokens)},
    }


def run(work: dict[str, Any], out: Path) -> Path:
    """Runs a pass here and returns its artifact."""
    out.mkdir(parents=True, exist_ok=True)
    build(work, out, lambda *_: None)
    return out


def start(work: dict[str, Any], out: Path) -> "subprocess.Popen[str]":
    """Starts a pass in another process, which prints its progress."""
    out.mkdir(parents=True, exist_ok=True)
    code = (
        "import json, sys; from pathlib import Path; from tests.jobs import build_statistics as build\n"
        "say = lambda done, total, unit: print(done, total, flush=True)\n"
        "try: build(json.loads(sys.argv[1]), Path(sys.argv[2]), say)\n"
        "except Exception as exc: print(f'{type(exc).__name__}: {exc}', file=sys.stderr); sys.exit(1)\n"
    )
    argv = [sys.executable, "-c", code, json.dumps(work), str(out)]
    return subprocess.Popen(argv, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def outputs(
    resume: Path, layers: int, sequences: int, batch_size: int, shape: tuple[int, ...], dtype: torch.dtype
) -> torch.Tensor:
    """Hidden states [S, T, H] after the last layer, from the files that a pass leaves."""
    from calibration.statistics.hidden import HiddenStates

    sizes = [batch_size] * (sequences // batch_size) + (
        [sequences % batch_size] if sequences % batch_size else []
    )
    files = HiddenStates(
        resume, [(size, *shape) for size in sizes], dtype, torch.device("cpu"), resident=False
    )
    found = torch.cat(list(files.inputs(layers)))
    files.close()
    return found


def write_large(root: Path, layers: int, **sizes: int) -> int:
    """Writes a random bfloat16 Llama, file by file, and returns its weights' bytes."""
    config = AutoConfig.for_model(
        "llama", **(SIZES | sizes | {"num_hidden_layers": layers}), dtype="bfloat16"
    )
    root.mkdir()
    config.save_pretrained(root)
    hidden, inner, keys = (
        config.hidden_size,
        config.intermediate_size,
        config.num_key_value_heads * config.head_dim,
    )
    shapes = {
        "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,), "mlp.down_proj": (hidden, inner),
        "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (keys, hidden), "self_attn.v_proj": (keys, hidden), "self_attn.o_proj": (hidden, hidden),
    }  # fmt: skip
    layer = {name: (torch.randn(shape) * 0.02).bfloat16() for name, shape in shapes.items()}
    table = torch.randn(config.vocab_size, hidden).bfloat16()
    files = {"model.embed_tokens.weight": "embedding.safetensors"}
    save_file({"model.embed_tokens.weight": table}, root / "embedding.safetensors")
    for number in range(layers):
        named = {f"model.layers.{number}.{name}.weight": tensor for name, tensor in layer.items()}
        save_file(named, root / f"layer-{number}.safetensors")
        files |= dict.fromkeys(named, f"layer-{number}.safetensors")
    (root / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return sum(path.stat().st_size for path in root.glob("*.safetensors"))
