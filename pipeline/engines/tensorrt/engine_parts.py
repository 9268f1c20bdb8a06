"""The engines that one step builds: the engine itself, its draft model's, and the twin that is scored."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.backend.engine_files import SCORING
from pipeline.checkpoint.with_heads import PLAIN
from pipeline.engines.tensorrt import support
from pipeline.engines.tensorrt.engine_settings import DRAFT, EngineSettings
from pipeline.errors import SourceError
from pipeline.step.step_parameters import EngineJob
from recipes.formats import FORMATS
from recipes.precision import Precision

CONFIG = "config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One engine to build."""

    name: str
    """Its directory below the step's output; empty: the output itself."""
    checkpoint: Path
    config: Mapping[str, Any]
    """The checkpoint's config.json."""
    asked: Mapping[str, Any]
    """`format`, `kv_cache`, `tp`, `pp`, `ep` and limits, as read-back compares them."""
    settings: EngineSettings

    config_file: str = CONFIG
    """Name of its config.json in the checkpoint."""

    @property
    def world_size(self) -> int:
        """Ranks."""
        return int(self.config["mapping"]["world_size"])

    @property
    def linked(self) -> list[Path]:
        """The directory that the checkpoint's links lead to; a container has to see it too."""
        # `viewed` links all files of one directory, so the first one's target is enough.
        return [file.readlink().parent for file in self.rank_files[:1] if file.is_symlink()]

    @property
    def rank_files(self) -> list[Path]:
        """The checkpoint's weights, by rank."""
        return [self.checkpoint / f"rank{rank}.safetensors" for rank in range(self.world_size)]


def parts_of(job: EngineJob) -> list[Part]:
    """What a job builds, in order; SourceError where a checkpoint is not what the job says.

    An engine that checks draft tokens cannot return the logits of prompts. Its twin, of the same weights and
    settings without the drafts, can, and stands for it where scores are needed.
    """
    params, inputs = job.params.document(), job.inputs
    settings = EngineSettings.parse(job.params.options)
    target = _part("", inputs["sharded_checkpoint"], params, settings)
    parts = [target]
    if settings.max_draft_len:
        # Heads have no place in the twin: their checkpoint has the plain model's description beside.
        file = PLAIN if (target.checkpoint / PLAIN).is_file() else CONFIG
        parts.append(_part(SCORING, target.checkpoint, params, settings.scored_twin(), file))
    if settings.draft is not None:
        checkpoint = inputs["draft_checkpoint"]
        # The recipe's format and cache are the target's; the draft's checkpoint tells its own.
        asked = {**params, "kv_cache": "auto", "format": _format(checkpoint)}
        parts.append(_part(DRAFT, checkpoint, asked, settings.draft))
        _check_pair(target, parts[-1])
    return parts


def read_config(checkpoint: Path, file: str = CONFIG) -> dict[str, Any]:
    """A checkpoint's config.json."""
    config: dict[str, Any] = json.loads((checkpoint / file).read_text())
    return config


def viewed(part: Part, scratch: Path) -> Part:
    """The part with a checkpoint directory whose config.json is the part's own.

    Such a directory is made in `scratch` where the checkpoint's is another's: links lead to all other files.
    TensorRT-LLM warns of tensors that the model of that config.json does not have, and leaves them.
    """
    if part.config_file == CONFIG:
        return part
    view = scratch / f"{part.name}_checkpoint"
    view.mkdir()
    for file in part.checkpoint.iterdir():
        # Neither description is linked: the part's own is copied below as config.json.
        if file.name not in (CONFIG, part.config_file):
            (view / file.name).symlink_to(file.absolute())
    shutil.copyfile(part.checkpoint / part.config_file, view / CONFIG)
    return replace(part, checkpoint=view)


def _part(
    name: str, checkpoint: Path, params: Mapping[str, Any], settings: EngineSettings, file: str = CONFIG
) -> Part:
    config = read_config(checkpoint, file)
    asked = {param: value for param, value in params.items() if param != "options"}
    part = Part(
        name=name,
        checkpoint=checkpoint,
        config=config,
        asked=asked,
        settings=settings,
        config_file=file,
    )
    mapping, quantization = part.config["mapping"], part.config["quantization"]
    algorithm = support.algorithm(Precision.parse(asked["format"]))
    facts = [
        ("tp", mapping["tp_size"], asked["tp"]),
        ("pp", mapping["pp_size"], asked["pp"]),
        ("ep", mapping.get("moe_ep_size", 1), asked["ep"]),
        ("quant_algo", quantization["quant_algo"], algorithm),
    ]
    for field, stated, expected in facts:
        if stated != expected:
            raise SourceError(
                f"{checkpoint.name}/config.json: {field} is {stated!r}, the {name or 'target'} engine asks "
                f"for {expected!r}; give the checkpoint of that layout and format"
            )
    missing = [file.name for file in part.rank_files if not file.is_file()]
    if missing:
        raise SourceError(f"{checkpoint}: no {', '.join(missing)}; convert the checkpoint again")
    return part


def _format(checkpoint: Path) -> str:
    """A format that a checkpoint of one format has; TensorRT-LLM knows no other difference between two."""
    algorithm = read_config(checkpoint)["quantization"]["quant_algo"]
    for name in FORMATS:
        if support.algorithm(Precision.parse(name)) == algorithm:
            return name
    raise SourceError(
        f"{checkpoint}: quant_algo {algorithm!r} is that of no format; convert the checkpoint again"
    )


def _check_pair(target: Part, draft: Part) -> None:
    """Draft tokens are the target's tokens, and both caches have blocks of one size."""
    pairs = [
        ("vocab_size", target.config["vocab_size"], draft.config["vocab_size"]),
        *(
            (name, target.settings.get(name), draft.settings.get(name))
            for name in ("tokens_per_block", "use_paged_context_fmha", "max_batch_size")
        ),
    ]
    for name, of_target, of_draft in pairs:
        if of_target != of_draft:
            raise SourceError(
                f"speculative.draft: {name} is {of_draft!r} in the draft model, {of_target!r} in the target; "
                "the two run as a pair and need the same"
            )
