"""Writes random Llama checkpoints of any shape, with the outliers that make quantization hard.

    python -m tests.benchmarks.synthetic llama-3.1-8b DIRECTORY --layers 4

One weight file per layer, made where it is fastest and gone from memory before the next. What is realistic
about them (proportions as published for Llama models; the values themselves are random):

weights         normal, times a log-normal factor per element and per input channel: heavy-tailed columns
norms           log-normal; OUTLIER_CHANNELS of the hidden channels, the same in every layer, are 8 to 32 times
                larger, and the columns of the linears that read them as much smaller: activations have
                outlier channels, but the function computed does not change
MLP             a few intermediate channels are 16 times larger, their columns of down_proj as much smaller
attention       rows of v_proj differ by a log-normal factor, so that o_proj's inputs do
residual        o_proj and down_proj are scaled by 1 / sqrt(2 layers), so that activations neither die nor explode

Tokens are drawn by Zipf's law, as words are.
"""

# O: output channels   I: input channels   S: sequences   T: tokens per sequence

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "hidden_act": "silu",
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
SHAPES = {
    "llama-3.1-8b": {
        "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256,
    },
    # Embedding and head are most of its 1.3 GB: a checkpoint larger than the memory it is calibrated in.
    "mid": {
        "num_hidden_layers": 12, "hidden_size": 1024, "intermediate_size": 2816,
        "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 256000,
    },
}  # fmt: skip
OUTLIER_CHANNELS = (32.0, 24.0, 16.0, 16.0, 8.0, 8.0)
"""How many times larger than the others; powers of two or nearly, as bfloat16 scales exactly."""
DISTINCT_ROWS = 1 << 14
"""Of the embedding; more would cost time and change nothing."""
MLP_OUTLIERS = 8
MLP_OUTLIER = 16.0


def config(shape: str, layers: int | None = None) -> dict[str, Any]:
    """Contents of config.json, with fewer layers where asked."""
    made = LLAMA | SHAPES[shape]
    return made | ({"num_hidden_layers": layers} if layers else {})


def write(config: Mapping[str, object], out: Path, *, seed: int = 0) -> None:
    """Writes config.json, one weight file per layer and one for the rest, and their index."""
    out.mkdir(parents=True, exist_ok=True)
    maker = Maker(config, seed)
    files = {f"layer-{number:05}.safetensors": number for number in range(maker.layers)}
    weight_map: dict[Any, Any] = {}
    for file, number in [*files.items(), ("rest.safetensors", None)]:
        tensors = maker.rest() if number is None else maker.layer(number)
        save_file({name: t.cpu().contiguous() for name, t in tensors.items()}, out / file, {"format": "pt"})
        weight_map |= dict.fromkeys(tensors, file)
        del tensors
    index = {"metadata": {}, "weight_map": weight_map}
    (out / "model.safetensors.index.json").write_text(json.dumps(index))
    (out / "config.json").write_text(json.dumps(dict(config), indent=2))


class Maker:
    """Draws the tensors of one checkpoint, the same ones for the same seed and device."""

    def __init__(self, config: Mapping[str, Any], seed: int) -> None:
        self.config = config
        self.layers = int(config["num_hidden_layers"])
        self.hidden, self.inner = int(config["hidden_size"]), int(config["intermediate_size"])
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.draw = torch.Generator(device).manual_seed(seed)
        self.loud = torch.randperm(self.hidden, generator=self.draw, device=device)[: len(OUTLIER_CHANNELS)]
        self.by = torch.tensor(OUTLIER_CHANNELS, device=device)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.draw, device=self.draw.device)

    def matrix(self, num_out: int, num_in: int, gain: float = 1.0) -> torch.Tensor:
        """Weights [O, I] in float32 with heavy-tailed columns; outputs are `gain` times as large as inputs."""
        made = self.normal(num_out, num_in).mul_(self.normal(num_out, num_in).mul_(0.3).exp_())
        return made.mul_(self.normal(num_in).mul_(0.4).exp_()).mul_(gain * num_in**-0.5)

    def layer(self, number: int) -> dict[str, torch.Tensor]:
        """All tensors of one decoder layer."""
        head = int(self.config["head_dim"])
        q, kv = head * int(self.config["num_attention_heads"]), head * int(self.config["num_key_value_heads"])
        small = (2 * self.layers) ** -0.5
        quiet = torch.ones(self.hidden, device=self.by.device)
        quiet[self.loud] /= self.by
        up, down = self.matrix(self.inner, self.hidden), self.matrix(self.hidden, self.inner, small)
        up[:MLP_OUTLIERS] *= MLP_OUTLIER
        down[:, :MLP_OUTLIERS] /= MLP_OUTLIER
        made = {
            "input_layernorm": self.norm(),
            "post_attention_layernorm": self.norm(),
            "self_attn.q_proj": self.matrix(q, self.hidden) * quiet,
            "self_attn.k_proj": self.matrix(kv, self.hidden) * quiet,
            "self_attn.v_proj": self.matrix(kv, self.hidden) * quiet * self.normal(kv, 1).mul_(0.5).exp_(),
            "self_attn.o_proj": self.matrix(self.hidden, q, small),
            "mlp.gate_proj": self.matrix(self.inner, self.hidden) * quiet,
            "mlp.up_proj": up * quiet,
            "mlp.down_proj": down,
        }
        return {f"model.layers.{number}.{name}.weight": tensor.bfloat16() for name, tensor in made.items()}

    def norm(self) -> torch.Tensor:
        """A norm's weight [I] with the outlier channels."""
        made = 0.5 * self.normal(self.hidden).mul_(0.2).exp_()
        made[self.loud] *= self.by
        return made

    def rest(self) -> dict[str, torch.Tensor]:
        """Embedding, last norm and head; the rows of embedding and head repeat."""
        vocab = int(self.config["vocab_size"])
        rows = self.normal(DISTINCT_ROWS, self.hidden).bfloat16()
        rows = rows.repeat(-(-vocab // DISTINCT_ROWS), 1)[:vocab]
        return {
            "model.embed_tokens.weight": rows * 0.5,
            "model.norm.weight": (0.5 * self.normal(self.hidden).mul_(0.2).exp_()).bfloat16(),
            "lm_head.weight": rows * self.hidden**-0.5,
        }


def tokens(vocab_size: int, sequences: int, seq_len: int, *, seed: int = 0) -> torch.Tensor:
    """Random tokens [S, T], int32; the k-th most frequent of them 1 / k as often as the first."""
    draw = torch.Generator().manual_seed(seed)
    uniform = torch.rand(sequences, seq_len, generator=draw, dtype=torch.float64)
    ranks = (uniform * math.log(vocab_size)).exp()  # the sum of 1 / k up to a rank is nearly its logarithm
    return (ranks.floor().long() - 1).clamp(0, vocab_size - 1).int()


def write_calibration_set(vocab_size: int, sequences: int, seq_len: int, out: Path) -> None:
    """Writes a calibration_set artifact's tokens, without text or tokenizer."""
    out.mkdir(parents=True, exist_ok=True)
    save_file({"tokens": tokens(vocab_size, sequences, seq_len)}, out / "tokens.safetensors")


def main() -> None:
    """Writes a checkpoint from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--layers", type=int)
    options = parser.parse_args()
    write(config(options.shape, options.layers), options.directory)


if __name__ == "__main__":
    main()
