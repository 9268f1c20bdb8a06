"""Every format in every layout of the demo model, as a Markdown table: `make table`.

Builds recipes/demo/all.yaml (20 engines) in .bench/store, or reuses what is there, and reads the registry.
"""

import subprocess  # noqa: TID251 runs the command line as a user would
import sys
from pathlib import Path

from artifacts.client import Client
from artifacts.version import VersionRecord

ROOT = Path(__file__).resolve().parents[2]
STORE = ROOT / ".bench" / "store"


def main() -> None:
    """Runs the recipes and prints the table."""
    command = [sys.executable, "-m", "pipeline.cli", "--store", str(STORE), "run", "recipes/demo/all.yaml"]
    done = subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False)
    client = Client(str(STORE))
    names = [name for name in client.registry.names() if name.startswith("demo/all/")]
    print(
        "| format | tp | pp | perplexity ratio (95 %) | KL (95 %), nats | top-1 | weights MB | build s | tokens/s, batch 1 | batch 4 |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for record in sorted((client.resolve(name) for name in names), key=order):
        print(row(client, record))
    sys.exit(done.returncode)


def order(record: VersionRecord) -> tuple[int, int, int]:
    """Formats as the recipe lists them, then layouts."""
    formats = ["none", "fp8", "int8_sq", "int4_awq", "int8_wo"]
    return formats.index(record.facts["format"]), record.facts["tp"], record.facts["pp"]


def row(client: Client, record: VersionRecord) -> str:
    """One engine."""
    metrics = {metric.name: metric for metric in record.metrics}
    ratio, kl = metrics["perplexity_ratio"], metrics["kl"]
    seconds = client.store.manifest(record.engine_key).seconds
    weights = sum(record.facts["weight_bytes_per_rank"]) / 1e6
    cells = [
        record.facts["format"],
        record.facts["tp"],
        record.facts["pp"],
        f"{ratio.value:.4f} ({ratio.low:.4f} to {ratio.high:.4f})",
        f"{kl.value:.5f} ({kl.low:.5f} to {kl.high:.5f})",
        f"{metrics['top1_agreement'].value:.4f}",
        f"{weights:.2f}",
        f"{seconds:.0f}",
        f"{metrics['tokens_per_s@1'].value:,.0f}",
        f"{metrics['tokens_per_s@4'].value:,.0f}",
    ]
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


if __name__ == "__main__":
    main()
