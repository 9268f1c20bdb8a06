"""This machine, probed once and passed down as a value."""

import os
import platform
import shutil
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from pipeline.process import process

PACKAGES = (
    "torch", "nvidia-modelopt", "transformers", "tokenizers", "jinja2", "numpy", "pyarrow", "safetensors",
    "prefect",
)  # fmt: skip
"""Packages whose versions enter keys or are worth knowing."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as the driver names it."""

    name: str
    sm: int
    """Compute capability times ten."""
    memory_bytes: int
    driver: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What this machine has."""

    gpus: tuple[Gpu, ...]
    cpu: str
    """Instruction set that compiled code may use, e.g. `avx512`."""
    cores: int
    memory_bytes: int
    tools: dict[str, str]
    """Version of every package and program that a key depends on."""
    cuda: bool = True
    """Whether our own PyTorch can use the GPUs: its CUDA build is installed."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON, for manifests."""
        return asdict(self)


def probe() -> Host:
    """Looks at this machine; imports none of the packages it reports."""
    return Host(
        gpus=_gpus(shutil.which("nvidia-smi")),
        cpu=_isa(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=psutil.virtual_memory().total,
        tools={**_packages(), **_compiler(), "python": platform.python_version()},
        cuda=_cuda_build(),
    )


def _cuda_build() -> bool:
    """Looks for PyTorch's CUDA library; its version does not always tell the builds apart."""
    spec = find_spec("torch")
    return spec is not None and (Path(str(spec.origin)).parent / "lib" / "libtorch_cuda.so").exists()


def _packages() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            # from the metadata: asking the package itself would import it
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


@cache
def _compiler() -> dict[str, str]:
    """The C++ compiler that AOTInductor uses: `CXX`, else g++."""
    program = os.environ.get("CXX", "g++")
    if shutil.which(program) is None:
        return {}
    version = process.capture([program, "-dumpfullversion"])
    return {"c++": f"{Path(program).name} {version.strip()}"} if version else {}


def _isa() -> str:
    """The widest vector set of this CPU that Inductor knows."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split())
    except OSError:
        return platform.machine()
    vector_sets = ("amx_tile", "avx512_bf16", "avx512f", "avx2")
    return next((name for name in vector_sets if name in flags), platform.machine())


@cache
def _gpus(program: str | None) -> tuple[Gpu, ...]:
    if program is None:
        return ()
    query = "--query-gpu=name,compute_cap,memory.total,driver_version"
    text = process.capture([program, query, "--format=csv,noheader,nounits"]) or ""
    # a line without four cells is no row of the table, but may be a message
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.count(",") == 3]
    # memory.total is in MiB; rounded, as a product of floats may lie just below the whole number
    return tuple(Gpu(n, round(float(cap) * 10), int(mib) << 20, driver) for n, cap, mib, driver in rows)


PASSED_ON = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER", "LOGNAME", "CXX", "CUDA_VISIBLE_DEVICES", "CUDA_HOME",
    "LD_LIBRARY_PATH", "LD_PRELOAD", "OMP_NUM_THREADS", "ENGINERY_TOOLCHAINS", "XDG_CONFIG_HOME",
)  # fmt: skip
"""Environment variables that every child gets."""

NETWORK = (
    "HF_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT", "HF_HOME", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_IMPLICIT_TOKEN",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
    "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
)  # fmt: skip
"""Environment variables that only the steps that talk to the hub get."""

DOWNLOADING = ("source", "dataset")
"""Kinds of steps that talk to the hub."""


def child_env(kind: str) -> dict[str, str]:
    """The environment of a step's child: ours by name, and the hub's offline switches unless it downloads."""
    # a token must not reach a child that needs none
    names = (*PASSED_ON, *NETWORK) if kind in DOWNLOADING else PASSED_ON
    env = {name: os.environ[name] for name in names if name in os.environ}
    offline = {} if kind in DOWNLOADING else {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return {
        **env,
        **offline,
        # ours alone: the user's own entries could put other modules first
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        # a killed child's last lines are in the log, not in a buffer
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def service_env() -> dict[str, str]:
    """The environment of a service that starts steps for others: all of ours, and these packages."""
    root = str(Path(__file__).resolve().parents[2])
    return {
        **os.environ,
        # ours first; unlike a step's child, a service keeps the user's own entries
        "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
