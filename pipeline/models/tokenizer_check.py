"""A checkpoint's tokenizer files, read as the tokenizers library reads them: what a plan can know of them.

Neither torch nor transformers is needed. Left to the first step that tokenizes are templates, and tokenizers
whose own code would have to run.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.errors import SourceError
from pipeline.models.model_json import TOKENIZER, open_regular, read_json, shortened
from pipeline.models.tokenizer_classes import ALWAYS, REBUILT, class_of, rebuilt_otherwise
from pipeline.models.tokenizer_fields import DESCRIPTIONS, descriptions, is_id
from pipeline.models.tokenizer_limits import SPARSE, excesses, needs_trial, sparse
from pipeline.models.tokenizer_trial import CPU_SECONDS, MEMORY_BYTES

TABLES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")

MODELS = ("BPE", "Unigram", "WordLevel", "WordPiece")
"""Types of `model` that the tokenizers library has."""

BYTE_LEVEL = ("GPT2Tokenizer", "Qwen2Tokenizer")
"""Classes by which transformers reads vocab.json with merges.txt; others make no, or other, tokens."""

PIECES = {
    "LlamaTokenizer": True, "CodeLlamaTokenizer": True,
    "GemmaTokenizer": False,
}  # fmt: skip
"""Classes that transformers reads tokenizer.model by, all of them BPE -> whether a space is put in front."""

TRIAL = Path(__file__).with_name("tokenizer_trial.py")

SAVE = "save it as tokenizer.json (`save_pretrained` of the transformers release that it was made with)"


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a plan wants to know of a tokenizer."""

    beyond: Mapping[str, int]
    """Tokens whose ids are no rows of the model's embedding."""
    missing: str = ""
    """Package that reads the tokenizer and that this host lacks."""


def read_tokens(directory: Path, vocab_size: int) -> Tokens:
    """Reads a directory's tokenizer whole; a SourceError lists everything that is wrong with its files."""
    # descriptions first: the readers below take the types of their fields for granted
    problems, table = list(descriptions(directory)), dict[str, int]()
    try:
        if (directory / "tokenizer.json").exists():
            path = directory / "tokenizer.json"
            document = _read_object(path)
            # read even after a problem: the tokenizer's own faults are reported with it
            table = _read_serialized(path, document, vocab_size)
            if not problems:
                problems += _check_class(directory, document)
        elif not problems and (directory / "tokenizer.model").exists():
            if missing := missing_package(["tokenizer.model"]):
                return Tokens({}, missing)
            table = _read_pieces(directory)
        elif not problems:
            table = _read_byte_level(directory)
    except SourceError as exc:
        problems.append(str(exc))
    if problems:
        raise SourceError("\n  ".join(problems))
    table = _add_missing_tokens(directory, table)
    # once more over the whole table: files beside may add ids that tokenizer.json has not
    _require_dense(directory, table, vocab_size)
    beyond = sorted((number, text) for text, number in table.items() if number >= vocab_size)
    return Tokens({text: number for number, text in beyond})


def _add_missing_tokens(directory: Path, table: dict[str, int]) -> dict[str, int]:
    """A table with the tokens of the files beside; what has no id yet gets the next ones."""
    added = _read_added_tokens(directory)
    if not (directory / "tokenizer.json").exists():  # beside one, their ids do not count in transformers
        table = table | added
    new = [text for text in dict.fromkeys([*_list_special_tokens(directory), *added]) if text not in table]
    return table | {text: number for number, text in enumerate(new, 1 + max(table.values(), default=-1))}


def _require_dense(directory: Path, table: Mapping[str, int], vocab_size: int) -> None:
    if most := sparse(table, vocab_size):
        text = max(table, key=table.__getitem__)
        raise SourceError(
            f"{directory}: its tokenizer's files give {shortened(text)} the id {shortened(table[text])}; ids "
            f"up to {most} are taken, {SPARSE} times the number of tokens; get them again"
        )


def tokenizer_names(directory: Path) -> list[str]:
    """The files of a directory that its tokenizer is read from."""
    return [name for name in (*TABLES, *DESCRIPTIONS) if (directory / name).is_file()]


def missing_package(names: list[str]) -> str:
    """What this host lacks to read the tokenizer of a checkpoint with these files; empty where nothing."""
    if "tokenizer.json" in names or "tokenizer.model" not in names:
        return ""
    try:
        import_module("sentencepiece.sentencepiece_model_pb2")
    except ImportError as exc:
        # sentencepiece's module imports protobuf, whose package is called google
        package = "protobuf" if str(exc.name).startswith("google") else "sentencepiece"
        return f"tokenizer.model is read by sentencepiece, and {package} is not installed; install it"
    except Exception as exc:  # noqa: BLE001 protobuf's own error, of a module that may not be there
        return (
            f"tokenizer.model is read by sentencepiece, which does not load ({exc}); install the locked one"
        )
    return ""


def _read_bytes(path: Path) -> bytes:
    """The bytes of a regular file within the limits of tokenizers; anything else is a SourceError."""
    with open_regular(path) as file:
        data = file.read(TOKENIZER.nbytes + 1)
    if len(data) > TOKENIZER.nbytes:
        raise SourceError(f"{path}: more than {TOKENIZER.nbytes} bytes; at most that many are read")
    return data


def _read_object(path: Path) -> dict[str, Any]:
    return read_json(path, TOKENIZER)


def _read_added_tokens(directory: Path) -> dict[str, int]:
    """Tokens with ids in the files beside; all of them are as FIELDS wants them."""
    path, table = directory / "added_tokens.json", dict[str, int]()
    if path.exists():
        table |= _read_object(path)
    for number, token in (_read_config(directory).get("added_tokens_decoder") or {}).items():
        table[token if isinstance(token, str) else token["content"]] = int(number)
    return table


def _list_special_tokens(directory: Path) -> Iterator[str]:
    """Tokens that the files beside name for a purpose, BOS and its like."""
    config, path = _read_config(directory), directory / "special_tokens_map.json"
    if path.exists() and not config.get("added_tokens_decoder"):  # as transformers reads it
        config |= _read_object(path)
    for name, value in config.items():
        items = [value] if name.endswith("_token") else []
        if name in ("additional_special_tokens", "extra_special_tokens"):
            items = list(value.values() if isinstance(value, dict) else value or [])
        for item in items:
            text = item.get("content") if isinstance(item, dict) else item
            if isinstance(text, str):
                yield text


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / "tokenizer_config.json"
    return _read_object(path) if path.exists() else {}


def _read_class(directory: Path) -> str:
    """The class that transformers reads the tokens with, by the name it has had since its release 5."""
    return str(_read_config(directory).get("tokenizer_class") or "no class").removesuffix("Fast")


def _read_serialized(path: Path, document: Mapping[str, Any], vocab_size: int) -> dict[str, int]:
    from tokenizers import Tokenizer  # 35 ms, and only for models that are here

    # before the library has the file: beyond some limits it aborts the process
    if wrong := list(excesses(document, vocab_size)):
        raise SourceError("\n  ".join(f"{path}: {problem}; get the file again" for problem in wrong))
    data = _read_bytes(path)
    if needs_trial(document):
        _run_trial(path)
    try:
        tokenizer = Tokenizer.from_buffer(data)
        # Padding and truncation of the file would hide the tokens that the post-processor adds.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        # A template of tokens that are not there panics here.
        whole, bare = (tokenizer.encode("a", add_special_tokens=special).ids for special in (True, False))
        table = dict(tokenizer.get_vocab())
    except BaseException as exc:
        if isinstance(exc, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        # The library raises bare Exceptions, and panics, which are BaseExceptions.
        raise SourceError(f"{path}: {_describe_failure(document, exc)}; get the file again") from None
    # What precedes the bare tokens is what the post-processor puts in front of every text (BOS).
    front = whole[: next((at for at in range(len(whole)) if whole[at : at + len(bare)] == bare), 0)]
    if problem := ", ".join(
        f"{tokenizer.id_to_token(ident)} = {ident}" for ident in front if ident >= vocab_size
    ):
        raise SourceError(
            f"{path}: the tokenizer puts {problem} in front of every text, the model has {vocab_size} "
            "tokens; give the tokenizer that belongs to the model"
        )
    return table


def _run_trial(path: Path) -> None:
    """Lets another process read a tokenizer.json first; a SourceError where that takes too much.

    What else is wrong with the file is told by who reads it after that.
    """
    # posix_spawn with stdin, stdout and stderr on /dev/null: a panic of the library prints a backtrace.
    null = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    # -P: the script's own directory must not come before the library's modules
    command = [sys.executable, "-P", str(TRIAL), str(path)]
    pid = os.posix_spawn(sys.executable, command, os.environ, file_actions=null)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    # Negative: ended by a signal, which is how the kernel enforces RLIMIT_CPU and RLIMIT_AS aborts.
    if code < 0:
        raise SourceError(
            f"{path}: normalizer: its patterns on the file's own added_tokens take more than {CPU_SECONDS} s "
            f"of CPU time or {MEMORY_BYTES >> 30} GiB; get the file again"
        )


def _check_class(directory: Path, document: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the class that transformers reads tokenizer.json by, or with what comes beside."""
    if (directory / "vocab.json").exists():  # not read, but copied
        _read_object(directory / "vocab.json")
    path, config = directory / "tokenizer_config.json", directory / "config.json"
    model = read_json(config) if config.exists() else {}
    class_name = _read_config(directory).get("tokenizer_class") or model.get("tokenizer_class") or ""
    name = class_of(str(class_name), str(model.get("model_type")))
    if name in REBUILT and (differs := rebuilt_otherwise(document, name)):
        advice = "set tokenizer_class to PreTrainedTokenizerFast, or to the class that it was made with"
        if model.get("model_type") in ALWAYS:
            advice = f"for this model_type no other class counts: give a tokenizer made with {name}"
        yield (
            f"{path}: transformers reads tokenizer.json by {name}, which {differs}, so that other tokens "
            f"come out, of servers too; {advice}"
        )


def _describe_failure(document: Mapping[str, Any], exc: BaseException) -> str:
    """What is wrong with a tokenizer.json, in better words than the library's where there are any."""
    model = document.get("model")
    if not isinstance(model, dict) or "vocab" not in model:
        return "no tokenizer: it has no model with a vocab"
    if model.get("type", "BPE") not in MODELS:
        return f"model.type is {shortened(model['type'])}, one of {', '.join(MODELS)} is needed"
    if not isinstance(exc, Exception):  # a panic, in words about the library's own code
        return (
            "cannot be used: a pattern, a template or a table in it does not work (as where it names what it "
            f"does not hold); the tokenizers library breaks off with {shortened(str(exc))}"
        )
    return f"the tokenizers library cannot read it ({exc})"


def _read_byte_level(directory: Path) -> dict[str, int]:
    from tokenizers.models import BPE  # as above

    class_name = _read_class(directory)
    vocabulary, merges = directory / "vocab.json", directory / "merges.txt"
    if class_name not in BYTE_LEVEL:
        raise SourceError(
            f"{vocabulary}: transformers reads vocab.json with merges.txt by {' and '.join(BYTE_LEVEL)}, "
            f"tokenizer_config.json names {class_name}; {SAVE}"
        )
    table = _read_object(vocabulary)
    if wrong := next(
        (f"{text!r} is {shortened(number)}" for text, number in table.items() if is_id(number)), ""
    ):
        raise SourceError(f"{vocabulary}: {wrong}, an id is needed; get the file again")
    try:
        # not splitlines: a token may hold characters that it would cut at
        lines = _read_bytes(merges).decode().split("\n")
        # not split(): a token may hold other kinds of white space
        pairs = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
        if malformed := next((pair for pair in pairs if len(pair) != 2), None):
            raise SourceError(
                f"{merges}: {shortened(' '.join(malformed))} is no pair of tokens; get the file again"
            )
        # made only for its refusal of merges that name no token
        BPE(table, pairs)
    except UnicodeDecodeError as exc:
        raise SourceError(f"{merges}: not UTF-8 ({exc}); get the file again") from None
    except SourceError:
        raise
    except Exception as exc:  # noqa: BLE001 the library raises nothing more exact
        raise SourceError(f"{merges}: does not fit {vocabulary.name} ({exc}); get both files again") from None
    return table


def _read_pieces(directory: Path) -> dict[str, int]:
    """The pieces of a tokenizer.model, which its class must read as sentencepiece does."""
    path, class_name = directory / "tokenizer.model", _read_class(directory)
    proto = import_module("sentencepiece.sentencepiece_model_pb2").ModelProto()
    try:
        proto.ParseFromString(_read_bytes(path))
        table = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    except SourceError:
        raise
    except Exception as exc:  # noqa: BLE001 protobuf's own error
        raise SourceError(f"{path}: no SentencePiece model ({exc}); get the file again") from None
    if not table:
        raise SourceError(f"{path}: a SentencePiece model without pieces; get the file again")
    kind = {1: "unigram", 2: "BPE", 3: "word", 4: "char"}[proto.trainer_spec.model_type]
    spaced = proto.normalizer_spec.add_dummy_prefix
    if kind != "BPE" or PIECES.get(class_name) != spaced:
        raise SourceError(
            f"{path}: {kind}, {'a' if spaced else 'no'} space in front of a text, and tokenizer_config.json "
            f"names {class_name}, by which transformers makes other tokens than sentencepiece. It reads "
            f"BPE by LlamaTokenizer and CodeLlamaTokenizer (a space in front) and GemmaTokenizer (none); "
            f"{SAVE}"
        )
    return table
