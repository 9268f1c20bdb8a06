"""The JSON files beside a tokenizer's tokens: which fields are read, and what each must be."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import SourceError
from pipeline.models.model_json import TOKENIZER, read_json, shortened

DESCRIPTIONS = (
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "generation_config.json",
    "chat_template.json",
)  # fmt: skip
"""Files beside the tokens, each a JSON object."""

OTHERS = ("generation_config.json", "chat_template.json")
"""Those of them that say nothing of the tokens."""


TEMPLATES = "a Jinja template, as a string or a list of objects with name and template,"


def descriptions(directory: Path) -> Iterator[str]:
    """What is wrong with the files beside the tokens."""
    for name in DESCRIPTIONS:
        path = directory / name
        if not path.exists():
            continue
        try:
            document = read_json(path, TOKENIZER)
        except SourceError as exc:
            yield str(exc)
            continue
        if name in OTHERS:
            continue
        # there every name is a token, so no field is known in advance
        fields = dict.fromkeys(document, is_id) if name == "added_tokens.json" else FIELDS
        for field, fits in fields.items():
            value = document.get(field)
            # null is taken everywhere, as if the field were left out
            if value is not None and (expectation := fits(value)):
                yield f"{path}: {field} is {shortened(value)}, {expectation} is needed; get the file again"


def _is_text(value: Any) -> str:
    return "" if isinstance(value, str) else "a string"


def _is_side(value: Any) -> str:
    return "" if value in ("left", "right") else "left or right"


def _is_template(value: Any) -> str:
    texts = value.values() if isinstance(value, dict) else [value]
    if isinstance(value, list):
        texts = [
            entry["template"] if isinstance(entry, dict) and {"name", "template"} <= entry.keys() else None
            for entry in value
        ] + [entry["name"] for entry in value if isinstance(entry, dict) and "name" in entry]
    return "" if all(isinstance(text, str) for text in texts) else TEMPLATES


def is_id(value: Any) -> str:
    """What a value must be to be a token's id; empty where it is one."""
    return "" if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else "a token's id"


def _is_token(value: Any) -> str:
    text = value.get("content") if isinstance(value, dict) else value
    return "" if isinstance(text, str) else "a token, as a string or an object with content"


def _is_number(value: Any) -> str:
    return "" if isinstance(value, int | float) and not isinstance(value, bool) else "a number"


def _is_list(value: Any) -> str:
    # [None] is one item that is no token: it refuses any other type
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [None]
    return "" if not any(map(_is_token, items)) else "a list of tokens"


def _is_table(value: Any) -> str:
    whole = isinstance(value, dict) and all(number.isdecimal() for number in value)
    return "" if whole and not any(map(_is_token, value.values())) else "an object of id -> token"


FIELDS: Mapping[str, Callable[[Any], str]] = {
    "tokenizer_class": _is_text, "padding_side": _is_side, "model_max_length": _is_number,
    "bos_token": _is_token, "eos_token": _is_token, "unk_token": _is_token, "pad_token": _is_token,
    "cls_token": _is_token, "sep_token": _is_token, "mask_token": _is_token,
    "additional_special_tokens": _is_list, "extra_special_tokens": _is_list,
    "added_tokens_decoder": _is_table, "chat_template": _is_template,
}  # fmt: skip
"""Fields of tokenizer_config.json and special_tokens_map.json -> what they must be, where they are not."""
