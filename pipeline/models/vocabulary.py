"""Which token each id stands for, as a digest: models that propose tokens to one another must agree on it."""

import hashlib
from pathlib import Path
from typing import Any

from artifacts import digest
from pipeline.errors import SourceError
from pipeline.models.model_json import TOKENIZER, read_json

TABLES = ("tokenizer.json", "vocab.json")
"""Files whose tokens can be read; of others, the bytes must be equal."""

OPAQUE = "tokenizer.model"


def vocabulary(directory: Path) -> str:
    """Digest of a tokenizer's tokens with their ids; empty if the directory has no tokenizer.

    Chat templates, merges and normalizers may differ: they change how text is cut, not what an id means.
    """
    for name in TABLES:
        if (directory / name).is_file():
            return digest.of_json(_read_tokens(directory / name))
    if (directory / OPAQUE).is_file():
        return hashlib.sha256((directory / OPAQUE).read_bytes()).hexdigest()
    return ""


def require_same(target: Path, draft: Path) -> None:
    """Raises SourceError unless both directories' tokenizers have the same tokens under the same ids."""
    if vocabulary(target) != vocabulary(draft):
        raise SourceError(
            f"{draft}: its vocabulary is not that of {target}; a draft model must have the target's tokenizer"
        )


def _read_tokens(path: Path) -> Any:
    """Token table and added tokens, in one order; added tokens may also stand in the table."""
    document = read_json(path, TOKENIZER)
    if path.name == "vocab.json":
        return sorted((token, number) for token, number in document.items())
    table = document.get("model", {}).get("vocab", {})
    if isinstance(table, list):  # a unigram table: token and score, the id is the place
        table = {row[0]: number for number, row in enumerate(table)}
    # Added tokens win: the library looks them up before the model's table.
    added = {token["content"]: token["id"] for token in document.get("added_tokens", [])}
    return sorted((table | added).items())
