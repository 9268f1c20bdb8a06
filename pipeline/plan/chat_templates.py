"""Chat templates at plan: that rows which are chats have one, and that it is Jinja; none is rendered here."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from artifacts import digest
from calibration.tokenizer_files import TEMPLATES
from pipeline.models.model_json import TOKENIZER, read_json
from pipeline.plan.data_facts import DataFacts
from pipeline.toolchains.probe import Memory
from recipes.data import Data

OWN = "chat_template.jinja"

PARSED = 1 << 17
"""Characters of a model's own template that a plan parses, at most; longer ones are left to the step."""


def template_problems(
    base: Path, model: Path | None, sources: Mapping[str, tuple[Data, DataFacts]], memory: Memory
) -> Iterator[str]:
    """What is wrong with the templates of a recipe's sources: place -> source, and what is known of it.

    Rows hold `chat`, `exchange` or anything else; a `model` of None is not here, and its templates unknown.
    `memory` keeps which templates were parsed before.
    """
    for place, (item, data_facts) in sources.items():
        holds = data_facts.holds
        if item.template is not None:  # whatever the rows hold: its text is part of what is published
            if fault := _syntax(str(data_facts.source.template), memory, named=True):
                yield f"{place}: template: {base / item.template}:{fault}"
        elif holds not in ("chat", "exchange") or item.render == "plain":
            continue
        elif model is not None and (holds == "chat" or item.render == "chat") and not _held(model):
            yield (
                f"{place}: its rows become chats, and neither the recipe nor the tokenizer in {model} "
                "has a chat template; name one in 'template', or give text rows"
            )
    if model is not None:
        yield from (f"model: {fault}" for fault in _own_problems(model, memory))


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
        if fault := _syntax(path.read_bytes().decode(), memory):
            yield f"{path}:{fault}"
    # files count before the configuration: what they hide is never rendered, and not checked
    template = None if files else _configured(model)
    entries = (
        # a mapping of name to text, a list of {name, template}, or one text: all three occur
        template.values()
        if isinstance(template, dict)
        else template
        if isinstance(template, list)
        else [template]
    )
    for entry in entries:
        text = entry.get("template") if isinstance(entry, dict) else entry
        if isinstance(text, str) and (fault := _syntax(text, memory)):
            yield f"{model / 'tokenizer_config.json'}: chat_template, line {fault}"


def _syntax(text: str, memory: Memory, *, named: bool = False) -> str:
    """Line and fault of what is no Jinja; empty where it is.

    One that a recipe names must print messages: any text without braces is Jinja, a private key too.
    """
    # the stricter check of a named template has its own key: one answer may not serve both
    key = digest.of_json({"template": text, **({"named": True} if named else {})})
    # only good templates are kept, so that a bad one is reported by every plan
    if (len(text) > PARSED and not named) or memory.recall(key) is not None:
        return ""
    if fault := _fault(text, named=named):
        return f"{fault}, or get the file again"
    memory.keep(key, {}, [])
    return ""


def _fault(text: str, *, named: bool) -> str:
    from jinja2 import TemplateSyntaxError, nodes

    from calibration.data.sandbox import Templates  # jinja2: 50 ms, and only for chats

    try:
        parsed = Templates().env.parse(text)
        if named and not any(name.name == "messages" for name in parsed.find_all(nodes.Name)):
            return "1: no chat template, for it does not read 'messages'; name one that does"
    except TemplateSyntaxError as exc:
        return f"{exc.lineno}: no Jinja template ({exc.message}); mend it"
    except ValueError as exc:  # a number of thousands of digits
        return f"1: no Jinja template ({exc}); mend it"
    except RecursionError:
        return "1: nests too deeply for a Jinja template; mend it"
    return ""
