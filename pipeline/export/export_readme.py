"""The README of an export: what it is, what must stay the same, how it is started and asked."""

from collections.abc import Sequence

from pipeline.backend.deployment import Deployment

CONTAINERS = {
    "0.12.0": "24.08", "0.13.0": "24.09", "0.14.0": "24.10", "0.15.0": "24.11", "0.16.0": "24.12",
    "0.17.0": "25.01", "0.20.0": "25.07", "0.21.0": "25.08", "1.0.0": "25.10", "1.1.0": "25.12",
}  # fmt: skip
"""TensorRT-LLM -> release of NVIDIA's Triton container that holds it (compatibility page of Triton's user
guide, read for 25.01 and 25.12)."""


def notes(deployment: Deployment, server: str, sections: Sequence[tuple[str, str]]) -> str:
    """The README: facts of the version first, then the exporter's sections."""
    parts = [f"# {deployment.label} for {server}\n\n{_list_facts(deployment)}"]
    measured = _format_measured(deployment)
    if measured:
        parts.append(f"## Measured\n\n{measured}")
    parts += [f"## {title}\n\n{text.rstrip()}\n" for title, text in sections]
    return "\n".join(parts)


def container(deployment: Deployment) -> str:
    """Says which of NVIDIA's Triton containers holds the version that built the engine."""
    release = CONTAINERS.get(deployment.version)
    if release is None:
        return f"NVIDIA's Triton container with TensorRT-LLM {deployment.version}"
    return (
        f"NVIDIA's Triton container {release}-trtllm-python-py3, which has TensorRT-LLM {deployment.version}"
    )


def _list_facts(deployment: Deployment) -> str:
    rows = {
        "version": deployment.label,
        "engine": deployment.engine_key,
        "backend": deployment.backend,
        "format": f"{deployment.format}, KV cache {deployment.kv_cache}",
        "layout": f"tp {deployment.tp}, pp {deployment.pp}, ep {deployment.ep}",
        "limits": f"{deployment.max_batch_size} requests, {deployment.max_seq_len} tokens each",
        "built by": ", ".join(f"{name} {value}" for name, value in sorted(deployment.versions.items()))
        or "unknown",
        "built on": f"{deployment.gpu or 'an unknown GPU'}, sm {deployment.sm or 'unknown'}",
    }
    return "".join(f"- {name}: {value}\n" for name, value in rows.items())


def _format_measured(deployment: Deployment) -> str:
    if not deployment.measured:
        return ""
    # or the table would be read as the speed of the pair
    alone = "The engine was timed alone, without its draft model.\n\n" if deployment.draft else ""
    head = alone + "| batch | tokens/s | TTFT p95, ms | ITL p95, ms |\n| ---: | ---: | ---: | ---: |\n"
    return head + "".join(
        f"| {row.batch_size} | {row.tokens_per_s:.1f} | {_format_number(row.ttft_ms_p95)} | "
        f"{_format_number(row.itl_ms_p95)} |\n"
        for row in deployment.measured
    )


def _format_number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
