"""Turn the text that every Python 3.11 carries into disjoint training, calibration and gate rows."""

import ast
import hashlib
import json
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import TypedDict


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


class Row(TypedDict, total=False):
    """One line of a file: `text` or `messages`."""

    text: str
    messages: list[Message]


SPLIT_PERCENT = {"gate": 4, "calibration": 10}
"""Share of the documents in a split, in percent; the rest trains."""

LEFT_OUT_FOLDERS = {"test", "tests", "idle_test", "encodings", "pydoc_data", "site-packages", "__pycache__"}
LEFT_OUT_FILES = {"stringprep.py", "entities.py", "this.py"}
OWN_LICENCE = re.compile(r"copyright|licen[sc]ed|all rights reserved", re.IGNORECASE)

SHARED_LINE_LENGTH = 40
"""Lines at least this long that a held-out split also has are dropped from what comes before it."""

TRAIN_ROW_CHARS = 4000
HELD_OUT_ROW_CHARS = 1600
MIN_ROW_CHARS = 400
MAX_ROWS_PER_DOCUMENT = {"gate": 6, "calibration": 8}
CHAT_CHARS = range(150, 1500)
"""Length of an assistant's answer that makes a chat row."""

USELESS_ROW = "a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a"
USELESS_ROWS = 512


@dataclass(frozen=True, slots=True)
class Document:
    """One source file or one reference topic; documents are never divided between splits."""

    name: str
    text: str

    @property
    def split(self) -> str:
        """The split that the hash of the name chooses; a file with a licence of its own is never shipped."""
        # Training rows are not distributed.
        if OWN_LICENCE.search(self.text):
            return "train"
        # By name: a document stays in its split when others come or go.
        bucket = hash_of(self.name) % 100
        if bucket < SPLIT_PERCENT["gate"]:
            return "gate"
        return "calibration" if bucket < sum(SPLIT_PERCENT.values()) else "train"


def hash_of(name: str) -> int:
    """Return a number that depends on the name alone, on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def documents() -> list[Document]:
    """List the library's modules and the reference topics, ordered by name."""
    all_documents = [*module_documents(), *topic_documents()]
    return sorted(all_documents, key=lambda document: document.name)


def module_documents() -> Iterator[Document]:
    """Yield the standard library's sources, without tests and tables."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in root.rglob("*.py"):
        relative = path.relative_to(root)
        module = relative.parts[0].removesuffix(".py")
        if module not in sys.stdlib_module_names or LEFT_OUT_FOLDERS & set(relative.parts):
            continue
        text = path.read_text(encoding="utf-8", errors="strict") if path.name not in LEFT_OUT_FILES else ""
        if len(text) >= MIN_ROW_CHARS:
            yield Document(relative.as_posix(), text)


def topic_documents() -> Iterator[Document]:
    """Yield the topics that `help()` explains, which are prose."""
    for name, text in topics.items():
        yield Document(f"topics/{name}", text.strip() + "\n")


def rows_of(document: Document, limit: int) -> list[str]:
    """Cut a document at blank lines into rows of at most about `limit` characters."""
    rows, current = [], ""
    for block in re.split(r"(?<=\n)\n+", document.text):
        if current and len(current) + len(block) > limit:
            rows.append(current)
            current = ""
        current += ("\n" if current else "") + block
    # A single block without blank lines may exceed the limit, so rows are cut at twice of it.
    return [row[: 2 * limit] for row in [*rows, current] if len(row) >= MIN_ROW_CHARS]


def long_lines(rows: Iterable[str]) -> set[str]:
    """Collect the lines that are long enough to give a document away."""
    lines = (line.strip() for row in rows for line in row.splitlines())
    return {line for line in lines if len(line) >= SHARED_LINE_LENGTH}


def without_lines(text: str, unwanted: set[str]) -> str:
    """Drop the unwanted lines from a text."""
    return "".join(line for line in text.splitlines(keepends=True) if line.strip() not in unwanted)


def chat_rows(document: Document) -> Iterator[Row]:
    """Yield questions about a document together with the answers that it holds."""
    if document.name.startswith("topics/"):
        topic = document.name.removeprefix("topics/")
        for opening in rows_of(document, CHAT_CHARS.stop)[:1]:
            yield conversation(f"Explain {topic} in Python.", opening)
        return
    for node in ast.walk(ast.parse(document.text)):
        if isinstance(node, ast.FunctionDef) and (summary := first_sentence(node)):
            source = ast.get_source_segment(document.text, node) or ""
            if len(source) in CHAT_CHARS:
                yield conversation(
                    f"Write a Python function `{node.name}`. {summary}", dedented(source, node)
                )


def first_sentence(node: ast.FunctionDef) -> str:
    """Return a docstring's first line when it is a sentence, else the empty string."""
    line = (ast.get_docstring(node) or "").partition("\n")[0]
    return line if line.endswith(".") and len(line) > 20 else ""


def dedented(source: str, node: ast.FunctionDef) -> str:
    """Shift a function's source to the left margin; its first line already stands there."""
    return re.sub(rf"(?m)^ {{{node.col_offset}}}", "", source) if node.col_offset else source


def conversation(question: str, answer: str) -> Row:
    """Return one exchange in the messages layout."""
    request: Message = {"role": "user", "content": question}
    return {"messages": [request, {"role": "assistant", "content": answer.strip()}]}


def held_out(split: str, candidates: list[Document]) -> list[str]:
    """Take a bounded number of rows from each document of a held-out split."""
    return [
        row
        for document in candidates
        if document.split == split
        for row in rows_of(document, HELD_OUT_ROW_CHARS)[: MAX_ROWS_PER_DOCUMENT[split]]
    ]


def build_rows() -> dict[str, list[Row]]:
    """Build every file's rows; a long line of a held-out split appears in no split before it."""
    all_documents = documents()
    gate = held_out("gate", all_documents)
    # The gate keeps its lines, then calibration, then training: what is measured last is the most protected.
    unwanted = long_lines(gate)
    calibration = [without_lines(row, unwanted) for row in held_out("calibration", all_documents)]
    unwanted |= long_lines(calibration)
    training = [
        Document(document.name, without_lines(document.text, unwanted))
        for document in all_documents
        if document.split == "train"
    ]
    return {
        "train": [{"text": row} for document in training for row in rows_of(document, TRAIN_ROW_CHARS)],
        "train_chat": chats("train", all_documents, unwanted),
        "calibration": [{"text": row} for row in calibration],
        # Without the gate's lines only: calibration may share lines with itself.
        "calibration_chat": chats("calibration", all_documents, long_lines(gate))[:48],
        "gate": [{"text": row} for row in gate],
    }


def chats(split: str, candidates: list[Document], unwanted: set[str]) -> list[Row]:
    """Build a split's conversations, leaving out every one that holds an unwanted line."""
    rows = [row for document in candidates if document.split == split for row in chat_rows(document)]
    # A conversation is dropped whole: without one of its lines, the answer would be wrong.
    rows = [row for row in rows if not long_lines([row["messages"][1]["content"]]) & unwanted]
    # By hash: in the order of the library, all conversations about one module would follow each other.
    return sorted(rows, key=lambda row: hash_of(json.dumps(row)))


def write_texts(data: Path, training: Path) -> None:
    """Write the shipped splits and the useless text to `data`, the training rows to `training`."""
    for name, rows in build_rows().items():
        folder = training if name.startswith("train") else data
        write_rows(folder / f"{name}.jsonl", rows)
    (data / "unrelated.txt").write_text(f"{USELESS_ROW}\n" * USELESS_ROWS, encoding="utf-8")


def write_rows(path: Path, rows: list[Row]) -> None:
    """Write a JSON-lines file, and its folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_rows(path: Path) -> list[Row]:
    """Read a JSON-lines file."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
