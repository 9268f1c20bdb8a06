"""Checks what `trtllm-build` wrote, and describes the built engine in `engine.json`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.backend.engine_files import SCORING
from pipeline.engines.tensorrt.build_log import BuildLog
from pipeline.engines.tensorrt.engine_parts import Part
from pipeline.engines.tensorrt.engine_settings import DRAFT
from pipeline.engines.tensorrt.read_back import Difference, differences
from pipeline.errors import BackendUnavailable, BuildFailed
from pipeline.toolchains.toolchain import Toolchain
from pipeline.trtllm.gpus_idle import Device
from pipeline.trtllm.windows import attention_windows

TARGET = "target"
"""What `engine.json` calls the engine that is served; the others are called as their directories."""

ELEMENT_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "fp8": 1, "int8": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """One engine that exists."""

    part: Part
    toolchain: Toolchain
    device: Device
    log: BuildLog
    differences: list[Difference]


def checked(part: Part, out: Path, log: BuildLog, version: str) -> list[Difference]:
    """How the engine differs from what was asked; BuildFailed if it is incomplete or serves less.

    Under MPI `trtllm-build` may end well without a rank, and a changed installation may be another version.
    """
    missing = [name for name in _engine_files(part) if not _filled(out / name)]
    if missing or not _filled(out / "config.json"):
        raise BuildFailed(
            f"trtllm-build ended well but wrote no {', '.join(missing) or 'config.json'}; see its log above"
        )
    config = json.loads((out / "config.json").read_text())
    versions = {"log": log.version, "config.json": config.get("version", "")}
    for where, built_by in versions.items():
        if built_by and built_by != version:  # empty where the builder does not say it
            raise BackendUnavailable(
                f"the {where} of the build says TensorRT-LLM {built_by}, the toolchain was probed as "
                f"{version}; run again: `enginery tools toolchains` asks it anew"
            )
    found_differences = differences(part.asked, part.settings, config)
    reducing = [str(difference) for difference in found_differences if difference.reduces]
    if reducing:
        raise BuildFailed(
            f"the engine does less than was asked: {'; '.join(reducing)}; ask for what the builder gives, or "
            "change the options that keep it from more"
        )
    return found_differences


def describe(built: Built, out: Path) -> dict[str, Any]:
    """Says what was built, for readers and for the runner."""
    part, device = built.part, built.device
    config, params = part.config, part.asked
    weights = {name: _bytes(out, name) for name in _engine_files(part)}
    return {
        "backend": "tensorrt",
        "part": part.name or TARGET,
        # Only beside draft tokens an engine has a twin: it cannot give the scores itself.
        "scored": SCORING if not part.name and part.settings.max_draft_len else "",
        "format": params["format"],
        "dtype": config["dtype"],
        "kv_cache": _kv_type(part),
        "device": "cuda",
        "tp": params["tp"],
        "pp": params["pp"],
        "ep": params["ep"],
        "world_size": part.world_size,
        "max_batch_size": params["max_batch_size"],
        "max_seq_len": params["max_seq_len"],
        "attention_windows": attention_windows(config["layer_windows"], _longest(part, out)),
        "vocab_size": config["vocab_size"],
        "gpu": device.name,
        "sm": device.sm,
        "driver": device.driver,
        "toolchain": dict(built.toolchain.versions),
        "settings": part.settings.as_param(),
        "differences": [asdict(difference) for difference in built.differences],
        "weight_bytes": weights,
        "kv_bytes_per_token_per_rank": kv_bytes_per_token(config, part),
        "memory_bytes_per_rank": [_memory(built, size) for size in weights.values()],
    }


def relative_places(out: Path) -> None:
    """Names places from the engine's directory on in `config.json`: the builder wrote where it worked."""
    file = out / "config.json"
    config = _relative(json.loads(file.read_text()), out)
    file.unlink()  # a builder in a container may be another user
    write_json(file, config)


def _relative(value: Any, out: Path) -> Any:
    if isinstance(value, dict):
        return {name: _relative(item, out) for name, item in value.items()}
    if isinstance(value, list):
        return [_relative(item, out) for item in value]
    return value.removeprefix(f"{out}/") if isinstance(value, str) else value


def _longest(part: Part, out: Path) -> int:
    """Tokens of a sequence as the runtime will see it, with draft tokens; older builders do not write it."""
    built = json.loads((out / "config.json").read_text())["build_config"]
    return int(built.get("max_seq_len") or part.asked["max_seq_len"])


def add_draft(out: Path) -> None:
    """Counts the draft model's engine in the description of the one it runs beside, on the same GPUs."""
    target, draft = (json.loads((place / "engine.json").read_text()) for place in (out, out / DRAFT))
    target["weight_bytes"] |= {f"{DRAFT}/{name}": size for name, size in draft["weight_bytes"].items()}
    pairs = zip(target["memory_bytes_per_rank"], draft["memory_bytes_per_rank"], strict=True)
    target["memory_bytes_per_rank"] = [sum(pair) for pair in pairs]
    write_json(out / "engine.json", target)


def kv_bytes_per_token(config: Mapping[str, Any], part: Part) -> int:
    """Bytes of keys and values of one token on one rank; heads are repeated where ranks are more."""
    heads = max(1, config["num_key_value_heads"] // part.asked["tp"])
    # Of the longest stage, where layers do not divide evenly.
    layers = -(-config["num_hidden_layers"] // part.asked["pp"])
    return int(2 * layers * heads * config["head_size"] * ELEMENT_BYTES[_kv_type(part)])


def _memory(built: Built, weight_bytes: int) -> int:
    """GPU memory that a rank needs at least: engine, activations, and the cache of one longest request."""
    part = built.part
    cache: int = kv_bytes_per_token(part.config, part) * part.asked["max_seq_len"]
    # Without that line in the log the sum is still what is needed at least.
    return weight_bytes + built.log.memory.get("activation_bytes", 0) + cache


def _kv_type(part: Part) -> str:
    algorithm = part.config["quantization"]["kv_cache_quant_algo"]
    return str(algorithm).lower() if algorithm else str(part.config["dtype"])


def _engine_files(part: Part) -> list[str]:
    return [f"rank{rank}.engine" for rank in range(part.world_size)]


def _bytes(out: Path, engine: str) -> int:
    """Size of a rank's engine, and of the weights beside it where fast_build keeps them out of it."""
    beside = out / f"{Path(engine).stem}_managed_weights.safetensors"
    return (out / engine).stat().st_size + (beside.stat().st_size if beside.is_file() else 0)


def _filled(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON file for people to read too."""
    file.write_text(json.dumps(value, indent=1) + "\n")
