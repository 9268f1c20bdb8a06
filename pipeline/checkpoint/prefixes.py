"""Names of tensors that wrappers of a model put something before, or into; pure."""

from collections import defaultdict
from collections.abc import Mapping

from pipeline.checkpoint.families import family
from pipeline.checkpoint.named import Size
from pipeline.models.model_json import SHOWN, shortened
from pipeline.models.shape import ModelShape
from pipeline.weights.tensors import TensorEntry

WRAPPERS = {
    "_orig_mod.": "torch.compile puts it there: save `model._orig_mod`",
    "module.": "DataParallel and FSDP put it there: save `model.module`",
    "base_model.model.": "peft puts it there: save what `merge_and_unload()` returns",
}
"""Foreign beginning of names -> where it is from, and what to save instead."""

PREFIXES = 4
"""Foreign prefixes that are looked at, the most common first."""

INFIX = "._orig_mod."
"""Stands within the names where torch.compile was given a part of the model."""


def plain(name: str) -> str:
    """Shows a tensor's name as it stands, or shortened and quoted where it is long or not printable."""
    return name if len(name) <= SHOWN and name.isprintable() else shortened(name)


def without_prefixes(
    expected: Mapping[str, Size], entries: Mapping[str, TensorEntry], shape: ModelShape, where: str
) -> tuple[Mapping[str, TensorEntry], list[str]]:
    """The tensors under the names that they have without what stands before them, and what that is."""
    if expected.keys() == entries.keys():
        return entries, []
    # Names may also lack the model's own root: AutoModel saves `layers.0...` for `model.layers.0...`.
    root = family(shape.architecture).layers.partition(".")[0] + "."
    renamed, problems = _remove_infix(entries, where)
    prefixes: dict[tuple[str, str] | None, list[TensorEntry]] = defaultdict(list)
    for name, entry in renamed.items():
        if name not in expected:
            prefixes[_split_prefix(name, expected, root)].append(entry)
    # The most common first, and only a few: every foreign tensor may begin with another prefix.
    for candidate in sorted(prefixes, key=lambda each: -len(prefixes[each]))[:PREFIXES]:
        if candidate is None:
            continue
        prefix, instead = candidate
        names = [name for name in renamed if name.startswith(prefix) and name not in expected]
        own = {name: instead + name.removeprefix(prefix) for name in names}
        if renamed.keys().isdisjoint(own.values()):  # else they are beside the model's own: of another part
            renamed = {own.get(name, name): entry for name, entry in renamed.items()}
            problems.append(f"{where}/{_describe_prefix(prefix, instead, prefixes[candidate], len(entries))}")
    return renamed, problems


def _remove_infix(entries: Mapping[str, TensorEntry], where: str) -> tuple[dict[str, TensorEntry], list[str]]:
    """The tensors under the names that they have without torch.compile, and where it was used."""
    compiled = {name: name.replace(INFIX, ".") for name in entries if INFIX in name}
    if not compiled or not entries.keys().isdisjoint(compiled.values()):
        return dict(entries), []
    first = entries[next(iter(compiled))]
    message = (
        f"{where}/{first.file.name}: {len(compiled)} of {len(entries)} names hold {INFIX!r} (as "
        f"{plain(first.name)}); torch.compile puts it there: save the modules that it was given, or "
        "rename them"
    )
    return {compiled.get(name, name): entry for name, entry in entries.items()}, [message]


def _split_prefix(name: str, expected: Mapping[str, Size], root: str) -> tuple[str, str] | None:
    """What stands before a tensor's own name, and what should; None for the name of no tensor."""
    if root + name in expected:
        return "", root
    end = name.find(".") + 1
    while end:
        if name[end:] in expected:
            return name[:end], ""
        if root + name[end:] in expected:
            return name[:end], root
        end = name.find(".", end) + 1
    return None


def _describe_prefix(prefix: str, instead: str, those_with: list[TensorEntry], total: int) -> str:
    first = those_with[0]
    those = f"{first.file.name}: {len(those_with)} of {total} names"
    if not prefix:
        return (
            f"{those} lack {instead!r} at their beginning (as {plain(first.name)}); save the whole causal "
            "language model, or rename them"
        )
    expected = f" in the place of {instead!r}" if instead else ""
    return (
        f"{those} begin with the foreign prefix {shortened(prefix)}{expected} (as {plain(first.name)}); "
        f"{WRAPPERS.get(prefix, 'save the language model alone')}, or rename them"
    )
