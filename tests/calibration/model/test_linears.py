import fnmatch
from typing import Any

import modelopt.torch.quantization as mtq
import pytest
import torch
from transformers import AutoModelForCausalLM

from calibration.model.linears import HEAD, Layout, attention, is_tied, layout, left_out
from recipes.formats import FORMATS
from tests.calibration.families import CONFIGS


def enabled(module: str, rules) -> bool:
    """Whether a preset's rules, of which the last match counts, quantize a linear's weight."""
    found = False
    for rule in rules:
        if "parent_class" not in rule and fnmatch.fnmatch(
            f"{module}.weight_quantizer", rule["quantizer_name"]
        ):
            found = rule.get("enable", True)
    return found


@pytest.mark.parametrize("preset", [fmt.modelopt_cfg for fmt in FORMATS.values() if fmt.modelopt_cfg])
def test_every_preset_quantizes_all_linears_but_the_head(preset: str):
    rules = getattr(mtq, preset)["quant_cfg"]
    assert all(enabled(name, rules) for name in Layout("llama", 12).linears())
    assert not enabled(HEAD, rules)


@pytest.mark.parametrize("family", CONFIGS)
def test_linears_of_a_family_are_those_of_transformers(family: str):
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 32}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = CONFIGS[family](**sizes)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    found = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    assert found == [*layout(config.to_dict()).linears(), HEAD]


def test_groups_name_the_norm_that_feeds_them():
    first, second, *rest = Layout("llama", 3).groups()
    assert first.linears == tuple(f"model.layers.0.self_attn.{x}_proj" for x in "qkv")
    assert (first.norm, second.norm) == (
        "model.layers.0.input_layernorm",
        "model.layers.0.post_attention_layernorm",
    )
    assert len(rest) == 4


def test_only_known_tensors_left_out():
    assert left_out("model.layers.3.self_attn.rotary_emb.inv_freq", tied=False)
    assert left_out("lm_head.weight", tied=True) == "tied to the embedding, which is written"
    assert left_out("lm_head.weight", tied=False) == ""
    assert left_out("model.layers.0.mlp.experts.weight", tied=True) == ""


@pytest.mark.parametrize(
    ("config", "kernel"),
    [
        ({"model_type": "gemma2"}, "eager"),
        ({"model_type": "gemma2", "attn_logit_softcapping": None}, "sdpa"),
        ({"model_type": "gemma3_text", "attn_logit_softcapping": None}, "sdpa"),
        ({"model_type": "llama"}, "sdpa"),
    ],
)
def test_soft_caps_need_the_slow_attention(config: dict[str, Any], kernel: str):
    assert attention(config) == kernel


def test_a_gemma_is_tied_unless_its_config_says_otherwise():
    assert is_tied({"model_type": "gemma2"})
    assert not is_tied({"model_type": "gemma2", "tie_word_embeddings": False})
    assert not is_tied({"model_type": "llama"})
