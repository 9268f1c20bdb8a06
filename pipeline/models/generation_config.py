"""What `generation_config.json` of a model says to whoever generates with it."""

from pathlib import Path
from typing import Any

from pipeline.errors import SourceError
from pipeline.models.model_json import read_json, shortened

FILE = "generation_config.json"


def ends(directory: Path) -> list[int] | None:
    """Tokens that end a text, None where the file is absent or silent; a SourceError for other values."""
    path = directory / FILE
    if not path.is_file():
        return None
    ids: Any = read_json(path).get("eos_token_id")
    tokens: list[Any] = ids if isinstance(ids, list) else [ids]
    if ids is not None and not all(type(token) is int and token >= 0 for token in tokens):
        raise SourceError(
            f"{path}: eos_token_id is {shortened(ids)}; it must be null, a token or a list of them"
        )
    return None if ids is None else tokens
