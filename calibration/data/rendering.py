"""From a row's content to the tokens that the model sees; runs in a child process."""

import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from calibration.data.chats import Chat
from calibration.data.encoding import encode
from calibration.data.fields import Content, Exchange
from calibration.data.scan import Sample
from calibration.data.templates import Rendered, Request, Sandbox, TemplateRefused
from calibration.errors import CheckpointError, DataError
from calibration.parameters import DrawnSource
from recipes.calibration import DATE

SHOWN = 5
"""Tokens that a message lists."""

PROBES = (
    "The pump [x] loses the  river,\ttwice;\n\n   don't 3.14 x 12345",
    "Ünïcödé, cafe\u0301 naïve, «quoted»", "水泵坏了。ポンプ 펌프", "so 😀👩\u200d🔧 it is",
    "def f(x):\n    return {'a': x[0] != 1}  # no\r\n",
)  # fmt: skip
"""Texts that tell two ways of reading a tokenizer.json apart. None begins with a space: there the ways of
putting one in front that are in use differ, and upstream's own conversions too."""

AHEAD = 16
"""Chats that are rendered while the caller works on one, at most."""

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
    def of(cls, data: DrawnSource) -> "Rendering":
        """What a source's parameters say."""
        return cls(data.template, data.system, data.render, data.date or DATE)


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
        tokenizer, prefix = _loaded(source, named)
        # Rows are cut into sequences later; the tokenizer's warning about long rows means nothing here.
        tokenizer.model_max_length = int(1e30)
        reader = cls(tokenizer, vocab_size, prefix)
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
            advice = "drop the row, or give a model whose embeddings were resized to its tokenizer"
            bos = self.tokenizer.bos_token_id
            if bos is not None and bos >= self.vocab_size and bos in ids:
                advice = "that is the tokenizer's BOS, which begins texts; name the model's own BOS"
            raise DataError(f"{place} uses {beyond}, the model has {self.vocab_size} tokens; {advice}")
        return ids

    def ahead(self, samples: Iterable[Sample], how: Rendering) -> Iterator[Sample]:
        """The samples, in order; the chats of the next ones are rendered while the caller works on one."""
        sent = deque[Sample]()
        for sample in samples:
            while not self._send_ahead(sample.content, how) and sent:
                yield sent.popleft()
            if not self.sandbox.sent_for(sample.content):
                yield sample
                continue
            sent.append(sample)
            if len(sent) > AHEAD:
                yield sent.popleft()
        yield from sent

    def text(self, content: Content, how: Rendering, place: str) -> tuple[str, bool]:
        """A row's text, and whether a chat template wrote it: then special tokens are in it already."""
        chat = self._as_chat(content, how)
        if chat is None:
            if how.system is not None:
                raise DataError(
                    f"{place}: text, not a chat, so the system prompt has no place; remove 'system'"
                )
            return joined(content) if isinstance(content, Exchange) else str(content), False
        if how.render == "plain":
            raise DataError(f"{place}: chat messages cannot be rendered plain; give text rows")
        if how.template is None and self.tokenizer.chat_template is None:
            raise DataError(
                f"{place}: chat messages, but the tokenizer has no chat template; name one in 'template', or "
                "give text rows"
            )
        try:
            found = self._rendered(chat, how, content)
        except TemplateRefused as exc:
            raise DataError(f"{place}: {exc}; fix the row or the template") from None
        if found.dated:
            self.dated.add(how)
        return found.text, True

    def rendered(self, chat: Chat, how: Rendering, *, answer: bool = False) -> Rendered:
        """A chat through the recipe's template or the tokenizer's; `answer` lets an answer begin.

        Raises TemplateRefused, with the template's name in the message.
        """
        return self._rendered(chat, how, None, answer=answer)

    def _as_chat(self, content: Content, how: Rendering) -> Chat | None:
        """The chat that a row is, or is made to be; None for text."""
        if isinstance(content, Exchange):
            usable = how.template is not None or self.tokenizer.chat_template is not None
            if how.render == "chat" or (how.render == "auto" and usable):
                turns = (("user", content.prompt), ("assistant", content.completion))
                return Chat(tuple({"role": role, "content": said} for role, said in turns))
        return content if isinstance(content, Chat) else None

    def _send_ahead(self, content: Content, how: Rendering) -> bool:
        chat = self._as_chat(content, how)
        if chat is None or how.render == "plain" or (how.template or self.tokenizer.chat_template) is None:
            return False
        try:
            return self.sandbox.send_ahead(self._request(chat, how), content)
        except TemplateRefused:  # told when the row's turn comes
            return False

    def _rendered(self, chat: Chat, how: Rendering, whose: object, *, answer: bool = False) -> Rendered:
        request = self._request(chat, how, answer=answer)
        try:
            return self.sandbox.render(request, whose)
        except TemplateRefused as exc:
            raise TemplateRefused(f"{self._template(how, chat.tools)[0]} {exc}") from None

    def _request(self, chat: Chat, how: Rendering, *, answer: bool = False) -> Request:
        messages = list(chat.messages)
        if how.system is not None and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": how.system})
        values = {"tools": chat.tools or None, "documents": None, "add_generation_prompt": answer}
        return Request(
            self._template(how, chat.tools)[1],
            messages,
            how.date,
            {**self.tokenizer.special_tokens_map, **values},
        )

    def _template(self, how: Rendering, tools: Sequence[Any]) -> tuple[str, str]:
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


def _loaded(source: Path, named: str) -> tuple[Any, tuple[int, ...]]:
    """A directory's tokenizer and its prefix; CheckpointError where it does not load, or reads otherwise."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
        differs, prefix = _differing(tokenizer, source / "tokenizer.json"), _prefix(tokenizer)
    except BaseException as exc:
        panicked = type(exc).__name__ == "PanicException"
        if isinstance(exc, MemoryError) or not (panicked or isinstance(exc, Exception)):
            raise
        # Both libraries raise what comes, bare Exceptions too; the Rust one panics, by a BaseException.
        told = str(exc).replace(str(source), named)
        raise CheckpointError(f"{named}: transformers cannot load the tokenizer ({told})") from exc
    if differs:
        name = type(tokenizer).__name__
        raise CheckpointError(
            f"{named}: transformers reads tokenizer.json by {name}, which makes other tokens than the file "
            f"says: {differs}. Servers that load it by transformers would do the same; "
            + _instead(source, name)
        )
    return tokenizer, prefix


def _instead(source: Path, name: str) -> str:
    """What to do about a class that reads a tokenizer.json otherwise."""
    about = source / "tokenizer_config.json"
    told = json.loads(about.read_bytes()).get("tokenizer_class") if about.is_file() else None
    if told and told.removesuffix("Fast") != name:
        return f"for this model_type it takes {name} whatever is named; give a tokenizer made with {name}"
    return (
        "in tokenizer_config.json set tokenizer_class to PreTrainedTokenizerFast, or to the class that the "
        "tokenizer was made with"
    )


def _differing(tokenizer: Any, file: Path) -> str:
    """The first of PROBES that a class reads otherwise than tokenizer.json itself; empty where none is."""
    if not file.is_file():
        return ""
    own = Tokenizer.from_file(str(file))
    own.no_truncation()
    own.no_padding()
    for text in PROBES:
        ids, theirs = own.encode(text, add_special_tokens=False).ids, encode(tokenizer, text, special=False)
        if ids != theirs.tolist():
            pairs = zip(ids, theirs.tolist(), strict=False)
            at = next(
                (at for at, (one, other) in enumerate(pairs) if one != other), min(len(ids), theirs.size)
            )
            became, wanted = (found[at : at + SHOWN] for found in (theirs.tolist(), ids))
            return f"{text!r} becomes {became} instead of {wanted} from its token {at + 1} on"
    return ""


def _prefix(tokenizer: Any) -> tuple[int, ...]:
    whole, bare = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
    starts = (at for at in range(len(whole)) if whole[at : at + len(bare)] == bare)
    return tuple(whole[: next(starts, 0)])


def joined(content: Exchange) -> str:
    """Prompt and completion as one text: as they are if white space parts them, else with a line end."""
    parted = content.prompt[-1:].isspace() or content.completion[:1].isspace()
    return content.prompt + ("" if parted else "\n") + content.completion
