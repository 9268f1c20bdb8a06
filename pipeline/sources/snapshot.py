"""Which files of a checkpoint are taken, their common digest, and where a hub commit is kept on disk."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from artifacts import manifest
from calibration import links
from calibration.tokenizer_files import TEMPLATES, local_files, tokenizer_files
from pipeline.errors import SourceError
from pipeline.models.model_json import TOKENIZER, open_regular, read_json

INDEX = "model.safetensors.index.json"

PAPERS = re.compile(r"(LICEN[CS]E|NOTICE|README)([-_][\w-]+)?(\.(txt|md|rst))?", re.IGNORECASE)
"""Names of licences, notices and model cards."""

PAPER_BYTES = 4 << 20
"""Longest of them that is taken."""

TEMPLATE_BYTES = 1 << 20
"""Longest chat template that is taken."""

QUANTIZATION = "hf_quant_config.json"
"""Beside the weights of what ModelOpt quantized; read where it is."""

TEMPLATE = ".jinja"

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))
"""Sets of files of which one must be complete."""

NAMES = "names.json"
"""Lists, beside what is kept of a commit, all files that it has."""

MAX_TEMPLATES = 64
"""Chat templates beside the default one that are taken."""

HEADERS_ONLY = "HEADERS_ONLY"
"""Marks a directory whose weight files hold headers and no weights."""


def wanted(names: Iterable[str]) -> list[str]:
    """Selects the files that make a checkpoint, sorted: weights, tokenizer, papers; never pickles or code.

    Weights are `model.safetensors`, else the `model-*.safetensors` and their index, else every safetensors
    file and the index: the order in which checkpoints are opened.
    """
    names_there = set(names)
    top = {name for name in names_there if "/" not in name}
    tensors = {name for name in top if name.endswith(".safetensors")}
    if "model.safetensors" in tensors:
        weights = {"model.safetensors"}
    else:
        # Repositories hold `consolidated.safetensors` or adapters beside the model; those must not be loaded.
        weights = {name for name in tensors if name.startswith("model-")} or tensors
        weights |= top & {INDEX}
    papers = {name for name in top if PAPERS.fullmatch(name)}
    return sorted({*weights, *(top & {"config.json"}), *tokenizer_files(names_there), *papers})


def check_names(names: Iterable[str], where: str) -> list[str]:
    """Returns the wanted files of a checkpoint at `where`; a SourceError unless they can make one."""
    candidates = sorted(names)
    chosen = wanted(candidates)
    nested = sum("/" in name for name in chosen)
    if nested > MAX_TEMPLATES:
        raise SourceError(f"{where}: {nested} files in {TEMPLATES}; a tokenizer has {MAX_TEMPLATES} at most")
    try:
        manifest.check_names(chosen)
    except ValueError as exc:
        raise SourceError(f"{where}: {exc}") from None
    if "config.json" not in chosen:
        raise SourceError(f"{where}: no config.json; a checkpoint must have it")
    if not any(name.endswith(".safetensors") for name in chosen):
        pickles = [name for name in candidates if name.endswith(PICKLES)]
        content = f"holds pickled weights only ({', '.join(pickles)})" if pickles else "holds no weights"
        raise SourceError(
            f"{where}: {content}; only safetensors files are read, because a pickle can run any code: "
            "convert the weights to safetensors"
        )
    # vocab.json without merges.txt is no tokenizer
    if not any(set(files) <= set(chosen) for files in TOKENIZERS):
        choices = ", ".join(" with ".join(files) for files in TOKENIZERS)
        raise SourceError(f"{where}: no tokenizer; add one of: {choices}")
    return chosen


def require_inside(path: Path, read: re.Pattern[str] = PAPERS) -> None:
    """Refuses a directory in which files that are read are links out of it; a SourceError names them.

    `read` matches names of files that are read beside those that make a checkpoint.
    """
    try:
        names = local_files(path)
    except OSError:  # told, with its reason, where the checkpoint is read
        return
    if problem := links.describe_links(
        path, [*wanted(names), *(name for name in names if name == QUANTIZATION or read.fullmatch(name))]
    ):
        raise SourceError(problem)


def local_names(path: Path) -> list[str]:
    """Returns the wanted files of a local checkpoint; a SourceError unless they can make one."""
    require_inside(path)
    try:
        names = local_files(path)
    except OSError as exc:
        raise SourceError(
            f"{path}: cannot be listed ({exc.strerror}); model.path must be a readable directory"
        ) from exc
    # a user may name a directory of our own cache
    if HEADERS_ONLY in names:
        raise SourceError(f"{path}: holds headers without weights, kept for planning; name the model itself")
    chosen = check_names(names, str(path))
    for name in chosen:
        if not (path / name).is_file():
            raise SourceError(
                f"{path / name}: no regular file, or a link to nothing; put the file there or remove the name"
            )
    return chosen


def holds_config_only(path: Path) -> bool:
    """Says whether a directory holds `config.json` and no weights, not even in a format that is not read."""
    try:
        names = [entry.name for entry in path.iterdir()]
    except OSError:  # told, with its reason, where the checkpoint is read
        return False
    # with pickles the message is another one: convert them, rather than add weights
    weights = [name for name in names if name.endswith((".safetensors", *PICKLES)) or name == INDEX]
    return "config.json" in names and not weights


def local_digest(path: Path, digests: Callable[[Path], str]) -> str:
    """Returns the digest of a local checkpoint: names and contents of its wanted files, nothing else.

    `digests` returns the sha256 of a file in hexadecimal; it may remember those of unchanged files.
    """
    digest_of, names = {}, local_names(path)
    require_sizes(f"{path}/", {name: (path / name).stat().st_size for name in names})
    for name in names:
        try:
            # hex digits alone are hashed: callers' functions return them with a prefix or without
            digest_of[name] = digests(path / name).removeprefix("sha256:")
        except OSError as exc:
            raise unreadable(path / name, exc) from exc
    # names are hashed with the contents: a file under another name is another checkpoint
    return "sha256:" + hashlib.sha256(json.dumps(digest_of, sort_keys=True).encode()).hexdigest()


def require_sizes(where: str, sizes: Mapping[str, int]) -> None:
    """Refuses files of a checkpoint that are too long for what they are, before gigabytes are read.

    `where` stands in front of their names.
    """
    limits = dict.fromkeys(tokenizer_files(sizes), (TOKENIZER.nbytes, "a tokenizer's file"))
    limits |= {name: (TEMPLATE_BYTES, "a chat template") for name in sizes if name.endswith(TEMPLATE)}
    limits |= {name: (PAPER_BYTES, "a licence, notice or card") for name in sizes if PAPERS.fullmatch(name)}
    for name, (most, kind) in limits.items():
        if sizes[name] > most:
            raise SourceError(f"{where}{name}: {sizes[name]} bytes; at most {most} are read of {kind}")


def require_json(path: Path) -> None:
    """Refuses a copy of a checkpoint in which a JSON file is none; config and index are parsed elsewhere."""
    problems = []
    for name in tokenizer_files(local_files(path)):
        if name.endswith(".json"):
            try:
                read_json(path / name, TOKENIZER)
            except SourceError as exc:
                problems.append(str(exc))
    if problems:
        raise SourceError("\n  ".join(problems))


def require_texts(path: Path) -> None:
    """Refuses a local checkpoint in which a licence, notice, card, template or table of merges is no text."""
    problems = []
    for name in local_names(path):
        if not (PAPERS.fullmatch(name) or name.endswith((TEMPLATE, ".txt"))):
            continue
        with open_regular(path / name, path) as file:
            data = file.read()
        if problem := _find_text_problem(data):
            problems.append(f"{path / name}:{problem}; save it as UTF-8, or get the file again")
    if problems:
        raise SourceError("\n  ".join(problems))


def _find_text_problem(data: bytes) -> str:
    """Line and fault of what is no UTF-8 text; empty where it is."""
    # NUL is valid UTF-8, so decoding alone would let a binary file pass
    at, problem = data.find(b"\0"), "not a text, for it holds a NUL"
    if at < 0:
        try:
            data.decode()
        except UnicodeDecodeError as exc:
            at, problem = exc.start, f"not UTF-8 ({exc.reason})"
    return f"{data.count(bytes([10]), 0, at) + 1}: {problem}" if at >= 0 else ""


def unread(names: Iterable[str], read: Collection[str]) -> list[str]:
    """Says which weights are beside the files that are `read`, the ones that transformers reads too."""
    # an index beside model.safetensors is not read, and so worth a note
    chosen = read if "model.safetensors" in read else {*read, INDEX}
    spare = sorted(
        name
        for name in names
        if "/" not in name and name not in chosen and (name.endswith(".safetensors") or name == INDEX)
    )
    reasons = {
        "the model is built without its adapter; merge it (`merge_and_unload()`) if that is meant": [
            name for name in spare if name.startswith("adapter_")
        ],
        f"as in transformers, weights are model.safetensors, and where there is none the files of {INDEX}; "
        "remove what is stale": [name for name in spare if not name.startswith("adapter_")],
    }
    return [f"{', '.join(unread)} not read: {why}" for why, unread in reasons.items() if unread]


def unreadable(path: Path, exc: OSError) -> SourceError:
    """Says that a file of the checkpoint cannot be read."""
    return SourceError(f"{path}: cannot be read ({exc.strerror}); make it readable for this user")


@dataclass(frozen=True, slots=True)
class Remote:
    """A commit of a hub repository, and where this host keeps what it got of it."""

    repo: str
    revision: str
    """Full commit hash."""
    cache: Path
    """Directory for unfinished and finished downloads; one for many repositories."""
    endpoint: str | None = None
    """Address of the hub; None: the one huggingface_hub is set up for."""
    kind: Literal["model", "dataset"] = "model"
    """Which of the hub's name spaces the repository is in."""

    @property
    def where(self) -> str:
        """The commit as messages name it."""
        return f"{self.repo}@{self.revision[:12]}"

    @property
    def address(self) -> str | None:
        """The endpoint without the slash that people add."""
        return self.endpoint.rstrip("/") if self.endpoint else None

    @property
    def directory(self) -> Path:
        """Directory of this commit in the cache; another address of the hub gets another one."""
        # a mirror may serve other bytes under the same commit
        hub = quote(self.address, safe="") if self.address else "hub"
        shelf = self.cache / hub if self.kind == "model" else self.cache / hub / ".datasets"
        return shelf / self.repo.replace("/", "--") / self.revision


def listed(remote: Remote) -> list[str]:
    """Names of all files of a commit that was planned from, also of those that are not taken."""
    names_file = remote.directory / NAMES
    return json.loads(names_file.read_bytes()) if names_file.is_file() else []


def forget(remote: Remote) -> None:
    """Removes a commit's downloads from the cache, once the store has its snapshot; headers stay."""
    # headers are small, and the next plan of the commit needs them
    shutil.rmtree(remote.directory / "files", ignore_errors=True)
