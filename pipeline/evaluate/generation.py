"""Generation: a built engine continues one prompt, its text streamed; in a child process."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from calibration.data.chats import Chat
from calibration.data.rendering import Reader, Rendering
from calibration.data.templates import TemplateRefused
from calibration.errors import DataError
from pipeline.backend.loaded_engine import Sampling
from pipeline.errors import SourceError
from pipeline.evaluate.load_engine import runner_of
from pipeline.models.generation_config import ends
from pipeline.process.progress_pipe import ProgressPipe
from pipeline.step.step_parameters import GenerationJob


def build(job: GenerationJob, pipe: ProgressPipe) -> None:
    """Streams text through the pipe; writes generation.json: text, token counts, speed, and the
    date where the chat template printed one."""
    engine, params = job.inputs["engine"], job.params
    tokenizer = AutoTokenizer.from_pretrained(engine / "tokenizer")
    prompt, date = encode(tokenizer, params.prompt, params.date if params.chat else None)
    require_known(tokenizer, prompt, json.loads((engine / "engine.json").read_text())["vocab_size"])
    stream = Stream(tokenizer, pipe)
    stopping = stops(tokenizer, engine / "tokenizer")
    sampling = Sampling(params.temperature, params.seed, tuple(stopping))
    # everything above refuses before the engine is loaded, which takes the longest
    with runner_of(engine).load(engine) as loaded:
        started = time.perf_counter()
        (tokens,) = loaded.generate([prompt], params.max_new_tokens, sampling, stream.hear)
    stream.end()
    result = {
        "prompt_tokens": len(prompt),
        "new_tokens": len(tokens),
        "text": tokenizer.decode(tokens, skip_special_tokens=True),
        "ttft_ms": 1000 * (stream.times[0] - started),
        "tokens_per_s": stream.tokens_per_s(),
        "date": date,
    }
    (job.out / "generation.json").write_text(json.dumps(result, indent=2))


def encode(tokenizer: Any, prompt: str, chat_on: str | None) -> tuple[list[int], str | None]:
    """Token ids of the prompt as plain text, or as a user message of that day through the chat template.

    Returns the day too, where the template printed it. Raises SourceError for a template that cannot be
    rendered within its limits or makes no tokens, DataError for a prompt without tokens.
    """
    if chat_on is None:
        if not (ids := tokenizer(prompt)["input_ids"]):
            raise DataError("the tokenizer makes no tokens of the prompt; give it some text")
        return list(ids), None
    if tokenizer.chat_template is None:
        raise SourceError("the engine's tokenizer has no chat template; generate without --chat")
    chat = Chat(({"role": "user", "content": prompt},))
    try:
        rendered = Reader(tokenizer, len(tokenizer)).rendered(chat, Rendering(date=chat_on), answer=True)
    except TemplateRefused as exc:
        raise SourceError(
            f"{exc}, for the prompt as a user's message; generate without --chat, or repair the model's "
            "template and build again"
        ) from None
    # the template writes special tokens itself; BOS twice would be another prompt
    ids = tokenizer(rendered.text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise SourceError(
            "the template makes no tokens of the prompt; generate without --chat, or repair the model's "
            "template and build again"
        )
    return list(ids), chat_on if rendered.dated else None


def require_known(tokenizer: Any, prompt: Sequence[int], vocab_size: int) -> None:
    """Raises DataError for a prompt that uses tokens which the model does not have."""
    if beyond := Reader(tokenizer, vocab_size).beyond(prompt):
        raise DataError(f"the prompt uses {beyond}, the model has {vocab_size} tokens; leave them out")


def stops(tokenizer: Any, directory: Path) -> list[int]:
    """Tokens that end a text: the checkpoint's own list, else the tokenizer's end-of-sequence token."""
    tokens = ends(directory)
    # an empty list is the checkpoint's word too: then nothing ends a text
    if tokens is None:
        tokens = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return tokens


class Stream:
    """Turns tokens into text as soon as the text is certain: never half a character."""

    def __init__(self, tokenizer: Any, pipe: ProgressPipe) -> None:
        self.tokenizer, self.pipe = tokenizer, pipe
        self.tokens: list[int] = []
        self.sent_chars = 0
        self.times: list[float] = []

    def hear(self, step: list[int | None]) -> None:
        """Takes the request's next token and sends what it completes."""
        (token,) = step
        if token is None:
            return
        # before decoding, whose time is not the engine's
        self.times.append(time.perf_counter())
        self.tokens.append(token)
        text = self.text()
        # a character may take several tokens; until the last one the decoder ends in this mark
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            self.send(text)

    def end(self) -> None:
        """Sends what is left."""
        self.send(self.text())

    def text(self) -> str:
        """All text so far."""
        # all tokens every time: a token's text may depend on the one before it
        return str(self.tokenizer.decode(self.tokens, skip_special_tokens=True))

    def send(self, text: str) -> None:
        """Sends the part of `text` that was not sent."""
        if len(text) > self.sent_chars:
            self.pipe.text(text[self.sent_chars :])
            self.sent_chars = len(text)

    def tokens_per_s(self) -> float:
        """Speed after the first token; 0 for a single one."""
        if len(self.times) < 2:
            return 0.0
        return (len(self.times) - 1) / (self.times[-1] - self.times[0])
