"""What a recipe requests of an engine backend, for one set of engine settings; a value."""

from dataclasses import dataclass, field

from pipeline.models.shape import ModelShape
from pipeline.process.host import Host
from pipeline.toolchains.toolchain import Choice, Toolchain
from recipes.precision import Precision
from recipes.schema import Engine, Speculative, Traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """Everything that a backend may read before anything is built."""

    engine: Engine
    shape: ModelShape
    precision: Precision
    kv_cache: str
    """`auto`, `fp8` or `int8`."""
    host: Host
    traffic: Traffic | None = None
    speculative: Speculative | None = None
    draft: ModelShape | None = None
    """Shape of the draft model's checkpoint."""
    heads_bytes: int = 0
    """Weights of the heads that propose tokens, on all ranks together; 0: unknown, or none."""
    choice: Choice = field(default_factory=Choice)
    """The outside toolchain; neither one nor a problem for a backend that uses none."""

    @property
    def toolchain(self) -> Toolchain | None:
        """The outside toolchain."""
        return self.choice.toolchain
