"""Chat templates at plan: that rows which are chats have one, and that it is Jinja; none is rendered here."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from artifacts import digest
from calibration.tokenizer_files import TEMPLATES
from pipeline.model_json import TOKENIZER, read_json
from pipeline.toolchains.probe import Memory
from recipes.data import Data

OWN = "chat_template.jinja"

PARSED = 1 << 17
"""Characters of a template that a plan parses, at most; longer ones are left to the step."""


def template_problems(
    base: Path, model: Path | None, sources: Mapping[str, tuple[Data, str]], memory: Memory
) -> Iterator[str]:
    """What is wrong with the templates of a recipe's sources: place -> source, and what its rows hold.

    Rows hold `chat`, `exchange` or anything else; a `model` of None is not here, and its templates unknown.
    `memory` keeps which templates were parsed before.
    """
    used = False
    for place, (item, holds) in sources.items():
        if holds not in ("chat", "exchange") or item.render == "plain":
            continue
        if item.template is not None:
            path = base / item.template
            if said := _syntax(path.read_text(encoding="utf-8"), memory):
                yield f"{place}: template: {path}:{said}"
        elif model is not None:
            used = True
            if (holds == "chat" or item.render == "chat") and not _held(model):
                yield (
                    f"{place}: its rows become chats, and neither the recipe nor the tokenizer in {model} "
                    "has a chat template; name one in 'template', or give text rows"
                )
    if used and model is not None:
        yield from (f"model: {said}" for said in _own_problems(model, memory))


def _files(model: Path) -> list[Path]:
    """A tokenizer's template files, which count before what tokenizer_config.json holds."""
    own, named = model / OWN, model / TEMPLATES
    return [*([own] if own.is_file() else []), *(sorted(named.glob("*.jinja")) if named.is_dir() else [])]


def _held(model: Path) -> bool:
    return bool(_files(model) or _configured(model))


def _configured(model: Path) -> Any:
    path = model / "tokenizer_config.json"
    return read_json(path, TOKENIZER).get("chat_template") if path.is_file() else None


def _own_problems(model: Path, memory: Memory) -> Iterator[str]:
    files = _files(model)
    for path in files:
        data = path.read_bytes()
        try:
            said = _syntax(data.decode(), memory)
        except UnicodeDecodeError as exc:
            line = data.count(b"\n", 0, exc.start) + 1
            said = f"{line}: not UTF-8 ({exc.reason}); get the file again"
        if said:
            yield f"{path}:{said}"
    held = None if files else _configured(model)
    for entry in held if isinstance(held, list) else [held]:
        text = entry.get("template") if isinstance(entry, dict) else entry
        if isinstance(text, str) and (said := _syntax(text, memory)):
            yield f"{model / 'tokenizer_config.json'}: chat_template, line {said}"


def _syntax(text: str, memory: Memory) -> str:
    """Line and fault of what is no Jinja; empty where it is."""
    key = digest.of_json({"template": text})
    if len(text) > PARSED or memory.recall(key) is not None:
        return ""
    from jinja2 import TemplateSyntaxError

    from calibration.data.sandbox import Templates  # jinja2: 50 ms, and only for chats

    try:
        Templates().env.parse(text)
    except TemplateSyntaxError as exc:
        return f"{exc.lineno}: no Jinja template ({exc.message}); mend it, or get the file again"
    except ValueError as exc:  # a number of thousands of digits
        return f"1: no Jinja template ({exc}); mend it, or get the file again"
    except RecursionError:
        return "1: nests too deeply for a Jinja template; mend it"
    memory.keep(key, {}, [])
    return ""
