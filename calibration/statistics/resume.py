"""The state of a pass in a directory that survives kill -9, and the check of who may resume it.

    state.json                 identity of the pass, of each finished layer sha256, seconds, warnings; boot id
    layer-00000.safetensors    statistics of the finished layers
    hidden-*.bin               hidden states (hidden.py)

A layer is finished when state.json says so; it is written last, aside, and renamed. A pass with another
identity is refused. A directory whose files are not what state.json says is not repaired: hidden states of
earlier layers are gone, so the pass begins anew, which its report says.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors.torch import save

from calibration.errors import ResumeRefused
from calibration.parameters import StatisticsJob
from calibration.statistics.statistics_artifact import layer_file

STATE = "state.json"
BOOT = Path("/proc/sys/kernel/random/boot_id")
SEALED = "manifest.json"
"""File of a stored artifact that names the digest of everything in it."""


class LayerDetails(TypedDict):
    """What the report says of a layer."""

    seconds: float
    warnings: list[str]


class LayerState(LayerDetails):
    """A finished layer in state.json."""

    sha256: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The result of one layer."""

    number: int
    tensors: Mapping[str, torch.Tensor]
    """Statistics by the artifact's names."""
    details: LayerDetails


@dataclass(slots=True)
class Partial:
    """A pass that may have been interrupted."""

    root: Path
    identity: dict[str, Any]
    layers: list[LayerState] = field(default_factory=list)
    """The finished layers."""
    has_inputs: bool = False
    """Whether the first layer's inputs are complete."""

    @classmethod
    def open(cls, root: Path, identity: Mapping[str, Any]) -> tuple["Partial", str]:
        """The state to resume, and the reason why earlier work was discarded, empty if none was.

        ResumeRefused for an interrupted pass with another identity.
        """
        root.mkdir(parents=True, exist_ok=True)
        # Through JSON, so that it compares equal with what state.json returns: tuples become lists.
        pass_ = cls(root, json.loads(json.dumps(identity)))
        if not (root / STATE).is_file():
            return pass_, ""
        try:
            state = json.loads((root / STATE).read_bytes())
            earlier, layers = dict(state["identity"]), list(state["layers"])
        except (ValueError, KeyError, TypeError):
            return pass_, pass_.discard(f"{STATE} is broken")
        pass_._require_same(earlier)
        # After a power failure a renamed file may be empty: nothing here waits for the disk, which would cost
        # more than it saves.
        if state.get("boot") != boot():
            return pass_, pass_.discard(
                "the machine was started anew since, files may not be what was written"
            )
        if damaged := [
            n for n, layer in enumerate(layers) if _sha256(root / layer_file(n)) != layer["sha256"]
        ]:
            return pass_, pass_.discard(f"{layer_file(damaged[0])} is not what was written")
        pass_.layers, pass_.has_inputs = layers, True
        return pass_, ""

    def discard(self, why: str) -> str:
        """Discard finished layers, before any file is overwritten; return the note for the report."""
        # First: state.json must never name files that are being overwritten.
        (self.root / STATE).unlink()
        self.layers, self.has_inputs = [], False
        return f"{why}; began anew"

    def begin(self) -> None:
        """Record that the first layer's inputs are complete."""
        self.layers, self.has_inputs = [], True
        self._save()

    def commit(self, finished: Sequence[Finished]) -> None:
        """Record finished layers; the outputs of the last one must be complete."""
        entries: list[LayerState] = []
        for layer in finished:
            # `save` refuses tensors that share memory, which the linears of one input do.
            content = save({name: tensor.clone() for name, tensor in layer.tensors.items()})
            _replace(self.root / layer_file(layer.number), content)
            entries.append({"sha256": hashlib.sha256(content).hexdigest(), **layer.details})
        self.layers += entries
        self._save()

    def _save(self) -> None:
        state = {"identity": self.identity, "boot": boot(), "layers": self.layers}
        _replace(self.root / STATE, json.dumps(state, indent=1).encode())

    def _require_same(self, earlier: Mapping[str, Any]) -> None:
        differing = sorted(
            name for name in {*earlier, *self.identity} if earlier.get(name) != self.identity.get(name)
        )
        if differing:
            description = "; ".join(
                f"{name} was {earlier.get(name)}, is {self.identity.get(name)}" for name in differing
            )
            raise ResumeRefused(
                f"{self.root} holds an interrupted pass with other inputs ({description}); "
                "restore them, or remove the directory to begin anew"
            )


def boot() -> str:
    """Id of the machine's boot: files of an earlier boot may be incomplete, since they are not synced."""
    return BOOT.read_text(encoding="ascii").strip()


def identity(job: StatisticsJob, versions: Mapping[str, str]) -> dict[str, Any]:
    """Everything that a pass's outcome depends on, flat: name -> value or digest."""
    made: dict[str, Any] = {f"params.{name}": value for name, value in job.params.document().items()}
    made |= {f"inputs.{role}": content(folder) for role, folder in job.inputs.items()}
    return made | {f"version.{name}": version for name, version in versions.items()}


def content(folder: Path) -> str:
    """Digest of a directory: the store's own, or of names, sizes and times of its files."""
    if (folder / SEALED).is_file():
        return str(json.loads((folder / SEALED).read_bytes())["digest"])
    files = sorted(path for path in folder.iterdir() if path.is_file())
    # Not their bytes: hashing a checkpoint takes as long as a pass on it.
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps(stats).encode()).hexdigest()


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.aside")
    temporary.write_bytes(data)
    # A killed process leaves the old file or the new one, never a part.
    temporary.replace(path)


def _sha256(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
