"""One unit of a plan: what goes in, what it makes, and its key."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from artifacts import digest
from calibration.job import NoPlaces, Parameters, Places
from pipeline.step.step_parameters import DatasetParams, SourceParams, SourcePlaces

Kind = Literal[
    "source",
    "dataset",
    "calibration_set",
    "leakage",
    "statistics",
    "quantized_checkpoint",
    "sharded_checkpoint",
    "engine",
    "measurement",
    "baseline",
    "evaluation",
    "sensitivity",
]

REVISIONS: dict[Kind, int] = {
    "source": 1,
    "dataset": 1,
    "calibration_set": 4,
    "leakage": 1,
    "statistics": 1,
    "quantized_checkpoint": 2,
    "sharded_checkpoint": 2,
    "engine": 4,
    "measurement": 1,
    "baseline": 2,
    "evaluation": 1,
    "sensitivity": 1,
}
"""Raised when our own code of a step changes what it writes; part of every key.

They go on counting from 0.1, so that its manifests can be compared. No key can be one of 0.1, which hashed a
field `builder` too.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One immutable artifact to be: a directory in the store under `key`."""

    kind: Kind
    variant: str = ""
    """Which of the makers of its kind, where it has several (`pipeline.child.kinds`): an engine's backend."""
    inputs: Mapping[str, str]
    """Role -> key of the artifact that this one reads."""
    params: Parameters
    """Everything else the output depends on, versions of the tools that decide it included."""
    places: Places = field(default_factory=NoPlaces)
    """What this host knows of the params: where things are, and caps; not part of the key."""
    what: str = ""
    """One line that describes it."""
    size_bytes: int = 0
    """Expected size of the output, for the disk check."""
    memory_bytes: int = 0
    """Host memory that the child is expected to need."""
    role: str = ""
    """`draft` for a step of the draft model; not part of the key, so that equal steps are one."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """Key of an own copy, be it this one's or an input's -> what its user calls it; not part of the key."""

    @property
    def name(self) -> str:
        """Its kind, after its role if it has one; for messages."""
        return f"{self.role}_{self.kind}" if self.role else self.kind

    @property
    def maker(self) -> str:
        """Row of the table of kinds that makes it: its kind, dotted with its variant if it has one."""
        return f"{self.kind}.{self.variant}" if self.variant else self.kind

    @property
    def commit(self) -> str:
        """The commit of the hub that the step downloads; empty for a step that downloads nothing."""
        params = self.params
        if not isinstance(params, SourceParams | DatasetParams) or params.repo is None:
            return ""
        return f"{params.repo}@{str(params.revision)[:12]}"

    @property
    def origin(self) -> str:
        """The user's name of the checkpoint or dataset that this step copies; empty for any other step."""
        path = self.places.path if isinstance(self.places, SourcePlaces) else None
        return self.commit or str(path or "")

    def traced(self, origins: Mapping[str, str]) -> "Step":
        """The step with the user's names of the own copies that it makes or reads."""
        # only of what it touches: a manifest must not name places of other steps
        own = {key: origins[key] for key in (self.key, *self.inputs.values()) if key in origins}
        return replace(self, origins=own)

    @property
    def key(self) -> str:
        """Hash of everything that goes in, known before building; where the code stands does not."""
        return digest.of_json(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """The JSON that the key hashes: kind, revision, inputs and parameters."""
        return {
            # the table's row, not the code's place: code may move without a new key
            "kind": self.maker,
            "revision": REVISIONS[self.kind],
            "inputs": dict(self.inputs),
            "params": self.params.document(),
        }


def origins(steps: Iterable[Step]) -> dict[str, str]:
    """Key of every own copy -> what its user calls it."""
    return {step.key: step.origin for step in steps if step.origin}
