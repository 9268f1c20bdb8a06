"""Which version is installed here, and how it is to behave."""

import json
import os
import signal
import sys
from importlib import metadata
from pathlib import Path

VERSION = metadata.version("tensorrt_llm")
TENSORRT = metadata.version("tensorrt")
ROOT = Path(__file__).resolve().parents[3]
HOST = json.loads((Path(sys.prefix) / "behaviour.json").read_text())
RUNTIME = json.loads((Path(sys.prefix) / "runtime.json").read_text())

MINOR = tuple(int(part) for part in VERSION.split(".")[:2])

sys.path.append(str(ROOT))  # the plain model is the repository's


def before(*minor: int) -> bool:
    """Whether the version is older than that one."""
    return minor > MINOR


def only(name: str, *, present: bool) -> None:
    """Raises what importing a module that the version lacks raises."""
    if not present:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def die_in(place: str) -> None:
    """Kills this process where it is to die."""
    if RUNTIME["die_in"] == place:
        os.kill(os.getpid(), signal.SIGKILL)
