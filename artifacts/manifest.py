"""Manifests of artifacts: kind, key, digest, files, step and host, sealed against changes."""

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
"""Names that the store and `pull` write themselves, in upper or lower case."""

NAME_BYTES = 255
"""Longest name of a file or directory on common file systems."""

YEARS = range(1970, 9001)
"""Accepted years: adding a time zone or the duration of a build stays within what `datetime` can hold."""

LONGEST_S = 10 * 365 * 86400.0
"""Longest duration of a step."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def check_name(name: str) -> str:
    """The name, if it is a relative POSIX path that is not reserved; otherwise a ValueError."""
    parts = name.split("/")
    if PurePosixPath(name).is_absolute() or not all(parts) or {".", ".."} & set(parts):
        raise ValueError(f"file name {name!r} is not a relative path without '.' and '..'")
    if any(unicodedata.category(letter) in UNSEEN for letter in name):
        raise ValueError(f"file name {name!r} has invisible characters; rename the file")
    if max(len(part.encode()) for part in parts) > NAME_BYTES:  # not UTF-8: UnicodeEncodeError, a ValueError
        raise ValueError(f"file name {name[:40]!r}... has a part of more than {NAME_BYTES} bytes; shorten it")
    if fold(name) in RESERVED:
        raise ValueError(
            f"file name {name!r} is reserved: the store and pull write {', '.join(sorted(RESERVED))}; rename"
            " the file"
        )
    return name


UNSEEN = frozenset({"Cc", "Cf", "Zl", "Zp"})
"""Unicode categories of control characters, of text direction marks, and of line ends."""


def fold(name: str) -> str:
    """The name as seen by a file system that ignores case and the Unicode composition of letters."""
    # Twice, since folding may take a composed letter apart.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def check_names(names: Iterable[str]) -> None:
    """Raise a ValueError for two names that are the same file, or file and directory, on some file system."""
    name_of: dict[str, str] = {}
    for name in names:
        twin = name_of.setdefault(fold(check_name(name)), name)
        if twin != name:
            raise ValueError(f"file names {twin!r} and {name!r} differ only by case; rename one of them")
    for name in name_of.values():
        for parent in list(PurePosixPath(name).parents)[:-1]:
            # One path cannot be a file and a directory, in any spelling that a file system takes as equal.
            if fold(str(parent)) in name_of:
                raise ValueError(f"{name_of[fold(str(parent))]!r} is a file and a directory of {name!r}")


FileName = Annotated[str, AfterValidator(check_name)]

CACHES = "tuning"
"""Directory name, at any depth, of files that only save time: kernel caches, tuned choices, timings."""


def is_cache(name: str) -> bool:
    """Whether a file is a cache, which is not part of an artifact's identity."""
    return CACHES in name.split("/")[:-1]


def digests_of(files: Mapping[str, str]) -> tuple[str, str]:
    """Digests of an artifact's files without caches, and of its caches; `files` is name -> sha256."""
    return (
        digest.of_tree({name: sha256 for name, sha256 in files.items() if not is_cache(name)}),
        digest.of_tree({name: sha256 for name, sha256 in files.items() if is_cache(name)}),
    )


def check_step(step: dict[str, Any]) -> dict[str, Any]:
    """The step, if the fields that readers use have their types; otherwise a ValueError.

    A seal does not replace this check: any program can write one.
    """
    inputs = step.get("inputs", {})
    if not isinstance(inputs, dict) or not all(isinstance(key, str) for key in inputs.values()):
        raise ValueError("step.inputs is not an object of role -> key")
    if not isinstance(step.get("params", {}), dict):
        raise ValueError("step.params is not an object")
    tools = step.get("tools", {})
    if not isinstance(tools, dict) or not all(isinstance(version, str) for version in tools.values()):
        raise ValueError("step.tools is not an object of tool -> version")
    for name in ("kind", "builder"):
        if not isinstance(step.get(name, ""), str):
            raise ValueError(f"step.{name} is not a string")
    return step


Step = Annotated[dict[str, Any], AfterValidator(check_step)]


def check_moment(at: datetime) -> datetime:
    """The moment, if its year is accepted; otherwise a ValueError."""
    if at.year not in YEARS:
        raise ValueError(f"created_at {at.isoformat()} is not in the years {YEARS[0]} to {YEARS[-1]}")
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
    """The description of an artifact; its presence in the store is the commit."""

    version: Literal[1, 2]
    """Version of this layout; 0.1 wrote 1, whose digest covers caches too."""
    kind: Kind
    """Step that made it, e.g. `engine`."""
    key: Sha256
    """Hash of the step: everything that the artifact depends on."""
    digest: Sha256
    """Hash of the names and bytes of the files without caches: the content that a version names."""
    caches: Sha256 | None = None
    """The same over its caches, which may differ between builds of one content; None in version 1."""
    step: Step
    """The step in full; enough to build the artifact again."""
    files: dict[FileName, FileRecord]
    """Relative POSIX name -> size and digest."""
    host: dict[str, Any]
    """Machine and tools that made it."""
    seconds: Seconds
    """Wall-clock time that making it took."""
    peak_memory_bytes: Bytes | None
    """Peak memory of the process that made it, where it was measured."""
    created_at: Moment
    """When it was committed, UTC."""

    @model_validator(mode="after")
    def digest_is_of_these_files(self) -> "Manifest":
        """Checks the names against each other, and the digests against the listed files."""
        check_names(self.files)
        files = {name: record.sha256 for name, record in self.files.items()}
        # Layout 1 counts caches too; its keys and addresses must go on to hold.
        expected = (digest.of_tree(files), None) if self.version == 1 else digests_of(files)
        if self.digest != expected[0]:
            raise ValueError(f"digest {self.digest} is not the digest of the files listed")
        if self.caches != expected[1]:
            raise ValueError(f"caches {self.caches} is not the digest of the caches listed")
        return self

    @model_validator(mode="after")
    def kind_is_the_steps(self) -> "Manifest":
        """Checks that the step's kind, e.g. `engine.aoti`, belongs to the manifest's kind."""
        step_kind = self.step.get("kind", self.kind)
        if step_kind.partition(".")[0] != self.kind:
            raise ValueError(f"kind is {self.kind!r}, and step.kind {step_kind[:80]!r}")
        return self

    @property
    def address(self) -> str:
        """Address of this content in stores."""
        return address(self.key, self.digest)

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(record.size for record in self.files.values())

    def file(self, name: str) -> FileRecord:
        """Size and digest of one file; NotFound for an unknown name."""
        if name not in self.files:
            raise NotFound(f"artifact {self.key} has no file {name!r}; it has {', '.join(self.files)}")
        return self.files[name]

    def to_text(self) -> str:
        """The manifest as the store writes it."""
        return seal(self.model_dump(mode="json", exclude={"caches"} if self.version == 1 else None))


VERSIONS = (1, 2)
"""Manifest layouts that this version reads; it writes the last one."""


def read_manifest(text: str, place: str) -> Manifest:
    """The manifest in sealed text; otherwise an ArtifactCorrupt whose message begins with `place`."""
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
    # The seal is a field of the same object, so that a sealed file is still one plain JSON document.
    body = json.dumps(values, indent=2, allow_nan=False).removesuffix("\n}")
    return f'{body}{SEAL}{_sealed(body)}"\n}}\n'


def unseal(text: str, place: str) -> dict[str, Any]:
    """The object that `seal` wrote; any changed byte is an ArtifactCorrupt that names `place`."""
    # The last one: a value inside may contain the same text.
    body, _, tail = text.rpartition(SEAL)
    if tail != f'{_sealed(body)}"\n}}\n':
        raise ArtifactCorrupt(f"{place}: does not match its seal; it was changed after it was written")
    try:
        values: dict[str, Any] = json.loads(body + "\n}")
    except (ValueError, RecursionError):  # a seal is not a signature: any program can write one
        raise ArtifactCorrupt(f"{place}: is sealed but not JSON; enginery did not write it") from None
    return values


def _sealed(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()
