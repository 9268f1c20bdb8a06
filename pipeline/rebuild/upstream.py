"""Asks the hub for the newest commit of repositories that published engines were built from."""

import os
from collections.abc import Iterable

from huggingface_hub import HfApi

from pipeline.errors import SourceError
from pipeline.sources.hub import PLAN_ATTEMPTS, Patience


def newest_commits(repos: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Repository -> commit of its default branch, and repository -> why it could not be asked."""
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    heads: dict[str, str] = {}
    problems: dict[str, str] = {}
    for repo in sorted(set(repos)):
        try:
            heads[repo] = _newest(api, repo)
        except SourceError as exc:
            problems[repo] = str(exc)
    return heads, problems


def _newest(api: HfApi, repo: str) -> str:
    info = Patience(repo, PLAN_ATTEMPTS).until_done(lambda: api.model_info(repo, timeout=30))
    if info.sha is None:
        raise SourceError(f"{repo}: the hub names no commit; check HF_ENDPOINT")
    return info.sha
