"""A tiny random Llama with a trained tokenizer: large enough for every format, small enough for seconds."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = (
    *("the", "engine", "reads", "a", "recipe", "and", "writes", "scales", "for", "every"),
    *("layer", "of", "the", "model", "that", "people", "trained", "on", "text"),
)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'robot' %}{{ raise_exception('robots may not speak') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}"
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The models here are so small that threads only wait for each other, longest on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sentence(seed: int, words: int) -> str:
    """Some words in an order that depends on the seed."""
    return " ".join(WORDS[(seed * 7 + 3 * i * i + i) % len(WORDS)] for i in range(words))


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that adds BOS, with a chat template."""
    raw = Tokenizer(BPE())
    raw.pre_tokenizer = ByteLevel(add_prefix_space=False)
    raw.decoder = ByteLevelDecoder()
    special = ["<unk>", "<s>", "</s>"]
    trainer = BpeTrainer(vocab_size=384, special_tokens=special, initial_alphabet=ByteLevel.alphabet())
    raw.train_from_iterator([sentence(i, 30) for i in range(20)], trainer)
    raw.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=CHAT_TEMPLATE,
    )


def llama(**changes: object) -> LlamaForCausalLM:
    """Two bfloat16 layers with grouped heads, Llama-3 rotary scaling and outlier channels."""
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    settings = {
        "vocab_size": 384,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "rope_parameters": rope,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "initializer_range": 0.08,
        "architectures": ["LlamaForCausalLM"],
    }
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**(settings | changes))).to(torch.bfloat16)
    with torch.no_grad():
        for layer in model.model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            for norm, linears in (
                (layer.input_layernorm, (attention.q_proj, attention.k_proj, attention.v_proj)),
                (layer.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj)),
            ):
                norm.weight[::32] *= 16.0
                for linear in linears:
                    linear.weight[:, ::32] /= 16.0
    return model


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the tiny checkpoint."""
    root = tmp_path_factory.mktemp("checkpoint")
    llama().save_pretrained(root)
    tokenizer().save_pretrained(root)
    return root


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A JSONL file of 40 text rows."""
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"id": i, "text": sentence(i, 12 + i % 5)}) + "\n" for i in range(40)))
    return path
