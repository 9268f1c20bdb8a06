"""What is changed in a recipe for each fact that a version does not suit; pure."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from artifacts.finding.comparison import Setting
from artifacts.finding.needs import same_gpu
from pipeline import engines
from pipeline.process.gpus import TARGETS

KV_CACHES = {"float8_e4m3fn": "fp8", "int8": "int8"}
"""Type of the cache as facts name it -> as recipes do."""

TUNABLE = ("ttft_ms_p95", "itl_ms_p95", "tokens_per_s_per_user")
"""Service levels that a search of settings can aim at."""

TRIALS = 4
"""Batch sizes that a search for a service level tries: the version's, and its halves."""

COMMIT = re.compile(r"(?P<repo>[^@\s]+)@(?P<revision>[0-9a-f]{40})")


@dataclass
class Draft:
    """A recipe being changed."""

    recipe: dict[str, Any]
    facts: Mapping[str, Any]
    wanted: Mapping[str, Any]
    changes: list[Setting] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def set(self, place: str, value: Any) -> None:
        """Changes one dotted place; None takes it out."""
        *parents, leaf = place.split(".")
        table = self.recipe
        for parent in parents:
            table = table.setdefault(parent, {})
        before = table.get(leaf)
        if before == value:
            return
        if value is None:
            del table[leaf]
        else:
            table[leaf] = value
        self.changes.append(Setting(place, before, value))

    def engine(self, name: str) -> Any:
        """A setting of the engine."""
        return self.recipe["engine"].get(name)

    def fix_setting(self, name: str, value: Any) -> None:
        """Sets an engine setting, which is then no longer searched for."""
        self.set(f"engine.{name}", value)
        space = self.recipe.get("tune", {}).get("space", {})
        if name in space:
            rest = {other: values for other, values in space.items() if other != name}
            # Without settings to try there is no search.
            self.set("tune", {**self.recipe["tune"], "space": rest} if rest else None)


def _model(draft: Draft, want: str) -> None:
    match = COMMIT.fullmatch(want)
    if match is None:
        draft.open.append(f"model: {want!r} names no commit; ask for REPO@COMMIT to get a recipe for it")
        return
    draft.set("model", match.groupdict())


def _format(draft: Draft, want: str) -> None:
    draft.set("format", want)


def _kv_cache(draft: Draft, want: str) -> None:
    if want == draft.facts.get("dtype"):
        draft.set("kv_cache", "auto")
    elif want in KV_CACHES:
        draft.set("kv_cache", KV_CACHES[want])
    else:
        draft.open.append(f"kv_cache: {want!r} is not built; have {', '.join(KV_CACHES)} and the model's own")


def _backend(draft: Draft, want: str) -> None:
    if draft.engine("backend") == want:
        return
    draft.set("engine.backend", want)
    # Options and toolchain belong to one backend, and what a search tries of options too.
    if draft.engine("options"):
        draft.set("engine.options", {})
    if draft.engine("toolchain"):
        draft.set("engine.toolchain", None)
    for name in [
        name for name in draft.recipe.get("tune", {}).get("space", {}) if name.startswith("options.")
    ]:
        draft.fix_setting(name, None)
    backend = engines.find_backend(want)
    # A backend without GPUs builds for the host that it is on.
    if backend is not None and not backend.on_gpu and draft.engine("target") != "host":
        draft.set("engine.target", "host")


def _degree(name: str) -> Callable[[Draft, int], None]:
    def fix(draft: Draft, want: int) -> None:
        draft.set(f"engine.{name}", want)
        # Experts are spread over a part of the tp ranks; one group is always possible.
        if draft.engine("tp") % (draft.engine("ep") or 1):
            draft.set("engine.ep", 1)

    return fix


def _world_size(draft: Draft, want: int) -> None:
    pp = draft.engine("pp") or 1
    # pp first: the line after it reads the value. Stages stay where they divide the ranks.
    _degree("pp")(draft, pp if want % pp == 0 else 1)
    _degree("tp")(draft, want // draft.engine("pp"))


def _limit(name: str) -> Callable[[Draft, int], None]:
    return lambda draft, want: draft.fix_setting(name, want)


def _target(draft: Draft, want: str) -> None:
    draft.set("engine.target", want)


def _gpu(draft: Draft, want: str) -> None:
    kinds = [name for name in TARGETS if name == want.lower() or same_gpu(name, want)]
    if not kinds:
        draft.open.append(f"gpu: {want!r} is no known GPU type; have {', '.join(TARGETS)}")
        return
    backend = engines.find_backend(draft.engine("backend"))
    # A GPU is asked for, which this backend would not use.
    if backend is not None and not backend.on_gpu:
        _backend(draft, engines.suggest(draft.wanted.get("runtime", {}), on_gpu=True))
    draft.set("engine.target", kinds[0])


def _gpu_count(draft: Draft, have: int) -> None:
    """Powers of two split heads most often; the planner then checks whether the weights fit."""
    _degree("pp")(draft, 1)
    _degree("tp")(draft, 1 << (have.bit_length() - 1))


def _gpus(draft: Draft, names: Sequence[str]) -> None:
    """This host's own."""
    if not names:
        _backend(draft, engines.suggest({}, on_gpu=False))
        return
    _gpu(draft, names[0])
    if draft.facts.get("world_size", 1) > len(names):
        _gpu_count(draft, len(names))


def _memory(draft: Draft, have: int) -> None:
    needs = draft.facts.get("memory_bytes_per_rank") or draft.facts.get("weight_bytes_per_rank")
    most, tp = max(needs) if isinstance(needs, list) else int(needs or 0), draft.engine("tp") or 1
    wider = tp
    # What a rank needs is taken to fall as ranks are added; the planner then checks it.
    while most * tp > have * wider:
        wider *= 2
    _degree("tp")(draft, wider)


def _runtime(draft: Draft, programs: Mapping[str, str]) -> None:
    backend = engines.find_backend(draft.engine("backend"))
    outside = backend is not None and backend.uses_toolchain
    # A host with torch runs aoti's engines, one with TensorRT-LLM those of an outside toolchain.
    if "torch" in programs and outside:
        _backend(draft, engines.suggest(programs, on_gpu=False))
    elif "torch" not in programs and not outside:
        _backend(draft, engines.suggest(programs, on_gpu=True))
        if draft.engine("target") == "host" and "gpu" not in draft.wanted:
            draft.open.append("engine.target: TensorRT-LLM needs a GPU; ask for one with --gpu")
    if draft.engine("toolchain"):
        draft.set("engine.toolchain", None)
    draft.notes.append(
        f"Build it with {' and '.join(f'{name} {version}' for name, version in programs.items())}."
    )


def _built_here(draft: Draft, want: Any) -> None:
    note = "Build it on the host that is to load it."
    if note not in draft.notes:
        draft.notes.append(note)


def _driver(draft: Draft, have: str) -> None:
    draft.notes.append(f"Build it with driver {have}, or an older one.")


def _slo(draft: Draft, bounds: Mapping[str, float]) -> None:
    """Speeds are searched for, accuracy becomes the gate's limit."""
    speeds = {
        name.partition("@")[0]: bound for name, bound in bounds.items() if name.partition("@")[0] in TUNABLE
    }
    for name, bound in bounds.items():
        if name in ("kl", "top1_agreement", "perplexity_ratio"):
            draft.set(f"gate.limits.{name}", bound)
            draft.notes.append(f"Whether {name} is within {bound:g}, the gate tells; a milder format helps.")
        elif name.partition("@")[0] not in TUNABLE:
            draft.open.append(f"slo: no recipe promises {name} {bound:g}; have {', '.join(TUNABLE)}")
    if not speeds:
        return
    batch, least = int(draft.engine("max_batch_size") or 8), draft.wanted.get("max_batch_size", 1)
    # Smaller batches answer sooner; none below what the request itself needs.
    sizes = [batch >> turn for turn in range(TRIALS) if batch >> turn >= least]
    tune = draft.recipe.get("tune") or {"space": {"max_batch_size": sizes}, "budget": {"trials": len(sizes)}}
    draft.set("tune", {**tune, "slo": {**tune.get("slo", {}), **speeds}})
    draft.notes.append("Whether a point reaches the service level, the search tells by measuring.")


def _name(draft: Draft, want: str) -> None:
    draft.set("name", want)


def _bytes(draft: Draft, want: Any) -> None:
    draft.notes.append("Its bytes were collected: running the recipe makes them again.")


FIXES: dict[str, Callable[[Draft, Any], None]] = {
    "model": _model, "backend": _backend, "format": _format, "kv_cache": _kv_cache,
    "tp": _degree("tp"), "pp": _degree("pp"), "world_size": _world_size,
    "max_batch_size": _limit("max_batch_size"), "max_seq_len": _limit("max_seq_len"),
    "target": _target, "gpu": _gpu, "gpus": _gpus, "gpu_count": _gpu_count, "memory_bytes": _memory,
    "runtime": _runtime, "tensorrt_llm": _built_here, "tensorrt": _built_here, "torch": _built_here,
    "cpu": _built_here, "sm": _built_here, "driver": _driver, "slo": _slo, "bytes": _bytes, "name": _name,
}  # fmt: skip
"""What is done about each fact that a version does not suit, in the order in which they build on another."""
