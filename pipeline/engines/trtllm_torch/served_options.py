"""The options of the LLM API that an engine was measured with, as servers need them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.backend.deployment import ServedFiles
from pipeline.backend.engine_files import read_mapping

OPTIONS = "llm_options.yaml"
"""Their file in an engine."""


def read_served(directory: Path) -> ServedFiles:
    """Reads the options."""
    options = read_mapping(directory / OPTIONS)
    return ServedFiles(llm_options=options, stated=_stated(options))


def _stated(options: Mapping[str, Any]) -> dict[str, int]:
    """Layout and limits in the options of the LLM API, under our names."""
    names = {
        "tp": "tensor_parallel_size",
        "pp": "pipeline_parallel_size",
        "max_batch_size": "max_batch_size",
        "max_seq_len": "max_seq_len",
    }
    return {field_name: options[option] for field_name, option in names.items() if option in options}
