"""What an artifact is: kind, key, digest, files and how it came to be, sealed against any changed byte."""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from artifacts import digest
from artifacts.address import address
from artifacts.errors import ArtifactCorrupt, NotFound

MANIFEST = "manifest.json"
VERSION = "version.json"
RESERVED = frozenset({MANIFEST, VERSION, "signatures.json", "provenance.json", "card.md"})
"""Names that the store and `pull` write themselves, in any case of their letters."""

NAME_BYTES = 255
"""Longest name of a file or directory on the file systems in use."""

YEARS = range(1970, 9001)
"""Years of moments that are believed: moved by a time zone, or a build's length, each still is one."""

LONGEST_S = 10 * 365 * 86400.0
"""No step takes longer."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def check_name(name: str) -> str:
    """The name, if it is a relative POSIX path that only the artifact writes; otherwise a ValueError."""
    parts = name.split("/")
    if PurePosixPath(name).is_absolute() or not all(parts) or {".", ".."} & set(parts):
        raise ValueError(f"file name {name!r} is not a relative path without '.' and '..'")
    if any(unicodedata.category(letter) in UNSEEN for letter in name):
        raise ValueError(f"file name {name!r} has characters that cannot be seen; rename the file")
    if max(len(part.encode()) for part in parts) > NAME_BYTES:  # not UTF-8: UnicodeEncodeError, a ValueError
        raise ValueError(f"file name {name[:40]!r}... has a part of more than {NAME_BYTES} bytes; shorten it")
    if fold(name) in RESERVED:
        raise ValueError(
            f"file name {name!r} is taken; the store and pull write {', '.join(sorted(RESERVED))} themselves"
        )
    return name


UNSEEN = frozenset({"Cc", "Cf", "Zl", "Zp"})
"""Unicode categories of control characters, of those that turn the direction of text, and of line ends."""


def fold(name: str) -> str:
    """The name as a file system sees it that does not tell cases and compositions of letters apart."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def check_names(names: Iterable[str]) -> None:
    """Refuse names of which one is, or would hold, another on some disk; a ValueError."""
    name_of: dict[str, str] = {}
    for name in names:
        twin = name_of.setdefault(fold(check_name(name)), name)
        if twin != name:
            raise ValueError(f"file names {twin!r} and {name!r} differ only by case; rename one of them")
    for name in name_of.values():
        for parent in list(PurePosixPath(name).parents)[:-1]:
            if fold(str(parent)) in name_of:
                raise ValueError(f"{name_of[fold(str(parent))]!r} is a file and a directory of {name!r}")


FileName = Annotated[str, AfterValidator(check_name)]

CACHES = "tuning"
"""Directory, at any depth, of what only saves time or tells of it: kernel caches, tuned choices, timings."""


def is_cache(name: str) -> bool:
    """Whether a file lies outside an artifact's identity: two builds of one engine may differ in it."""
    return CACHES in name.split("/")[:-1]


def digests_of(files: Mapping[str, str]) -> tuple[str, str]:
    """Digest of what an artifact is, and of its caches; `files` is name -> sha256."""
    return (
        digest.of_tree({name: sha256 for name, sha256 in files.items() if not is_cache(name)}),
        digest.of_tree({name: sha256 for name, sha256 in files.items() if is_cache(name)}),
    )


def check_step(step: dict[str, Any]) -> dict[str, Any]:
    """The step, if what readers go by has its form; otherwise a ValueError. A seal is made by anybody."""
    inputs = step.get("inputs", {})
    if not isinstance(inputs, dict) or not all(isinstance(key, str) for key in inputs.values()):
        raise ValueError("step.inputs does not say the key of each input")
    if not isinstance(step.get("params", {}), dict):
        raise ValueError("step.params is no object")
    tools = step.get("tools", {})
    if not isinstance(tools, dict) or not all(isinstance(version, str) for version in tools.values()):
        raise ValueError("step.tools does not say the version of each tool")
    for name in ("kind", "builder"):
        if not isinstance(step.get(name, ""), str):
            raise ValueError(f"step.{name} is no text")
    return step


Step = Annotated[dict[str, Any], AfterValidator(check_step)]


def check_moment(at: datetime) -> datetime:
    """The moment, if it can be one of a build; otherwise a ValueError."""
    if at.year not in YEARS:
        raise ValueError(f"created_at {at.isoformat()} is not of the years {YEARS[0]} to {YEARS[-1]}")
    return at


Moment = Annotated[AwareDatetime, AfterValidator(check_moment)]
Seconds = Annotated[float, Field(ge=0, le=LONGEST_S)]
Bytes = Annotated[int, Field(ge=0, le=2**63 - 1)]
Kind = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]


class Frozen(BaseModel):
    """A value: no unknown keys, no assignment."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class FileRecord(Frozen):
    """One file of an artifact."""

    size: Bytes
    """Bytes."""
    sha256: Sha256
    """Digest of its bytes."""


class Manifest(Frozen):
    """Everything known about an artifact; its presence is the commit."""

    version: Literal[1, 2]
    """Version of this layout; 0.1 wrote 1, whose digest covers caches too."""
    kind: Kind
    """Step that made it, e.g. `engine`."""
    key: Sha256
    """Hash of everything that went in."""
    digest: Sha256
    """Hash of names and bytes of what came out, without caches: the content that a version names."""
    caches: Sha256 | None = None
    """The same of its caches, in which two builds of one content may differ; None in version 1."""
    step: Step
    """What was asked for, in full; enough to build it again."""
    files: dict[FileName, FileRecord]
    """Relative POSIX name -> size and digest."""
    host: dict[str, Any]
    """Machine and tools that made it."""
    seconds: Seconds
    """Wall-clock time that making it took."""
    peak_memory_bytes: Bytes | None
    """High-water mark of the process that made it, where it was measured."""
    created_at: Moment
    """When it was committed, UTC."""

    @model_validator(mode="after")
    def digest_is_of_these_files(self) -> "Manifest":
        """Checks the names against each other, and that the digest is the one of the files listed."""
        check_names(self.files)
        files = {name: record.sha256 for name, record in self.files.items()}
        expected = (digest.of_tree(files), None) if self.version == 1 else digests_of(files)
        if self.digest != expected[0]:
            raise ValueError(f"digest {self.digest} is not the digest of the files listed")
        if self.caches != expected[1]:
            raise ValueError(f"caches {self.caches} is not the digest of the caches listed")
        return self

    @model_validator(mode="after")
    def kind_is_the_steps(self) -> "Manifest":
        """Checks that the step, where it says its kind, e.g. `engine.aoti`, is of the manifest's."""
        step_kind = self.step.get("kind", self.kind)
        if step_kind.partition(".")[0] != self.kind:
            raise ValueError(f"kind is {self.kind!r}, and step.kind {step_kind[:80]!r}")
        return self

    @property
    def address(self) -> str:
        """What stores call this content."""
        return address(self.key, self.digest)

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(record.size for record in self.files.values())

    def file(self, name: str) -> FileRecord:
        """Size and digest of one file; NotFound where there is none of the name."""
        if name not in self.files:
            raise NotFound(f"artifact {self.key} has no file {name!r}; it has {', '.join(self.files)}")
        return self.files[name]

    def to_text(self) -> str:
        """The manifest as the store writes it."""
        return seal(self.model_dump(mode="json", exclude={"caches"} if self.version == 1 else None))


VERSIONS = (1, 2)
"""Layouts of manifests that are read; the last is written."""


def read_manifest(text: str, place: str) -> Manifest:
    """The manifest in sealed text; anything else is an ArtifactCorrupt naming `where` it was."""
    values = unseal(text, place)
    if values.get("version") not in VERSIONS:
        raise ArtifactCorrupt(
            f"{place}: manifest version {values.get('version')!r}; this version reads 1 and 2"
        )
    try:
        return Manifest.model_validate(values)
    except ValidationError as exc:
        problem = exc.errors()[0]
        if problem["type"] == "value_error":  # ours, which names what is wrong
            reason = str(problem["ctx"]["error"])
        else:
            reason = f"{'.'.join(map(str, problem['loc']))!r}: {problem['msg']}"
        raise ArtifactCorrupt(f"{place}: {reason}; it was not written by this version") from None


SEAL = ',\n  "seal": "'


def seal(values: dict[str, Any]) -> str:
    """Non-empty JSON object as text whose last field is the sha256 of every byte before that field."""
    body = json.dumps(values, indent=2, allow_nan=False).removesuffix("\n}")
    return f'{body}{SEAL}{_sealed(body)}"\n}}\n'


def unseal(text: str, place: str) -> dict[str, Any]:
    """The object that `seal` wrote; any changed byte is an ArtifactCorrupt naming `where` it was."""
    body, _, tail = text.rpartition(SEAL)
    if tail != f'{_sealed(body)}"\n}}\n':
        raise ArtifactCorrupt(f"{place}: does not match its seal; it was changed after it was written")
    try:
        values: dict[str, Any] = json.loads(body + "\n}")
    except (ValueError, RecursionError):  # a seal is no signature: anybody can make one
        raise ArtifactCorrupt(f"{place}: is sealed and no JSON; it was not written by enginery") from None
    return values


def _sealed(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()
