"""The files of a checkpoint that belong to its tokenizer, which are copied along with the model."""

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from calibration.links import open_inside

NAMES = frozenset(
    {
        "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
        "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
        "chat_template.jinja", "chat_template.json",
    }
)  # fmt: skip
"""Files beside the weights, wherever they exist."""

TEMPLATES = "additional_chat_templates"
"""Directory of the chat templates beside `chat_template.jinja`, as transformers saves them: NAME.jinja."""

NAMED = re.compile(rf"{TEMPLATES}/[\w][\w.-]*\.jinja")


def tokenizer_files(names: Iterable[str]) -> list[str]:
    """The tokenizer's files among a checkpoint's files, relative to its root; sorted."""
    return sorted(name for name in names if name in NAMES or NAMED.fullmatch(name))


def local_files(directory: Path) -> list[str]:
    """Names of a directory's entries, and of its named chat templates."""
    names = [entry.name for entry in directory.iterdir()]
    if TEMPLATES in names and (directory / TEMPLATES).is_dir():
        names += [f"{TEMPLATES}/{entry.name}" for entry in (directory / TEMPLATES).iterdir()]
    return names


def copy_tokenizer(source: Path, target: Path) -> list[str]:
    """Copies the tokenizer's files of a checkpoint into the directory `target`; returns their names."""
    names = [name for name in tokenizer_files(local_files(source)) if (source / name).is_file()]
    for name in names:
        (target / name).parent.mkdir(exist_ok=True)
        with os.fdopen(open_inside(source, name), "rb") as reader, (target / name).open("wb") as writer:
            shutil.copyfileobj(reader, writer)
    return names
