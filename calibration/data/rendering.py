"""From a row's content to the tokens that the model sees; runs in a child process."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import AutoTokenizer

from calibration.data.chats import Chat, Message
from calibration.data.encoding import encode
from calibration.data.fields import Content, Exchange
from calibration.data.templates import Rendered, Sandbox, TemplateRefused
from calibration.errors import CheckpointError, DataError
from recipes.calibration import DATE

SHOWN = 5
"""Tokens that a message lists."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True, slots=True)
class Rendering:
    """How the rows of one source become text, as the recipe says."""

    template: str | None = None
    """Jinja text; None takes the tokenizer's own."""
    system: str | None = None
    """Put in front of chats that have no system message."""
    render: str = "auto"
    """`chat`, `plain`, or `auto`: what becomes of prompts and completions."""
    date: str = DATE
    """What a template that prints today's date is told, ISO 8601."""

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Rendering":
        """What a source's params say."""
        return cls(
            data.get("template"), data.get("system"), data.get("render", "auto"), data.get("date", DATE)
        )


@dataclass(frozen=True, slots=True)
class Reader:
    """A checkpoint's tokenizer, beside the model that reads its tokens."""

    tokenizer: Any
    vocab_size: int
    """Tokens that the model has."""
    prefix: tuple[int, ...] = ()
    """Tokens that the tokenizer puts in front of a text, BOS as a rule; empty where it puts none."""
    sandbox: Sandbox = field(default_factory=Sandbox)
    """Renders its chat templates."""
    dated: set[Rendering] = field(default_factory=set)
    """Renderings whose template printed the date."""

    @classmethod
    def open(cls, source: Path, where: str = "") -> "Reader":
        """The tokenizer of a checkpoint directory, which messages call `where`.

        Its remote code is never run; raises CheckpointError when there is no tokenizer that loads.
        """
        named = where or str(source)
        if not any((source / name).is_file() for name in TOKENIZER_FILES):
            raise CheckpointError(
                f"{named}: no tokenizer; the checkpoint needs one of {', '.join(TOKENIZER_FILES)}"
            )
        vocab_size = json.loads((source / "config.json").read_bytes())["vocab_size"]
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as exc:
            told = str(exc).replace(str(source), named)
            raise CheckpointError(f"{named}: transformers cannot load the tokenizer ({told})") from exc
        # Rows are cut into sequences later; the tokenizer's warning about long rows means nothing here.
        tokenizer.model_max_length = int(1e30)
        reader = cls(tokenizer, vocab_size, _prefix(tokenizer))
        if beyond := reader.beyond(reader.prefix):
            raise CheckpointError(
                f"{named}: the tokenizer puts {beyond} in front of every text, the model has {vocab_size} "
                "tokens; give the tokenizer that belongs to the model"
            )
        return reader

    @property
    def pad_id(self) -> int:
        """Token that fills up short sequences; which one it is, no result may depend on."""
        candidates = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)
        return next((int(found) for found in candidates if found is not None and found < self.vocab_size), 0)

    @property
    def prefix_text(self) -> str:
        """The tokens that the tokenizer puts in front of a text, as people write them."""
        return " ".join(self.tokenizer.convert_ids_to_tokens(list(self.prefix)))

    def beyond(self, ids: Iterable[int]) -> str:
        """The tokens that the model does not have, the first each as `text = id`; empty where it has all."""
        missing = sorted({index for index in ids if index >= self.vocab_size})
        shown = [f"{self.tokenizer.convert_ids_to_tokens(index)} = {index}" for index in missing[:SHOWN]]
        more = [f"{len(missing) - SHOWN} more"] if len(missing) > SHOWN else []
        return ", ".join([*shown, *more])

    @property
    def special_ids(self) -> dict[int, str]:
        """Id -> text of the tokens that are no text."""
        added = self.tokenizer.added_tokens_decoder
        ids = {*self.tokenizer.all_special_ids, *(index for index, token in added.items() if token.special)}
        return {index: self.tokenizer.convert_ids_to_tokens(index) for index in sorted(ids)}

    def token_ids(self, content: Content, how: Rendering, place: str) -> npt.NDArray[np.int32]:
        """A row's tokens; raises DataError where it cannot be rendered as the recipe wants it."""
        text, chat = self.text(content, how, place)
        ids = encode(self.tokenizer, text, special=not chat)
        if beyond := self.beyond(ids[ids >= self.vocab_size].tolist()):
            raise DataError(
                f"{place} uses {beyond}, the model has {self.vocab_size} tokens; drop the row, or give a "
                "model whose embeddings were resized to its tokenizer"
            )
        return ids

    def text(self, content: Content, how: Rendering, place: str) -> tuple[str, bool]:
        """A row's text, and whether a chat template wrote it: then special tokens are in it already."""
        if isinstance(content, Exchange):
            usable = how.template is not None or self.tokenizer.chat_template is not None
            if how.render == "chat" or (how.render == "auto" and usable):
                content = Chat(
                    (
                        {"role": "user", "content": content.prompt},
                        {"role": "assistant", "content": content.completion},
                    )
                )
            else:
                content = joined(content)
        if isinstance(content, Chat):
            return self._rendered(content, how, place), True
        if how.system is not None:
            raise DataError(f"{place}: text, not a chat, so the system prompt has no place; remove 'system'")
        return content, False

    def _rendered(self, content: Chat, how: Rendering, place: str) -> str:
        if how.render == "plain":
            raise DataError(f"{place}: chat messages cannot be rendered plain; give text rows")
        if how.template is None and self.tokenizer.chat_template is None:
            raise DataError(
                f"{place}: chat messages, but the tokenizer has no chat template; name one in 'template', or "
                "give text rows"
            )
        messages = list(content.messages)
        if how.system is not None and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": how.system})
        try:
            found = self.rendered(messages, list(content.tools), how)
        except TemplateRefused as exc:
            raise DataError(f"{place}: {exc}; fix the row or the template") from None
        if found.dated:
            self.dated.add(how)
        return found.text

    def rendered(
        self, messages: list[Message], tools: list[Any], how: Rendering, *, answer: bool = False
    ) -> Rendered:
        """Messages through the recipe's chat template or the tokenizer's; `answer` lets an answer begin.

        Raises TemplateRefused, with the template's name in the message.
        """
        name, source = self._template(how, tools)
        values = {"tools": tools or None, "documents": None, "add_generation_prompt": answer}
        try:
            return self.sandbox.render(
                source, messages, how.date, {**self.tokenizer.special_tokens_map, **values}
            )
        except TemplateRefused as exc:
            raise TemplateRefused(f"{name} {exc}") from None

    def _template(self, how: Rendering, tools: list[Any]) -> tuple[str, str]:
        """Name and text of the template; of several, `tool_use` for chats with tools, as in transformers."""
        own = self.tokenizer.chat_template
        if how.template is not None:
            return "the recipe's template", how.template
        if not isinstance(own, dict):
            return "the chat template", own
        name = "tool_use" if tools and "tool_use" in own else "default"
        if name not in own:
            raise TemplateRefused(f"the tokenizer has chat templates {sorted(own)} and no 'default'")
        return f"the chat template {name!r}", own[name]


def _prefix(tokenizer: Any) -> tuple[int, ...]:
    whole, bare = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
    starts = (at for at in range(len(whole)) if whole[at : at + len(bare)] == bare)
    return tuple(whole[: next(starts, 0)])


def joined(content: Exchange) -> str:
    """Prompt and completion as one text: as they are if white space parts them, else with a line end."""
    parted = content.prompt[-1:].isspace() or content.completion[:1].isspace()
    return content.prompt + ("" if parted else "\n") + content.completion
