"""Renders the contents of rows and tokenizes them; runs in a child process."""

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
"""Texts that reveal different interpretations of a tokenizer.json. None begins with a space: there, common
ways to prepend one differ, even among upstream's own conversions."""

AHEAD = 16
"""Most chats that are rendered ahead of the caller."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True, slots=True)
class Rendering:
    """The rendering options of one source, from the recipe."""

    template: str | None = None
    """Jinja text; None for the tokenizer's own template."""
    system: str | None = None
    """System prompt for chats without a system message."""
    render: str = "auto"
    """`chat`, `plain` or `auto`: how prompts and completions are rendered."""
    date: str = DATE
    """Date for templates that print today's date, ISO 8601."""

    @classmethod
    def of(cls, data: DrawnSource) -> "Rendering":
        """What a source's parameters say."""
        return cls(data.template, data.system, data.render, data.date or DATE)


@dataclass(frozen=True, slots=True)
class Reader:
    """A checkpoint's tokenizer, checked against its model's vocabulary."""

    tokenizer: Any
    vocab_size: int
    """Tokens that the model has."""
    prefix: tuple[int, ...] = ()
    """Tokens that the tokenizer puts in front of a text, usually BOS."""
    sandbox: Sandbox = field(default_factory=Sandbox)
    """Renders its chat templates."""
    dated: set[Rendering] = field(default_factory=set)
    """Renderings whose template printed the date."""

    @classmethod
    def open(cls, source: Path, title: str = "") -> "Reader":
        """The tokenizer of a checkpoint directory, which messages call `title`.

        Remote code is never run. CheckpointError where no tokenizer can be loaded.
        """
        label = title or str(source)
        if not any((source / name).is_file() for name in TOKENIZER_FILES):
            raise CheckpointError(
                f"{label}: no tokenizer; the checkpoint needs one of {', '.join(TOKENIZER_FILES)}"
            )
        vocab_size = json.loads((source / "config.json").read_bytes())["vocab_size"]
        tokenizer, prefix = _load_tokenizer(source, label)
        # Rows are cut into sequences later, so the tokenizer's warning about long rows does not apply.
        tokenizer.model_max_length = int(1e30)
        reader = cls(tokenizer, vocab_size, prefix)
        if beyond := reader.beyond(reader.prefix):
            raise CheckpointError(
                f"{label}: the tokenizer puts {beyond} in front of every text, the model has {vocab_size} "
                "tokens; give the tokenizer that belongs to the model"
            )
        return reader

    @property
    def pad_id(self) -> int:
        """Token that pads short sequences; no result may depend on which one it is."""
        candidates = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)
        return next(
            (
                int(candidate)
                for candidate in candidates
                if candidate is not None and candidate < self.vocab_size
            ),
            0,
        )

    @property
    def prefix_text(self) -> str:
        """The prefix as text."""
        return " ".join(self.tokenizer.convert_ids_to_tokens(list(self.prefix)))

    def beyond(self, ids: Iterable[int]) -> str:
        """The tokens outside the model's vocabulary, the first ones as `text = id`; empty if none."""
        missing = sorted({index for index in ids if index >= self.vocab_size})
        described = [f"{self.tokenizer.convert_ids_to_tokens(index)} = {index}" for index in missing[:SHOWN]]
        more = [f"{len(missing) - SHOWN} more"] if len(missing) > SHOWN else []
        return ", ".join([*described, *more])

    @property
    def special_ids(self) -> dict[int, str]:
        """Id -> text of the special tokens."""
        added = self.tokenizer.added_tokens_decoder
        ids = {*self.tokenizer.all_special_ids, *(index for index, token in added.items() if token.special)}
        return {index: self.tokenizer.convert_ids_to_tokens(index) for index in sorted(ids)}

    def token_ids(self, content: Content, rendering: Rendering, place: str) -> npt.NDArray[np.int32]:
        """A row's tokens; DataError where it cannot be rendered as the recipe requires."""
        text, chat = self.text(content, rendering, place)
        # A chat template writes its own special tokens; a second BOS would be another text.
        ids = encode(self.tokenizer, text, special=not chat)
        if beyond := self.beyond(ids[ids >= self.vocab_size].tolist()):
            advice = "drop the row, or give a model whose embeddings were resized to its tokenizer"
            bos = self.tokenizer.bos_token_id
            if bos is not None and bos >= self.vocab_size and bos in ids:
                advice = "that is the tokenizer's BOS, which begins texts; name the model's own BOS"
            raise DataError(f"{place} uses {beyond}, the model has {self.vocab_size} tokens; {advice}")
        return ids

    def ahead(self, samples: Iterable[Sample], rendering: Rendering) -> Iterator[Sample]:
        """The samples in order; the helper renders the next chats while the caller processes one."""
        pending = deque[Sample]()
        for sample in samples:
            # The helper takes no more, or the row is no chat: rows before it go first, which keeps the order.
            while not self._send_ahead(sample.content, rendering) and pending:
                yield pending.popleft()
            if not self.sandbox.sent_for(sample.content):
                yield sample
                continue
            pending.append(sample)
            if len(pending) > AHEAD:
                yield pending.popleft()
        yield from pending

    def text(self, content: Content, rendering: Rendering, place: str) -> tuple[str, bool]:
        """A row's text, and whether a chat template rendered it: then it contains its special tokens."""
        chat = self._as_chat(content, rendering)
        if chat is None:
            if rendering.system is not None:
                raise DataError(f"{place}: text, not a chat, cannot have a system prompt; remove 'system'")
            return joined(content) if isinstance(content, Exchange) else str(content), False
        if rendering.render == "plain":
            raise DataError(f"{place}: chat messages cannot be rendered plain; give text rows")
        if rendering.template is None and self.tokenizer.chat_template is None:
            raise DataError(
                f"{place}: chat messages, but the tokenizer has no chat template; name one in 'template', or "
                "give text rows"
            )
        try:
            rendered = self._rendered(chat, rendering, content)
        except TemplateRefused as exc:
            raise DataError(f"{place}: {exc}; fix the row or the template") from None
        if rendered.dated:
            self.dated.add(rendering)
        return rendered.text, True

    def rendered(self, chat: Chat, rendering: Rendering, *, answer: bool = False) -> Rendered:
        """A chat rendered by the recipe's template or the tokenizer's; `answer` adds the generation prompt.

        TemplateRefused, with the template's name in the message, on failure.
        """
        return self._rendered(chat, rendering, None, answer=answer)

    def _as_chat(self, content: Content, rendering: Rendering) -> Chat | None:
        """The row as a chat, if it is one or is rendered as one; None for text."""
        if isinstance(content, Exchange):
            usable = rendering.template is not None or self.tokenizer.chat_template is not None
            if rendering.render == "chat" or (rendering.render == "auto" and usable):
                turns = (("user", content.prompt), ("assistant", content.completion))
                return Chat(tuple({"role": role, "content": content_} for role, content_ in turns))
        return content if isinstance(content, Chat) else None

    def _send_ahead(self, content: Content, rendering: Rendering) -> bool:
        chat = self._as_chat(content, rendering)
        if (
            chat is None
            or rendering.render == "plain"
            or (rendering.template or self.tokenizer.chat_template) is None
        ):
            return False
        try:
            return self.sandbox.send_ahead(self._request(chat, rendering), content)
        except TemplateRefused:  # reported when the row itself is rendered
            return False

    def _rendered(self, chat: Chat, rendering: Rendering, owner: object, *, answer: bool = False) -> Rendered:
        request = self._request(chat, rendering, answer=answer)
        try:
            return self.sandbox.render(request, owner)
        except TemplateRefused as exc:
            raise TemplateRefused(f"{self._template(rendering, chat.tools)[0]} {exc}") from None

    def _request(self, chat: Chat, rendering: Rendering, *, answer: bool = False) -> Request:
        messages = list(chat.messages)
        if rendering.system is not None and messages[0]["role"] != "system":
            # A system message of the row itself counts more than the recipe's.
            messages.insert(0, {"role": "system", "content": rendering.system})
        values = {"tools": chat.tools or None, "documents": None, "add_generation_prompt": answer}
        return Request(
            self._template(rendering, chat.tools)[1],
            messages,
            rendering.date,
            {**self.tokenizer.special_tokens_map, **values},
        )

    def _template(self, rendering: Rendering, tools: Sequence[Any]) -> tuple[str, str]:
        """Name and text of the template; of several, `tool_use` for chats with tools, as in transformers."""
        templates = self.tokenizer.chat_template
        if rendering.template is not None:
            return "the recipe's template", rendering.template
        if not isinstance(templates, dict):
            return "the chat template", templates
        name = "tool_use" if tools and "tool_use" in templates else "default"
        if name not in templates:
            raise TemplateRefused(f"the tokenizer has chat templates {sorted(templates)} and no 'default'")
        return f"the chat template {name!r}", templates[name]


def _load_tokenizer(source: Path, label: str) -> tuple[Any, tuple[int, ...]]:
    """A directory's tokenizer and its prefix; CheckpointError where it fails or differs from its file."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
        differs, prefix = _tokenizer_difference(tokenizer, source / "tokenizer.json"), _prefix(tokenizer)
    except BaseException as exc:
        panicked = type(exc).__name__ == "PanicException"
        if isinstance(exc, MemoryError) or not (panicked or isinstance(exc, Exception)):
            raise
        # Both libraries raise arbitrary exceptions; a panic of the Rust one is a BaseException.
        reason = str(exc).replace(str(source), label)
        raise CheckpointError(f"{label}: transformers cannot load the tokenizer ({reason})") from exc
    if differs:
        name = type(tokenizer).__name__
        raise CheckpointError(
            f"{label}: transformers reads tokenizer.json by {name}, which makes other tokens than the file "
            f"says: {differs}. Servers that load it by transformers would do the same; "
            + _tokenizer_advice(source, name)
        )
    return tokenizer, prefix


def _tokenizer_advice(source: Path, name: str) -> str:
    """The remedy for a class that interprets tokenizer.json differently."""
    config_file = source / "tokenizer_config.json"
    class_name = (
        json.loads(config_file.read_bytes()).get("tokenizer_class") if config_file.is_file() else None
    )
    if class_name and class_name.removesuffix("Fast") != name:
        return f"for this model_type it always uses {name}; give a tokenizer made with {name}"
    return (
        "in tokenizer_config.json set tokenizer_class to PreTrainedTokenizerFast, or to the class that the "
        "tokenizer was made with"
    )


def _tokenizer_difference(tokenizer: Any, file: Path) -> str:
    """The first of PROBES that a class encodes differently from tokenizer.json itself; empty if none."""
    if not file.is_file():
        return ""
    reference = Tokenizer.from_file(str(file))
    # Settings in the file that apply to batches, not to the tokens of a text.
    reference.no_truncation()
    reference.no_padding()
    for text in PROBES:
        ids, ids_of_class = (
            reference.encode(text, add_special_tokens=False).ids,
            encode(tokenizer, text, special=False),
        )
        if ids != ids_of_class.tolist():
            # Not strict: one result may be the beginning of the other.
            pairs = zip(ids, ids_of_class.tolist(), strict=False)
            index = next(
                (index for index, (expected, actual) in enumerate(pairs) if expected != actual),
                min(len(ids), ids_of_class.size),
            )
            actual_ids, expected_ids = (
                all_ids[index : index + SHOWN] for all_ids in (ids_of_class.tolist(), ids)
            )
            return f"{text!r} becomes {actual_ids} instead of {expected_ids} from its token {index + 1} on"
    return ""


def _prefix(tokenizer: Any) -> tuple[int, ...]:
    # Found by comparing both encodings, whatever makes the tokenizer add the prefix.
    with_special, without_special = (
        tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False)
    )
    starts = (
        index
        for index in range(len(with_special))
        if with_special[index : index + len(without_special)] == without_special
    )
    # What comes before the text's own tokens; nothing where these are not found unchanged.
    return tuple(with_special[: next(starts, 0)])


def joined(content: Exchange) -> str:
    """Prompt and completion as one text, separated by a line end unless white space separates them."""
    # Without a separator the tokenizer would join the last word and the first.
    parted = content.prompt[-1:].isspace() or content.completion[:1].isspace()
    return content.prompt + ("" if parted else "\n") + content.completion
