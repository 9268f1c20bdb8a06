"""Why a version cannot be exported, where several servers have the same reason; pure."""

from pipeline.backend.deployment import Deployment, EngineLimits


def several_hosts(deployment: Deployment) -> list[str]:
    """Ranks that no single host has GPUs for."""
    ranks, gpus = deployment.world_size, deployment.gpus_per_node
    if ranks <= gpus:
        return []
    return [
        f"{ranks} ranks do not fit on one host of {gpus} GPUs; servers over several hosts are not "
        "exported by "
        "this version"
    ]


def own_runtime(deployment: Deployment) -> str:
    """An engine that no other server loads."""
    return (
        f"backend {deployment.backend} runs in Enginery's own runtime; "
        f"`enginery generate {deployment.label} PROMPT` serves it here"
    )


def paged(limits: EngineLimits, features: dict[str, bool | None]) -> list[str]:
    """Features that need paged context attention, of an engine without it; and reuse beside windows.

    A layer with a window overwrites the blocks of a prefix that is longer (TensorRT-LLM pull request 2983);
    what is read again from them is garbage (its issue 2912).
    """
    problems = [
        f"{name} needs an engine built with use_paged_context_fmha; build one, or leave {name} out"
        for name, value in features.items()
        if value and not limits.paged_context
    ]
    if features.get("kv_cache_reuse") and limits.windows is not None:
        problems.append(
            "kv_cache_reuse: layers with a window overwrite what would be used again; leave it out"
        )
    return problems


def reusable(limits: EngineLimits) -> bool:
    """Whether the KV cache of common prefixes can be kept."""
    return limits.paged_context and limits.windows is None
