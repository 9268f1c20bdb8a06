"""What a plan needs to know about one source of text: digests, and whatever is wrong with it already."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from artifacts.store.local import LocalStore
from calibration.data.chats import Chat
from calibration.data.fields import Exchange
from calibration.data.origin import kind_of
from calibration.data.saved import data_files
from calibration.data.scan import scan
from calibration.data.text_files import KINDS
from calibration.errors import DataError
from calibration.links import LeadsOut, leads_out, open_inside
from calibration.parameters import TextSource
from pipeline.sources.hub_dataset import choose, contents
from pipeline.sources.snapshot import TEMPLATE_BYTES, Remote
from pipeline.step.step_parameters import DatasetParams, DatasetPlaces
from recipes.data import Data, Skip

SCAN_BYTES = 32 << 20
"""Bytes of each text file that a plan reads, in 0.3 s; the step that uses the file reads all of it."""

PARQUET = b"PAR1"
"""First and last bytes of a Parquet file; before the last stands the length of its footer, in 4 bytes."""

FOOTER = b"\x15"
"""Begins the footer: field 1 is the format's version, an i32, in Thrift's compact encoding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFiles:
    """Data files of a hub dataset, before any is fetched."""

    params: DatasetParams
    places: DatasetPlaces
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """One source of text that a recipe names."""

    source: TextSource
    """What is in the files and how it is read, not how much is taken."""
    files: tuple[Path, ...] = ()
    """Where they are; empty for a hub dataset."""
    hub: HubFiles | None = None
    rows: int | None = None
    """Good rows, where counting them took no time."""
    holds: str = ""
    """`chat`, `exchange` or `text`: what its first row is, where that was read."""
    what: str = field(default="")
    """The source's name in messages."""


def read_data(base: Path, item: Data, store: LocalStore) -> DataFacts:
    """Checks a source as far as that is quick, and hashes its files.

    Raises DataError for what is wrong with it, SourceError for a hub that cannot be reached.
    """
    reading = _reading(base, item)
    if item.path is None:
        return _from_hub(item, reading, store)
    path = base / item.path
    if path.is_dir():
        kind, files = "arrow", data_files(path, item.split)
    elif item.split is not None:
        raise DataError(f"{item.path}: a file has no splits; remove 'split'")
    elif path.is_file():
        kind, files = kind_of(str(path)), [path]
    else:
        raise DataError(f"{path}: no such data file; check the path in the recipe")
    rows, holds = _quick_check(path, kind, reading)
    # `rows` is None for a scan that ran out of its budget: then the step is the one that refuses
    if rows is not None and item.samples != "all" and rows < item.samples:
        raise DataError(f"{item.path} has {rows} rows; the recipe asks for {item.samples}")
    digests = [store.digests.digest(file) for file in files]
    return DataFacts(
        source=reading.model_copy(update={"kind": kind, "digests": tuple(digests)}),
        files=tuple(file.resolve() for file in files),
        rows=rows,
        holds=holds,
        what=path.name,
    )


def _reading(base: Path, item: Data) -> TextSource:
    """How rows are read and rendered; the files are not known yet."""
    return TextSource(
        columns=item.roles,
        bad_rows=item.bad_rows.skip if isinstance(item.bad_rows, Skip) else 0,
        render=item.render,
        system=item.system,
        template=None if item.template is None else _template(base, item.template),
    )


def _template(base: Path, name: str) -> str:
    """The text of a recipe's template, which goes into what is published; a link may not lead elsewhere."""
    path = base / name
    try:
        # `../x` may be named: then its own folder is the root, and a link may not lead out of that
        root, below = (base, name) if leads_out(base, name) is None else (path.parent, path.name)
        with os.fdopen(open_inside(root, below), "rb") as file:
            # asked of the open file: a path that is checked first may be another file when it is opened
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise DataError(f"template: {path}: is no regular file; name a file with a Jinja template")
            # one byte more than allowed tells too long from just long enough, without reading it all
            data = file.read(TEMPLATE_BYTES + 1)
    except LeadsOut as exc:
        raise DataError(f"template: {exc.strerror}") from None
    except (OSError, ValueError) as exc:
        raise DataError(f"template: {path}: cannot be read ({exc}); check the path") from None
    if len(data) > TEMPLATE_BYTES:
        raise DataError(f"template: {path}: more than {TEMPLATE_BYTES:,} bytes; give a Jinja template")
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise DataError(f"template: {path}:{line}: not UTF-8 ({exc.reason}); save it as UTF-8") from None
    if not text.strip():
        raise DataError(f"template: {path}: the file is empty; give a Jinja template")
    return text


def _quick_check(path: Path, kind: str, reading: TextSource) -> tuple[int | None, str]:
    """Looks at the rows of a text file (of a huge one, the first) and at the ends of a Parquet file.

    Returns the number of good rows where all were seen, and what the first holds where it was read.
    """
    if kind in KINDS:
        scanned = scan(
            [KINDS[kind](path)],
            kind,
            reading.columns,
            allowed=reading.bad_rows,
            budget_bytes=SCAN_BYTES,
        )
        first = next(scanned.read([0])).content
        holds = "chat" if isinstance(first, Chat) else "exchange" if isinstance(first, Exchange) else "text"
        return scanned.rows if scanned.complete else None, holds
    if kind == "parquet":
        _require_parquet(path)
    return None, ""


def _require_parquet(path: Path) -> None:
    with path.open("rb") as file:
        head, size = file.read(4), file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        length, tail = int.from_bytes(file.read(4), "little"), file.read()
        # 12: two marks of 4 bytes and the length between them
        if head != PARQUET or tail != PARQUET or size < 12:
            raise DataError(f"{path}: not a whole Parquet file ({size} bytes); write or get it again")
        # a length that lies would seek before the start; it is refused below
        file.seek(max(0, size - 8 - length))
        if length > size - 12 or file.read(1) != FOOTER:
            raise DataError(
                f"{path}: not a Parquet file, for its last 8 bytes name a footer of {length} bytes that is "
                f"not there ({size} bytes in all); write or get it again"
            )


def _from_hub(item: Data, reading: TextSource, store: LocalStore) -> DataFacts:
    endpoint = os.environ.get("HF_ENDPOINT")
    remote = Remote(str(item.repo), str(item.revision), store.root / "hub", endpoint, "dataset")
    sizes, configs = contents(remote)
    names = choose(item, sizes, configs, remote.where)
    return DataFacts(
        source=reading.model_copy(update={"files": tuple(names)}),
        hub=HubFiles(
            params=DatasetParams(repo=remote.repo, revision=remote.revision, files=tuple(names)),
            places=DatasetPlaces(cache=remote.cache, endpoint=remote.endpoint),
            size_bytes=sum(sizes[name] for name in names),
        ),
        what=remote.where,
    )
