"""Plans of the demo recipe with changes, on a host that is always the same."""

from pathlib import Path

import yaml

from pipeline.plan.plan import Plan
from pipeline.plan.planning import Draft, draft, plan_one
from pipeline.process.host import Host
from pipeline.step.realize import Site
from recipes.load import load

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "recipes" / "demo"
DATA = {"path": str(DEMO / "data" / "calibration.jsonl")}

TOOLS = {
    "torch": "2.13.0", "nvidia-modelopt": "0.47.0", "transformers": "5.14.1", "tokenizers": "0.22.2",
    "jinja2": "3.1.6", "numpy": "2.3.5", "c++": "g++ 12.2.0",
}  # fmt: skip
HOST = Host(gpus=(), cpu="avx512f", cores=2, memory_bytes=24 << 30, tools=TOOLS)


def recipe_file(tmp_path: Path, **changes: object) -> Path:
    """The demo recipe with dotted keys changed, its paths made absolute."""
    document = yaml.safe_load((DEMO / "int4_awq_tp2.yaml").read_text())
    document["model"]["path"] = str(DEMO / "model")
    document["gate"]["data"]["path"] = str(DEMO / "data" / "gate.jsonl")
    document["calibration"]["data"] = [{"path": str(DEMO / "data" / "calibration.jsonl")}]
    for dotted, value in changes.items():
        *parents, leaf = dotted.split(".")
        table = document
        for parent in parents:
            table = table.setdefault(parent, {})
        table[leaf] = value
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def planned(file: Path, site: Site) -> Plan:
    """The plan of a file with one recipe."""
    (loaded,) = load(file)
    return plan_one(loaded, site)


def draft_file(file: Path, site: Site) -> list[Draft]:
    """The plans of a file, whatever the host lacks."""
    return [draft(loaded, site) for loaded in load(file)]


def keys(made: Plan) -> dict[str, str]:
    """Kind -> key."""
    return {step.kind: step.key for step in made.steps}
