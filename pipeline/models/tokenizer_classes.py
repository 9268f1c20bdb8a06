"""Classes that transformers 5 reads a tokenizer.json by without its pre-tokenizer, which is data of upstream.

They take vocabulary and merges from the file, and cut texts by rules of their own.
"""

from collections.abc import Iterator, Mapping
from typing import Any

REBUILT: Mapping[str, tuple[str, bool]] = {
    **dict.fromkeys(
        ("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "NllbTokenizer", "HerbertTokenizer",
         "OpenAIGPTTokenizer", "ReformerTokenizer", "SeamlessM4TTokenizer", "Siglip2Tokenizer"),
        ("BPE", False),
    ),
    **dict.fromkeys(
        ("GPT2Tokenizer", "GPTNeoXTokenizer", "Qwen2Tokenizer", "Qwen3_5Tokenizer", "RobertaTokenizer",
         "BartTokenizer", "BlenderbotTokenizer", "CLIPTokenizer", "CohereTokenizer", "DebertaTokenizer",
         "NougatTokenizer", "WhisperTokenizer"),
        ("BPE", True),
    ),
    **dict.fromkeys(
        ("AlbertTokenizer", "BigBirdTokenizer", "DebertaV2Tokenizer", "MBartTokenizer", "PegasusTokenizer",
         "RemBertTokenizer", "T5Tokenizer", "XGLMTokenizer", "XLMRobertaTokenizer", "XLNetTokenizer"),
        ("Unigram", False),
    ),
    **dict.fromkeys(
        ("BertTokenizer", "FunnelTokenizer", "MPNetTokenizer", "SplinterTokenizer"), ("WordPiece", False)
    ),
}  # fmt: skip
"""Class -> the type of model it makes, and whether it cuts texts into bytes (ByteLevel)."""

COMPOSED = ("GPTNeoXTokenizer", "Qwen2Tokenizer", "Qwen3_5Tokenizer")
"""Those of REBUILT that normalize texts to NFC."""

OWN: Mapping[str, str] = {
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen3", "qwen3_moe"), "Qwen2Tokenizer"),
    **dict.fromkeys(("gemma", "gemma2", "gemma3", "gemma3_text"), "GemmaTokenizer"),
    "gpt2": "GPT2Tokenizer", "gpt_neox": "GPTNeoXTokenizer", "cohere": "CohereTokenizer",
    **dict.fromkeys(("mistral", "mixtral", "phi3", "deepseek_v2", "deepseek_v3"), ""),
}  # fmt: skip
"""model_type -> the class that transformers reads its tokenizer by; empty: tokenizer.json as it is."""

ALWAYS = ("qwen2",)
"""Types of OWN whose class counts whatever tokenizer_config.json names."""


def class_of(class_name: str, model_type: str) -> str:
    """The class by which transformers reads a tokenizer.json; empty where it takes the file as it is."""
    class_name, own = class_name.removesuffix("Fast"), OWN.get(model_type)
    # an empty OWN is an answer, the file as it is; None only says that the type is not listed
    if not class_name or model_type in ALWAYS or own == "":
        return own or ""
    return class_name if class_name in REBUILT else ""


def rebuilt_otherwise(tokenizer: Mapping[str, Any], name: str) -> str:
    """How a class would read a tokenizer.json otherwise than it is; empty where no plan can tell."""
    if name not in REBUILT:
        return ""
    kind, byte_level = REBUILT[name]
    model_kind = tokenizer.get("model", {}).get("type")
    # a model without a type is left to the library, which tells it by its fields
    if model_kind is not None and model_kind != kind:
        return f"makes a {kind} model of it, and it holds a {model_kind} model"
    kinds = set(_list_kinds(tokenizer))
    if byte_level != ("ByteLevel" in kinds):
        return f"cuts {'texts' if byte_level else 'no text'} by ByteLevel, other than the file"
    if name in COMPOSED and "NFC" not in kinds:
        return "composes accents (NFC), other than the file"
    return ""


def _list_kinds(tokenizer: Mapping[str, Any]) -> Iterator[str]:
    """Types of its normalizers and pre-tokenizers."""
    parts = [tokenizer.get("pre_tokenizer"), tokenizer.get("normalizer")]
    while parts:
        part = parts.pop() or {}
        yield str(part.get("type"))
        parts += [*part.get("pretokenizers", ()), *part.get("normalizers", ())]
