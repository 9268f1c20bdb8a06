"""The GPUs of a build, and whether nothing else uses them.

TensorRT times kernels ("tactics") on the GPU and skips, without failing, those whose memory it does not get;
the autotuner of the PyTorch backend times kernels too. A build beside another process gives an engine that is
slower, and another one each time.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import BackendUnavailable
from pipeline.process import process
from pipeline.process.gpus import TARGETS
from pipeline.step.step_parameters import EngineParams

IDLE_BYTES = 1 << 30
"""Used memory of an idle GPU, at most: driver and display take some hundred MiB."""

VISIBLE = "CUDA_VISIBLE_DEVICES"

GPU_FIELDS = ("index", "uuid", "name", "compute_cap", "memory.total", "memory.used", "driver_version")
PROCESS_FIELDS = ("gpu_uuid", "pid", "process_name", "used_memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One GPU as the driver sees it now."""

    index: int
    uuid: str
    name: str
    sm: int
    """Compute capability times ten."""
    memory_bytes: int
    used_bytes: int
    driver: str
    users: tuple[str, ...] = ()
    """Processes that compute on it, in words; none are seen from inside a container."""


def idle(params: EngineParams, at_most: int) -> tuple[Device, ...]:
    """Idle GPUs of the type that an engine step's plan saw and its target asks for, one at least."""
    sm = TARGETS[params.target].sm if params.target != "host" else None
    return take(devices(os.environ), params.toolchain.get("gpu"), sm, at_most)


def one_per_rank(params: EngineParams) -> tuple[Device, ...]:
    """As many idle GPUs as there are ranks; BackendUnavailable where there are fewer."""
    ranks = params.tp * params.pp
    found = idle(params, ranks)
    if len(found) < ranks:
        free = ", ".join(f"GPU {one.index}" for one in found)
        raise BackendUnavailable(
            f"the build needs {ranks} idle GPUs, one per rank; only {free} of its type is idle; "
            "end what uses the others, or lower engine.tp or engine.pp"
        )
    return found


def visible(chosen: Sequence[Device]) -> str:
    """Value of CUDA_VISIBLE_DEVICES that leaves these GPUs to a process."""
    # Not indices: CUDA may number GPUs in another order than the driver does.
    return ",".join(device.uuid for device in chosen)


def devices(env: Mapping[str, str]) -> tuple[Device, ...]:
    """The GPUs that a build may use; BackendUnavailable where the driver does not answer."""
    rows = _query("gpu", GPU_FIELDS)
    if not rows:
        raise BackendUnavailable(
            "no GPU: nvidia-smi is not on PATH or does not answer; TensorRT-LLM builds engines on the GPU "
            "that they are for"
        )
    users: dict[str, list[str]] = {}
    for uuid, pid, name, used in _query("compute-apps", PROCESS_FIELDS):
        users.setdefault(uuid, []).append(f"pid {pid} ({name}, {used} MiB)")
    return _visible([_device(row, users) for row in rows], env.get(VISIBLE))


def take(candidates: Sequence[Device], gpu: str | None, sm: int | None, at_most: int) -> tuple[Device, ...]:
    """Idle GPUs of one type: of the name `gpu`, else of the first one's; `at_most` of them.

    BackendUnavailable if there is none of the type, if it has not the compute capability `sm`, or if all are
    in use, with who uses them.
    """
    # All ranks run on one kind of GPU: kernels are chosen on it.
    kind = gpu or candidates[0].name
    of_kind = [device for device in candidates if device.name == kind]
    if not of_kind or (sm is not None and of_kind[0].sm != sm):
        expected = gpu or f"sm_{sm}"
        have = ", ".join(sorted({f"{device.name} (sm_{device.sm})" for device in candidates}))
        raise BackendUnavailable(
            f"the engine is for {expected}, the GPUs here are {have}; an engine is built on the type of GPU "
            "that serves it: build there, or change engine.target"
        )
    # Memory too, because in a container the processes of others are not seen.
    free = [device for device in of_kind if not device.users and device.used_bytes <= IDLE_BYTES]
    if not free:
        uses = "; ".join(f"GPU {device.index} ({device.name}): {_use(device)}" for device in of_kind)
        raise BackendUnavailable(
            "the build needs idle GPUs, because it times kernels and skips those that do not fit beside "
            f"others, saying so only in its log; in use: {uses}; end that, or choose others with {VISIBLE}"
        )
    return tuple(free[:at_most])


def _query(kind: str, fields: Sequence[str]) -> list[list[str]]:
    argv = ["nvidia-smi", f"--query-{kind}={','.join(fields)}", "--format=csv,noheader,nounits"]
    text = process.capture(argv, timeout_s=60) or ""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    # Anything else is a message and no row.
    return [row for row in rows if len(row) == len(fields)]


def _device(row: Sequence[str], users: Mapping[str, list[str]]) -> Device:
    index, uuid, name, capability, total, used, driver = row
    return Device(
        index=int(index),
        uuid=uuid,
        name=name,
        sm=round(float(capability) * 10),  # a product of floats may miss the whole number
        memory_bytes=int(total) << 20,
        used_bytes=int(used) << 20,
        driver=driver,
        users=tuple(users.get(uuid, ())),
    )


def _visible(every: Sequence[Device], chosen: str | None) -> tuple[Device, ...]:
    """Those that the environment leaves visible: by index or by the beginning of the UUID."""
    if chosen is None:
        return tuple(every)
    names = [name.strip() for name in chosen.split(",") if name.strip()]
    chosen_devices = [
        device
        for name in names
        for device in every
        if str(device.index) == name or device.uuid.startswith(name)
    ]
    if not chosen_devices:
        raise BackendUnavailable(f"{VISIBLE} is {chosen!r}, which leaves no GPU; name one of this host's")
    return tuple(chosen_devices)


def _use(device: Device) -> str:
    return ", ".join(device.users) or f"{device.used_bytes >> 20} MiB by processes that are not visible here"
