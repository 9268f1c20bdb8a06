"""The dataset step: data files of a hub dataset at a commit; its code is never run, nor even fetched."""

import json
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from calibration.data.origin import SUFFIXES, kind_of
from calibration.errors import DataError
from pipeline.errors import SourceError
from pipeline.process.meter import Progress
from pipeline.sources.snapshot import PAPERS, Remote
from pipeline.step.step_parameters import DatasetJob
from recipes import yaml_text
from recipes.data import Data

CARD = "README.md"

CARD_BYTES = 4 << 20
"""Read of a card, at most."""

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Split -> words for it in file names, where the card says nothing."""

SHARD = re.compile(r"(?:.*/)?(?P<split>[\w.]+)-\d{5}-of-\d{5}(?:-[0-9a-f]+)?\.\w+")
"""A file as `push_to_hub` names it."""


def build(job: DatasetJob, progress: Progress) -> None:
    """Fetches the planned files, verified, going on where an earlier download stopped."""
    from pipeline.sources import (  # huggingface_hub, which choosing files does not need
        copying,
        hub,
        hub_download,
    )

    params, places, out = job.params, job.places, job.out
    remote = Remote(params.repo, params.revision, places.cache, places.endpoint, "dataset")
    wanted = set(params.files)
    files = [file for file in hub.listing(remote) if file.name in wanted]
    if len(files) < len(wanted):
        lacking = sorted(wanted - {file.name for file in files})
        raise SourceError(f"{remote.where}: {lacking[0]} is not in the commit; plan again")
    copying.require_room(out, sum(file.size for file in files))
    shelf = remote.directory / "files"
    for path in hub_download.fetch(remote, files, progress):
        # folders are kept: files of two folders may share a name
        target = out / path.relative_to(shelf)
        target.parent.mkdir(parents=True, exist_ok=True)
        copying.place(path, target)


def contents(remote: Remote) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Sizes of a commit's files by name, and the configurations that its card lists.

    Asked once, then read from the cache; a hub that cannot be reached is a SourceError.
    """
    saved = remote.directory / "contents.json"
    if not saved.exists():
        from pipeline.sources import (
            hub,  # huggingface_hub costs 0.2 s, and only the first plan of a commit needs it
        )

        files = {file.name: file.size for file in hub.listing(remote, hub.PLAN_ATTEMPTS)}
        card = b""
        if files.get(CARD):
            patience = hub.Patience(f"{remote.where}: {CARD}", hub.PLAN_ATTEMPTS)
            # cut at CARD_BYTES: the YAML stands in front, and the rest is prose
            card = patience.until_done(lambda: hub.read(remote, CARD, min(files[CARD], CARD_BYTES)))
        contents = {"files": files, "configs": configurations(card.decode("utf-8", "replace"), remote.where)}
        with tempfile.NamedTemporaryFile("w", dir=remote.directory, delete=False) as aside:
            json.dump(contents, aside)
        Path(aside.name).rename(saved)
    saved_contents = json.loads(saved.read_bytes())
    return saved_contents["files"], saved_contents["configs"]


def configurations(card: str, where: str) -> list[dict[str, Any]]:
    """The list `configs` in the YAML in front of a dataset card; raises DataError for broken YAML."""
    front = re.match(r"\A\ufeff?---\s*\n(.*?)\n---\s*(\n|\Z)", card, re.DOTALL)
    if front is None:
        return []
    try:
        document = yaml_text.parse_card(front[1])
    except yaml.YAMLError as exc:
        reason = yaml_text.format_error(exc)
        raise DataError(f"{where}: {CARD}: not YAML ({reason}); name the data files in 'files'") from None
    listed = document.get("configs") if isinstance(document, dict) else None
    return [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []


def choose(item: Data, names: Iterable[str], configs: Sequence[Mapping[str, Any]], where: str) -> list[str]:
    """The data files that a recipe's source means, sorted; raises DataError where they cannot be told."""
    candidates = sorted(names)
    if item.files:
        chosen = [name for pattern in item.files for name in _match_files(pattern, candidates, where)]
    elif configs:
        chosen = _choose_by_card(item, candidates, configs, where)
    else:
        _refuse_script(item, candidates, where)
        if item.config is not None:
            raise DataError(
                f"{where}: config {item.config!r}, but its card lists none; name the data files in 'files'"
            )
        chosen = _choose_by_name(item, candidates, where)
    for name in chosen:
        kind_of(name)
    return sorted(set(chosen))


def _match_files(pattern: str, names: Sequence[str], where: str) -> list[str]:
    expression = re.compile(_compile_pattern(pattern.removeprefix("./")))
    matches = [name for name in names if expression.fullmatch(name)]
    if not matches:
        raise DataError(f"{where}: no file matches {pattern!r}; have {_format_names(names)}")
    return matches


def _compile_pattern(pattern: str) -> str:
    """A shell pattern as a regular expression: `*` stays within a directory, `**` does not."""
    # the group keeps the separators, which are the wildcards; `**` is tried before `*`
    parts = re.split(r"(\*\*/?|\*|\?|\[[^\]]+\])", pattern)
    meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        part if part.startswith("[") and part.endswith("]") else meaning.get(part, re.escape(part))
        for part in parts
    )


def _choose_by_card(
    item: Data, names: Sequence[str], configs: Sequence[Mapping[str, Any]], where: str
) -> list[str]:
    """Files of a configuration and split as the card lists them."""
    config = _choose_config(item, configs, where)
    by_split = dict[str, list[str]]()
    root = str(config.get("data_dir") or "").strip("/")
    for entry in _as_list(config.get("data_files")):
        split, paths = (
            # a bare path names no split: then it is training data
            (str(entry.get("split")), entry.get("path")) if isinstance(entry, dict) else ("train", entry)
        )
        by_split.setdefault(split, []).extend(str(path) for path in _as_list(paths))
    if not by_split:
        # a configuration with a folder and no files: splits are told by file names
        inside = [name for name in names if name.startswith(f"{root}/")] if root else names
        return _choose_by_name(item, inside, where)
    split_name = _choose_split(item, list(by_split), where)
    prefix = f"{root}/" if root else ""
    return [name for path in by_split[split_name] for name in _match_files(prefix + path, names, where)]


def _choose_config(item: Data, configs: Sequence[Mapping[str, Any]], where: str) -> Mapping[str, Any]:
    names = [str(config.get("config_name", "default")) for config in configs]
    if item.config is None and len(configs) == 1:
        return configs[0]
    # `is True`: YAML may hold the text "true" there, which marks nothing
    marked = [name for name, config in zip(names, configs, strict=True) if config.get("default") is True]
    config_name = item.config or next(iter(marked), "default")
    if config_name not in names:
        problem = "several configs" if item.config is None else f"no config {item.config!r}"
        raise DataError(f"{where}: {problem}; name one of {_format_names(names)} in 'config'")
    return configs[names.index(config_name)]


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, dict):
        # the short form, {train: a.csv}, as the list that the long form is
        return [{"split": split, "path": path} for split, path in value.items()]
    return value if isinstance(value, list) else [] if value is None else [value]


def _choose_split(item: Data, splits: Sequence[str], where: str) -> str:
    split = item.split or "train"
    if split not in splits:
        problem = f"no split {split!r}" if item.split else "no split 'train', which is the default"
        raise DataError(f"{where}: {problem}; name one of {_format_names(splits)} in 'split'")
    return split


def _choose_by_name(item: Data, names: Sequence[str], where: str) -> list[str]:
    """Files whose names say the split; all of them are `train` where none says any."""
    data = [
        name
        for name in names
        # a LICENSE.txt or README.txt would pass for a text file
        if name.endswith(SUFFIXES) and not name.startswith((".", "_")) and not PAPERS.fullmatch(name)
    ]
    if not data:
        raise DataError(f"{where}: no data files ({', '.join(SUFFIXES)}); have {_format_names(names)}")
    by_split = dict[str, list[str]]()
    for name in data:
        by_split.setdefault(_find_split(name) or "", []).append(name)
    # As in the datasets library: files without a split in their names are all training data.
    if set(by_split) == {""}:
        by_split = {"train": data}
    # files that say no split, beside others that do, belong to none
    by_split.pop("", None)
    return by_split[_choose_split(item, list(by_split), where)]


def _find_split(name: str) -> str | None:
    shard = SHARD.fullmatch(name)
    split_name = shard["split"] if shard else name.rpartition(".")[0]
    # whole words: `contest.csv` is no test split
    parts = re.split(r"[^A-Za-z]+", split_name.lower())
    for split, words in SPLITS.items():
        if set(words) & set(parts):
            return split
    return shard["split"] if shard else None


def _refuse_script(item: Data, names: Sequence[str], where: str) -> None:
    script = f"{str(item.repo).rpartition('/')[2]}.py"
    if script in names:
        raise DataError(
            f"{where}: needs its loading script {script}, and code from the hub is not run; name its data "
            "files in 'files', or take a repository that holds data files"
        )


def _format_names(names: Sequence[str]) -> str:
    listing = ", ".join(names[:10]) or "nothing"
    return listing if len(names) <= 10 else f"{listing} and {len(names) - 10} more"
