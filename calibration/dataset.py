"""Turns data files into packed token sequences: step calibration_set, and the gate's data.

Runs in a child process: transformers and datasets take seconds to import.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from jinja2.exceptions import TemplateError
from safetensors.numpy import save_file
from transformers import AutoTokenizer

from calibration.errors import CheckpointError, DataError
from calibration.packing import Packed, histogram, order, pack, pick
from calibration.rows import Content, Scan, read, scan

Progress = Callable[[int, int, str], None]

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
FIRST_SAMPLES = 3
EXCERPT_CHARACTERS = 200
BATCH_ROWS = 64
"""Rows tokenized between two progress reports."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One row as tokens, and where it came from."""

    file: str
    """Name of the data file, without its directory."""
    line: int
    text: str
    token_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Samples of all data files in packing order, and what each file gave."""

    samples: tuple[Sample, ...]
    sources: tuple[dict[str, Any], ...]
    """Per data file: name, digest, rows it has, rows taken."""


def build(job: Mapping[str, Any], out: Path, progress: Progress) -> None:
    """Writes tokens.safetensors (`tokens` [S, T] int32), samples.jsonl and report.json.

    Raises DataError for data that cannot be used or does not suffice, CheckpointError without a tokenizer.
    """
    params = job["params"]
    files = [Path(file) for file in job["places"]["files"]]
    rows = token_rows(params, files, Path(job["inputs"]["source"]), progress)
    packed = pack([s.token_ids for s in rows.samples], params["seq_len"], params["max_sequences"])
    save_file({"tokens": packed.tokens}, out / "tokens.safetensors")
    origins = ({"file": s.file, "line": s.line, "tokens": len(s.token_ids)} for s in rows.samples)
    (out / "samples.jsonl").write_text("".join(json.dumps(origin) + "\n" for origin in origins))
    (out / "report.json").write_text(json.dumps(report(rows, packed), indent=2) + "\n")


def token_rows(
    params: Mapping[str, Any], files: Sequence[Path], source: Path, progress: Progress
) -> TokenRows:
    """Checks, draws, renders and tokenizes the rows of all data files, shuffled by `params["seed"]`.

    `params` holds `data` and `seed`, and may hold a chat `template`; `source` has the tokenizer.
    """
    seed = params["seed"]
    drawn = [
        _draw(data, file, f"{seed}:{index}")
        for index, (data, file) in enumerate(zip(params["data"], files, strict=True))
    ]
    reader = Reader.open(source, params.get("template", "auto"))
    table = datasets.Dataset.from_list(list(_texts(params["data"], drawn, reader)))
    table = _tokenized(table, reader, progress).select(order(len(table), f"{seed}:blend"))
    sources = [
        {"file": found.path.name, "digest": data["digest"], "rows": found.rows, "taken": len(picks)}
        for data, (found, picks) in zip(params["data"], drawn, strict=True)
    ]
    fields = ("file", "line", "text", "token_ids")
    return TokenRows(tuple(Sample(*(row[field] for field in fields)) for row in table), tuple(sources))


@dataclass(frozen=True, slots=True)
class Reader:
    """A checkpoint's tokenizer, and the chat template that messages go through."""

    tokenizer: Any
    template: str | None
    """Jinja text; None takes the tokenizer's own."""

    @classmethod
    def open(cls, source: Path, template: str = "auto") -> "Reader":
        """The tokenizer of a checkpoint directory, with its own or another chat template.

        Its remote code is never run; raises CheckpointError when there is no tokenizer that loads.
        """
        if not any((source / name).is_file() for name in TOKENIZER_FILES):
            raise CheckpointError(
                f"{source}: no tokenizer; the checkpoint needs one of {', '.join(TOKENIZER_FILES)}"
            )
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as exc:
            raise CheckpointError(
                f"{source}: the tokenizer cannot be loaded ({exc}); repair its files"
            ) from exc
        # Rows are cut into sequences later; the tokenizer's warning about long rows means nothing here.
        tokenizer.model_max_length = int(1e30)
        return cls(tokenizer, None if template == "auto" else template)

    def text(self, content: Content, place: str) -> str:
        """The text of a row: itself, or its messages through the chat template."""
        if isinstance(content, str):
            return content
        if self.template is None and self.tokenizer.chat_template is None:
            raise DataError(f"{place}: chat messages, but the tokenizer has no chat template; give text rows")
        try:
            rendered = self.tokenizer.apply_chat_template(
                content, chat_template=self.template, tokenize=False
            )
        except TemplateError as exc:
            raise DataError(f"{place}: the chat template refuses the messages ({exc}); fix the row") from exc
        return str(rendered)

    def token_ids(self, text: str, *, chat: bool) -> list[int]:
        """Tokens with BOS and EOS as the tokenizer adds them; a chat template brings its own."""
        return list(self.tokenizer(text, add_special_tokens=not chat)["input_ids"])


def _draw(data: Mapping[str, Any], file: Path, seed: str) -> tuple[Scan, list[int]]:
    """Scans a data file and draws rows from it.

    Raises DataError when the file is broken, too short, or not the one that `data["digest"]` (sha256) names.
    """
    if _sha256(file) != data["digest"]:
        raise DataError(f"{file}: the file changed after the plan was made; plan again")
    found = scan(file, data["column"], kind=data["kind"])
    wanted = data["samples"]
    if wanted != "all" and found.rows < wanted:
        raise DataError(
            f"{file}:{found.lines[-1]}: the file ends after {found.rows} rows, "
            f"fewer than the {wanted} samples wanted; add rows or lower 'samples'"
        )
    return found, pick(found.rows, wanted, seed)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _texts(
    data: Sequence[Mapping[str, Any]], drawn: Sequence[tuple[Scan, list[int]]], reader: Reader
) -> Iterator[dict[str, Any]]:
    for source, (found, picks) in zip(data, drawn, strict=True):
        for row in read(found, source["column"], picks):
            text = reader.text(row.content, f"{found.path}:{row.line}")
            chat = not isinstance(row.content, str)
            yield {"file": found.path.name, "line": row.line, "text": text, "chat": chat}


def _tokenized(table: Any, reader: Reader, progress: Progress) -> Any:
    """Adds the column `token_ids` in memory: what is cached is decided by the store alone."""
    total = len(table)

    def tokenize(batch: Mapping[str, list[Any]], indices: Sequence[int]) -> dict[str, list[list[int]]]:
        progress(indices[0], total, "samples")
        pairs = zip(batch["text"], batch["chat"], strict=True)
        return {"token_ids": [reader.token_ids(text, chat=chat) for text, chat in pairs]}

    table = table.map(
        tokenize,
        batched=True,
        batch_size=BATCH_ROWS,
        with_indices=True,
        keep_in_memory=True,
        load_from_cache_file=False,
    )
    progress(total, total, "samples")
    return table


def report(rows: TokenRows, packed: Packed) -> dict[str, Any]:
    """What the calibration set consists of, for people."""
    lengths = [len(sample.token_ids) for sample in rows.samples]
    sequences, seq_len = packed.tokens.shape
    return {
        "sources": list(rows.sources),
        "samples": len(rows.samples),
        "sample_tokens": sum(lengths),
        "sample_length_histogram": histogram(lengths),
        "sequences": sequences,
        "seq_len": seq_len,
        "tokens": sequences * seq_len,
        "dropped_tail_tokens": packed.dropped_tail_tokens,
        "left_out_sequences": packed.left_out_sequences,
        "first_samples": [
            {"file": s.file, "line": s.line, "text": s.text[:EXCERPT_CHARACTERS]}
            for s in rows.samples[:FIRST_SAMPLES]
        ],
    }
