"""Runs a built engine in a child process for one prompt."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from calibration.job import NoPlaces
from pipeline.errors import SourceError
from pipeline.process import process
from pipeline.step.child_job import child_job
from pipeline.step.step_parameters import GenerationJob, GenerationParams

TIMEOUT_S = 3600.0

TWIN = "scoring"
"""What an engine's description calls one that stands for another where scores are needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a prompt is continued."""

    max_new_tokens: int = 64
    temperature: float = 0.0
    """0 takes the likeliest token."""
    seed: int = 0
    chat: bool = False
    """The prompt is a user message and goes through the chat template."""
    date: str = field(default_factory=lambda: datetime.now().astimezone().date().isoformat())
    """Today, to a chat template that prints the date."""


def require_engine(directory: Path) -> None:
    """Raises SourceError unless the directory holds an engine that may serve."""
    file = directory / "engine.json"
    if not file.is_file():
        raise SourceError(
            f"{directory} holds no engine (no engine.json); give a published version or a pulled directory"
        )
    # a twin would run too, but no measurement is of it
    if json.loads(file.read_text()).get("part") == TWIN:
        raise SourceError(
            f"{directory} holds the twin that only the gate scored; give the directory above it"
        )


def generate(
    directory: Path, prompt: str, on_text: Callable[[str], None], options: Options
) -> dict[str, Any]:
    """Continues `prompt` with the engine in `directory`, streaming text; returns counts and speed."""
    require_engine(directory)
    with tempfile.TemporaryDirectory(prefix="enginery-") as scratch:
        out = Path(scratch) / "out"
        out.mkdir()
        job = GenerationJob(
            kind="generation",
            params=GenerationParams(prompt=prompt, **asdict(options)),
            places=NoPlaces(),
            # resolved: the child may have another working directory
            inputs={"engine": directory.resolve()},
            out=out,
        )
        child = child_job(job, name="generation", log=Path(scratch) / "log", timeout_s=TIMEOUT_S)
        process.run(child, on_text=on_text)
        result: dict[str, Any] = json.loads((out / "generation.json").read_text())
    return result
