"""Backend `toy`: everything that a backend answers, in one folder; tests put it into a copy of the product."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from pipeline.backend.build_request import BuildRequest
from pipeline.backend.deployment import ServedFiles
from pipeline.backend.draft_net import DraftNet
from pipeline.backend.engine_memory import Limits, all_tokens
from pipeline.backend.lint_rule import Advice
from pipeline.backend.protocol import Backend
from pipeline.models.shape import ModelShape
from recipes.formats import Format
from recipes.schema import Recipe, Speculative

BYTES = 1 << 20


class Options(BaseModel):
    """Options of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    speed: int = 1
    """How fast it plays."""


def faster(recipe: Recipe, _shape: ModelShape) -> Advice | None:
    """A toy that plays slowly."""
    if recipe.engine.options.get("speed", 1) > 1:
        return None
    change = "engine.options.speed: 2"
    return Advice(id="faster", text="play faster", effect="not measured", source="the toy", change=change)


class ToyMemory:
    """The same for every model."""

    def limits(self, request: BuildRequest) -> Limits:
        """As the recipe says."""
        engine = request.engine
        return Limits(
            batch=engine.max_batch_size,
            seq_len=engine.max_seq_len,
            num_tokens=engine.max_seq_len,
            logit_rows=1,
            tokens_per_block=1,
            free_fraction=1.0,
        )

    def cached_tokens(self, request: BuildRequest) -> tuple[int | None, ...]:
        """All of them."""
        return all_tokens(request.shape)

    def activation_bytes(self, request: BuildRequest, num_tokens: int) -> int:
        """A constant."""
        return BYTES

    def buffer_bytes(self, request: BuildRequest, limits: Limits, *, last_stage: bool) -> int:
        """A constant."""
        return BYTES

    def context_bytes(self, world_size: int) -> int:
        """A constant."""
        return BYTES

    def build_gpu_bytes(self, weights: int, activations: int) -> int:
        """Its weights."""
        return weights

    def head_copies(self, speculative: Speculative) -> int:
        """One."""
        return 1

    def fp8_cache_beside(self, fmt: Format) -> bool:
        """Never."""
        return False


class Toy:
    """What is asked of this backend."""

    uses_toolchain = False
    on_gpu = True
    quantizes_at_build = False
    holds_code = False
    server = None
    checkpoint: Final = "quantized_checkpoint"
    build = "pipeline.engines.toy.build:build"
    runner = "pipeline.engines.toy.runner"
    memory = ToyMemory()
    advice = (faster,)
    foreign = None

    def options(self, _request: BuildRequest) -> type[Options]:
        """One option."""
        return Options

    def missing(self, _request: BuildRequest) -> str | None:
        """Nothing."""
        return None

    def reasons(self, _request: BuildRequest) -> list[str]:
        """None."""
        return []

    def eagle_reasons(self, _net: DraftNet, _request: BuildRequest) -> Iterable[str]:
        """None."""
        return ()

    def notes(self, _request: BuildRequest) -> list[str]:
        """One."""
        return ["engine.options.speed: as the recipe says"]

    def settings(self, request: BuildRequest) -> dict[str, Any]:
        """The option."""
        return Options.model_validate(request.engine.options).model_dump()

    def identity(self, request: BuildRequest) -> dict[str, Any]:
        """The CPU's vector set."""
        return {"cpu": request.host.cpu}

    def places(self, _request: BuildRequest) -> dict[str, Any]:
        """None."""
        return {}

    def read_served(self, _directory: Path, _about: Mapping[str, Any]) -> ServedFiles:
        """Nothing for servers."""
        return ServedFiles()

    def suggested_for(self, _programs: Mapping[str, str], *, on_gpu: bool) -> bool:
        """Never."""
        return False


BACKEND: Backend = Toy()
