"""Prints what a TensorRT-LLM installation consists of, as one line of JSON.

Run by a toolchain's own Python (3.10 or newer, as TensorRT-LLM's), not by ours, and imports nothing but the
standard library: `import tensorrt_llm` takes half a minute and a GPU.
"""

import json
import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path

DISTRIBUTIONS = {
    "tensorrt_llm": ("tensorrt_llm",),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "torch": ("torch",),
    "cuda": ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12"),
}
"""What is asked for -> names it is installed under; the first that is there counts."""


def installed(name: str) -> metadata.Distribution | None:
    """The distribution of what is asked for."""
    for distribution in DISTRIBUTIONS[name]:
        try:
            return metadata.distribution(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def cuda() -> str | None:
    """CUDA as torch was built for it, else of the image, else of the installed runtime."""
    torch, runtime = installed("torch"), installed("cuda")
    source = Path(str(torch.locate_file("torch/version.py"))) if torch else None
    if source is not None and source.is_file():
        built = re.search(r"^cuda\b.*?['\"]([\d.]+)['\"]", source.read_text(), re.MULTILINE)
        if built:
            return built.group(1)
    return os.environ.get("CUDA_VERSION") or (runtime.version if runtime else None)


def main() -> None:
    """Prints versions, and the paths whose change makes them stale."""
    installed_versions = {name: installed(name) for name in ("tensorrt_llm", "tensorrt", "torch")}
    versions = {name: it.version for name, it in installed_versions.items() if it is not None and it.version}
    places = {str(it.locate_file("")) for it in installed_versions.values() if it is not None}
    answer = {
        "versions": {**versions, "cuda": cuda() or "", "python": platform.python_version()},
        "watch": sorted({sys.executable, *places}),
    }
    sys.stdout.write(json.dumps(answer) + "\n")


main()
