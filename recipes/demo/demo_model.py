"""The demo's Llama: its shape, how it is trained, and its perplexity."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

MAX_LENGTH = 2048
SHAPE = {
    "vocab_size": 2048,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "max_position_embeddings": MAX_LENGTH,
    "tie_word_embeddings": False,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512,
    },
}

Progress = Callable[[int, float], None]
"""Called with the step and its loss in nats per token."""


@dataclass(frozen=True, slots=True)
class Training:
    """How the model is trained; the defaults made the checkpoint that ships."""

    steps: int = 5000
    batch_size: int = 32
    seq_len: int = 1024
    """Tokens per sample."""
    learning_rate: float = 4e-3
    weight_decay: float = 1.0
    warmup_steps: int = 100
    dropout: float = 0.25
    """Share of what each attention and MLP block adds that is dropped."""
    seed: int = 0


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Create the model with random float32 weights."""
    torch.manual_seed(seed)
    ids = {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    # Two stops: the end of a text, and the end of a turn in a chat.
    stops = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|eot_id|>")]
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, **ids, eos_token_id=stops))
    model.generation_config = GenerationConfig(
        **ids, eos_token_id=stops, do_sample=True, temperature=0.6, top_p=0.9
    )
    return model


def train(model: LlamaForCausalLM, stream: torch.Tensor, settings: Training, progress: Progress) -> None:
    """Train in place on random windows of a token stream, in bf16 over float32 master weights."""
    torch.manual_seed(settings.seed)
    hooks = add_dropout(model, settings.dropout)
    optimizer = make_optimizer(model, settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, settings))
    model.train()
    for step, batch in enumerate(windows(stream, settings)):
        # Steps of this learning rate are below bf16's resolution, so that the weights stay in float32.
        with torch.autocast(stream.device.type, torch.bfloat16):
            logits = model(batch[:, :-1], use_cache=False).logits
        loss = functional.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == settings.steps - 1:
            progress(step, loss.item())
    for hook in hooks:
        hook.remove()
    model.eval()


def add_dropout(model: LlamaForCausalLM, share: float) -> list[torch.utils.hooks.RemovableHandle]:
    """Drop a share of what each block adds to the residual stream; returns the hooks to remove."""

    def drop(_module: torch.nn.Module, _inputs: object, added: torch.Tensor) -> torch.Tensor:
        return functional.dropout(added, share)

    blocks = [block for layer in model.model.layers for block in (layer.self_attn.o_proj, layer.mlp)]
    return [block.register_forward_hook(drop) for block in blocks]


def make_optimizer(model: LlamaForCausalLM, settings: Training) -> torch.optim.Optimizer:
    """Create AdamW that decays matrices but not norms."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": settings.weight_decay},
        # Norms scale whole channels; decay would pull them to zero.
        {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.95))


def rate(step: int, settings: Training) -> float:
    """Return the factor on the learning rate: linear warm-up, then half a cosine down to zero."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def windows(stream: torch.Tensor, settings: Training) -> Iterator[torch.Tensor]:
    """Yield batches of `seq_len + 1` tokens from random places of the stream, int64 [batch, seq_len + 1]."""
    # On the CPU, whose sequence does not depend on the GPU.
    chooser = torch.Generator().manual_seed(settings.seed)
    span = torch.arange(settings.seq_len + 1, device=stream.device)
    for _ in range(settings.steps):
        starts = torch.randint(len(stream) - len(span), (settings.batch_size, 1), generator=chooser)
        yield stream[starts.to(stream.device) + span]


@torch.inference_mode()
def perplexity(model: LlamaForCausalLM, rows: list[list[int]]) -> float:
    """Return the perplexity per token over rows of token ids, each row on its own after its first token."""
    total, count = 0.0, 0
    for row in rows:
        ids = torch.tensor([row[:MAX_LENGTH]], device=model.device)
        logits = model(ids, use_cache=False).logits[0, :-1].float()
        # Summed, so that long rows count by their tokens.
        total += functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        count += ids.shape[1] - 1
    return math.exp(total / count)
