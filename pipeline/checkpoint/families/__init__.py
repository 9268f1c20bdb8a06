"""Model families, one file each; a new file is a new family."""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from pipeline.checkpoint.modules import Family
from pipeline.errors import SourceError


def names() -> list[str]:
    """Lists the family files."""
    return sorted(module.name for module in iter_modules(__path__))


@cache
def family(architecture: str) -> Family:
    """Returns the family of an architecture; an unknown one is a SourceError that lists those supported."""
    # A file in this folder registers itself: no list here to forget.
    families: list[Family] = [import_module(f"{__name__}.{name}").FAMILY for name in names()]
    for candidate in families:
        if architecture in candidate.architectures:
            return candidate
    supported = ", ".join(each for candidate in families for each in candidate.architectures)
    raise SourceError(f"config.json: architecture {architecture!r} is not supported; supported: {supported}")
