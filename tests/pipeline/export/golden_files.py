"""Writes the golden files anew: `python -m tests.pipeline.export.golden_files`, then read the difference."""

import shutil
import tempfile
from pathlib import Path

from pipeline.export import exporters
from pipeline.export.export_settings import parse_settings
from tests.pipeline.export import published

GOLDEN = Path(__file__).parent / "golden"

CASES = {
    "0.16.0/triton": (published.ENGINE_FP8_TP2, "triton", []),
    "0.16.0/k8s": (
        published.ENGINE_FP8_TP2,
        "k8s",
        ["image=tritonserver:24.12-trtllm-python-py3", "claim=engines", "memory=64Gi"],
    ),
    "0.16.0/vllm": (published.ENGINE_FP8_TP2, "vllm", []),
    "1.2.0/triton": (
        published.ENGINE_WITH_DRAFT,
        "triton",
        ["max_batch_size=32", "kv_cache_fraction=0.8", "queue_size=128"],
    ),
    "1.2.0/triton-streaming": (
        published.Version(toolchain="1.2.0", plugins={"use_paged_context_fmha": False}),
        "triton",
        ["decoupled=true", "scheduler_policy=max_utilization", "max_kv_tokens=100000"],
    ),
    "1.2.0/trtllm-serve": (
        published.Version(toolchain="1.2.0", engine={"pp": 2, "tp": 1}),
        "trtllm-serve",
        ["scheduler_policy=max_utilization"],
    ),
    "1.1.0/triton": (published.TORCH_FP8_TP2, "triton", []),
    "1.1.0/trtllm-serve": (published.TORCH_FP8_TP2, "trtllm-serve", []),
    "1.1.0/k8s": (
        published.TORCH_FP8_TP2,
        "k8s",
        ["server=trtllm-serve", "image=tensorrt-llm:1.1.0", "claim=engines", "namespace=llm", "replicas=2"],
    ),
}
"""Version point and target -> version, target and settings."""


def exported(case: str, root: Path) -> dict[str, str]:
    """The files that an export writes now, served from /models/export (k8s: its own default)."""
    version, target, pairs = CASES[case]
    deployment = published.deployment(version, root)
    given = {} if target == "k8s" else {"root": "/models/export"}
    settings = parse_settings(exporters.exporter(target).settings, pairs, **given)
    files, _ = exporters.export(target, deployment, settings)
    return files


def stored(case: str) -> dict[str, str]:
    """The golden files of a case."""
    root = GOLDEN / case
    return {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*") if path.is_file()}


def main() -> None:
    """Replaces every golden file."""
    for case in CASES:
        shutil.rmtree(GOLDEN / case, ignore_errors=True)
        with tempfile.TemporaryDirectory() as scratch:
            for name, text in exported(case, Path(scratch)).items():
                path = GOLDEN / case / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)


if __name__ == "__main__":
    main()
