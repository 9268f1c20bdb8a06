"""What `trtllm-build` writes: `config.json` and an engine per rank; as such a directory is imported."""

import re
from collections.abc import Collection
from pathlib import Path

from pipeline.backend.foreign_engine import ForeignEngine
from pipeline.errors import ExchangeRefused, SourceError
from pipeline.models.model_json import read_json
from recipes.formats import FORMATS

RANK_ENGINE = re.compile(r"rank(\d+)\.engine")


class TensorrtFiles:
    """Engines of trtllm-build."""

    def recognise(self, names: Collection[str]) -> bool:
        """Whether an engine of a rank is there."""
        return any(RANK_ENGINE.fullmatch(name) for name in names)

    def describe(self, directory: Path, names: Collection[str]) -> ForeignEngine:
        """Reads `config.json`; ExchangeRefused for another one, and where ranks are missing."""
        ranks = sorted(name for name in names if RANK_ENGINE.fullmatch(name))
        try:
            config = read_json(directory / "config.json")
        except SourceError as exc:
            raise ExchangeRefused(str(exc)) from None
        try:
            model, built = config["pretrained_config"], config["build_config"]
            mapping, quantization = model["mapping"], model.get("quantization") or {}
            facts = {
                "backend": "tensorrt",
                "format": format_of(quantization.get("quant_algo")),
                "dtype": model["dtype"],
                "kv_cache": str(quantization.get("kv_cache_quant_algo") or model["dtype"]).lower(),
                "tp": mapping.get("tp_size", 1),
                "pp": mapping.get("pp_size", 1),
                "world_size": mapping.get("world_size", 1),
                "max_batch_size": built["max_batch_size"],
                "max_seq_len": built["max_seq_len"],
                "toolchain": {"tensorrt_llm": config.get("version")},
            }
            architecture = str(model.get("architecture", ""))
        # Anybody's file: a field may be missing, or of any type.
        except (KeyError, TypeError, AttributeError) as exc:
            raise ExchangeRefused(
                f"{directory / 'config.json'}: is not as trtllm-build writes it ({exc!r}); give its "
                "--output_dir"
            ) from None
        if len(ranks) != facts["world_size"]:
            raise ExchangeRefused(
                f"{directory}: {len(ranks)} rank(s) are there, config.json says {facts['world_size']}; add "
                "the others"
            )
        return ForeignEngine(facts=facts, weight_files=ranks, model=architecture)


def format_of(algorithm: str | None) -> str:
    """Our name of TensorRT-LLM's quantization; its own where we have none."""
    if not algorithm:
        return "none"
    return next((fmt.name for fmt in FORMATS.values() if fmt.quant_algo == algorithm), algorithm)
