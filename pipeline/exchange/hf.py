"""A version's checkpoint as a Hugging Face repository: a directory, or a commit on a hub; and back."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from artifacts.client import Client
from artifacts.store import disk, tree
from artifacts.store.disk import refuse_taken
from pipeline.errors import ExchangeFailed, ExchangeRefused
from pipeline.exchange.model_card import card
from pipeline.exchange.pushed_content import IMPORT_COPIES, Content, Progress, working_beside, write
from pipeline.exchange.target import Repository
from pipeline.process.meter import Progress as Ticks
from pipeline.sources import hub, hub_download
from pipeline.sources.snapshot import Remote
from recipes import yaml_text

README = "README.md"

COMMIT = re.compile(r"[0-9a-f]{40}")


def write_directory(content: Content, client: Client, target: Path, progress: Progress | None = None) -> Path:
    """Writes what a repository of the part would hold, with its card, to the new directory `target`."""
    where = target.absolute()
    # before the copy, which is long; asked again below, as the target may appear meanwhile
    refuse_taken(where)
    with working_beside(where, content.manifest.size_bytes) as draft:
        repository = draft / "repository"
        _write(content, client, repository, progress)
        # the rename must not become durable before the files do
        tree.sync_all(repository)
        refuse_taken(where)
        repository.rename(where)
    return where


def _write(content: Content, client: Client, directory: Path, progress: Progress | None) -> None:
    """Writes the part, and the card in the place of the one that its source may have."""
    write(content, client, directory, progress)
    (directory / README).write_text(card(content))


def upload(content: Content, client: Client, to: Repository, progress: Progress | None = None) -> str:
    """Commits the part and its card to a repository, which is made private where it is new; returns its URL.

    Token, proxy and address are those that huggingface_hub is set up for.
    """
    if to.revision != "main":
        raise ExchangeRefused(f"hf://{to.repo}@{to.revision} names a commit; push to hf://{to.repo}")
    api = HfApi(library_name="enginery")
    with (
        working_beside(client.store.root / "push", content.manifest.size_bytes) as draft,
        _hub_errors(to.repo),
    ):
        _write(content, client, draft / "repo", progress)
        api.create_repo(to.repo, private=True, exist_ok=True)
        commit = api.upload_folder(
            repo_id=to.repo,
            folder_path=draft / "repo",
            commit_message=f"{content.record.reference} by enginery",
        )
    return str(commit.commit_url)


def fetch(source: Repository, cache: Path, progress: Ticks) -> tuple[Path, str]:
    """Downloads a checkpoint from a hub, each file verified; returns its directory and the commit's hash."""
    with _hub_errors(source.repo):
        commit = source.revision
        # a branch moves; its commit is recorded and downloaded, so that all files are of one commit
        if not COMMIT.fullmatch(commit):
            commit = str(HfApi(library_name="enginery").model_info(source.repo, revision=commit).sha)
    remote = Remote(source.repo, commit, cache)
    files = hub.listing(remote)
    # bytes of an earlier, interrupted download are on disk already
    needed = IMPORT_COPIES * sum(file.size for file in files) - disk.allocated_bytes(remote.directory)
    disk.ReportFullDisk(cache, f"hf://{source.repo}", needed_bytes=needed).require()
    hub_download.fetch(remote, files, progress)
    return remote.directory / "files", commit


@contextmanager
def _hub_errors(repo: str) -> Iterator[None]:
    """Turns what a hub or the way to it refuses into an ExchangeFailed without addresses or tokens."""
    try:
        yield
    except OfflineModeIsEnabled:
        raise ExchangeFailed(f"hf://{repo}: HF_HUB_OFFLINE is set; unset it") from None
    except HfHubHTTPError as exc:
        code = exc.response.status_code
        raise ExchangeFailed(
            f"hf://{repo}: the hub answers HTTP {code}; check the name, and log in with `hf auth login` "
            "with a token that may do this"
        ) from None
    except httpx.HTTPError as exc:
        raise ExchangeFailed(
            f"hf://{repo}: connection failed ({type(exc).__name__}); check the network and run again"
        ) from None


def front_matter(directory: Path) -> dict[str, Any]:
    """What a model card says in its YAML front matter; empty where there is none that can be read."""
    path = directory / README
    if not path.is_file():
        return {}
    # cards come from outside, also from Windows: other line ends, and bytes that are no UTF-8
    match = re.match(r"---\r?\n(.*?)\r?\n---", path.read_text(errors="replace"), re.DOTALL)
    try:
        front = yaml_text.parse_card(match[1]) if match else None
    except yaml.YAMLError:
        return {}
    # YAML yields dates and the like, which the registry's JSON cannot hold
    return json.loads(json.dumps(front, default=str)) if isinstance(front, dict) else {}
