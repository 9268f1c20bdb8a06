"""Names of places outside: `hf:DIR`, `hf://OWNER/NAME`, `oci:DIR[:TAG]`, `mlflow:URL[#MODEL]`; pure."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.errors import ExchangeRefused
from recipes.regular import user_path

FORMS = (
    "hf:DIR (a directory in Hugging Face layout), hf://OWNER/NAME (a repository), "
    "oci:DIR[:TAG] (an OCI image layout) or mlflow:http://HOST[#MODEL] (a registered model)"
)

TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
"""What OCI registries take as a tag."""

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")

MODEL = re.compile(r"([^/:@\x00-\x1f]+)(?:/(\d{1,9})|@([^/:@\x00-\x1f]+))?")


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory in Hugging Face layout; to import from, any."""

    path: Path


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository of a Hugging Face hub."""

    repo: str
    revision: str = "main"


@dataclass(frozen=True, slots=True)
class Layout:
    """One manifest of an OCI image layout."""

    path: Path
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A model of an MLflow server; its newest version where neither number nor alias is given."""

    address: str
    model: str | None = None
    number: int | None = None
    alias: str | None = None


Target = Directory | Repository | Layout | RegisteredModel


def parse(text: str) -> Target:
    """The place that a text names; ExchangeRefused, without repeating secrets, where it names none."""
    # it is repeated in messages, where control characters could move the terminal's cursor
    if not text.isprintable():
        raise ExchangeRefused(f"{text!r} contains a control character; give {FORMS}")
    kind, _, rest = text.partition(":")
    if kind == "hf" and rest.startswith("//"):
        return _repository(rest.removeprefix("//"))
    if kind == "hf" and rest:
        return Directory(user_path(rest))
    if kind == "oci" and rest:
        return _layout(rest)
    if kind == "mlflow" and rest:
        return _registered(rest)
    raise ExchangeRefused(
        # only what is before `://`: a password may follow
        f"{text.partition('://')[0]!r} is not a place to push to or import from; give {FORMS}"
    )


def parse_source(text: str) -> Target:
    """The place to import from: as `parse`, or a plain directory."""
    # other texts are paths, also with a colon in them
    if text.partition(":")[0] not in ("hf", "oci", "mlflow"):
        return Directory(user_path(text))
    return parse(text)


def _repository(text: str) -> Repository:
    repo, _, revision = text.partition("@")
    if not REPOSITORY.fullmatch(repo):
        raise ExchangeRefused(
            f"hf://{repo!r} is not a repository; give hf://OWNER/NAME or hf://OWNER/NAME@COMMIT"
        )
    return Repository(repo, revision or "main")


def _layout(text: str) -> Layout:
    path, separator, tag = text.rpartition(":")
    # a colon with a slash behind it is part of the path, as no tag has one
    if not separator or "/" in tag:
        return Layout(user_path(text))
    if not TAG.fullmatch(tag):
        raise ExchangeRefused(f"{tag!r} is not an OCI tag; use up to 128 letters, digits, '.', '_' and '-'")
    return Layout(user_path(path), tag)


def _registered(text: str) -> RegisteredModel:
    url = urlsplit(text)
    if url.username is not None or url.password is not None or url.query:
        raise ExchangeRefused(
            "an mlflow: address carries a user name, a password or a query; leave them out and set "
            "MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ExchangeRefused("an mlflow: address is that of a server; give mlflow:http://HOST:PORT[#MODEL]")
    address = f"{url.scheme}://{url.netloc}{url.path}".rstrip("/")
    if not url.fragment:
        return RegisteredModel(address)
    model = MODEL.fullmatch(url.fragment)
    if model is None:
        raise ExchangeRefused(
            f"#{url.fragment!r} is not a model of MLflow; give #MODEL, #MODEL/NUMBER or #MODEL@ALIAS"
        )
    name, number, alias = model.groups()
    return RegisteredModel(address, name, int(number) if number else None, alias)
