"""What keys hash is the same JSON, byte for byte, as when step_documents.json was written.

`python -m tests.pipeline.plan.test_step_documents` writes that file anew: every key of what it then shows as
changed is another one, and all that is built is built again.
"""

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from artifacts.store.opening import open_store
from pipeline.checkpoint.named import source_tensors
from pipeline.child.kinds import maker
from pipeline.models.config_json import read_shape
from pipeline.plan.facts import gather
from pipeline.plan.plan import plan, sensitivity
from pipeline.process.gpus import TARGETS
from pipeline.process.host import Gpu, Host
from pipeline.step.step import Step
from pipeline.toolchains.toolchain import Choice
from recipes.load import Loaded, load
from tests import hub as hubs
from tests.eagle import CONFIG as EAGLE
from tests.eagle import sizes as eagle_sizes
from tests.main_job import DEMO
from tests.pipeline.engines.tensorrt.asked import toolchain
from tests.pipeline.plans import HOST, ROOT, recipe_file

GOLDEN = Path(__file__).with_name("step_documents.json")

H100 = Gpu("NVIDIA H100 80GB HBM3", 90, TARGETS["h100"].memory_bytes, "550.54.15")
BIG = Host(gpus=(H100,) * 4, cpu="avx512f", cores=64, memory_bytes=1 << 40, tools=HOST.tools)
"""A host with GPUs, and memory for more than one sequence at a time."""

TRTLLM = {"engine.backend": "tensorrt", "engine.target": "h100"}
SPECULATIVE = {"max_draft_len": 4}
CHAT = '{% for one in messages %}{{ one["content"] }}{% endfor %}'


def documents(recipes: Iterable[Loaded], store: Path, host: Host, release: str = "") -> Iterator[Step]:
    """The steps of recipes on one host, with a toolchain of that release."""
    for loaded in recipes:
        facts = gather(loaded, host, open_store(store))
        if release:
            facts = dataclasses.replace(facts, choice=Choice(toolchain=toolchain(release)))
        yield from plan(loaded, facts).all_steps
        if loaded.recipe.calibration is not None:
            yield from sensitivity(loaded, facts)


def library(name: str) -> list[Loaded]:
    """The recipes that stand in a folder of the library."""
    return [loaded for file in sorted((ROOT / "recipes" / name).glob("*.yaml")) for loaded in load(file)]


def changed(tmp: Path) -> Iterator[tuple[str, Host, tuple[Loaded, ...]]]:
    """Release of the toolchain, host, and the demo's recipe with what no recipe of the library has."""
    draft = {"mode": "draft_tokens_external", "draft": {"path": str(smaller(tmp / "draft"))}} | SPECULATIVE
    heads = {"mode": "medusa", "draft": {"path": str(medusa(tmp / "medusa"))}} | SPECULATIVE
    net = {"mode": "eagle", "draft": {"path": str(eagle(tmp / "eagle"))}} | SPECULATIVE
    blend = [{"path": str(DEMO / "data" / "calibration.jsonl"), "weight": weight} for weight in (1.0, 3.0)]
    (tmp / "chat.jinja").write_text(CHAT)
    said = {"path": str(DEMO / "data" / "calibration.jsonl"), "template": "chat.jinja", "system": "Be brief."}
    read = {"bad_rows": {"skip": 3}, "render": "chat", "samples": 100}
    rows: list[tuple[str, Host, dict[str, Any]]] = [
        ("", HOST, {"calibration.data": blend, "calibration.total": {"tokens": 4096}}),
        ("", HOST, {"calibration.data": blend, "calibration.total": {"samples": 40}}),
        ("", BIG, {"calibration.data": [said | read], "calibration.pack": False, "format": "int8_sq"}),
        ("", HOST, {"calibration.method": "modelopt", "format": "int8_sq", "calibration.smoothing": 0.5}),
        ("", HOST, {"engine.options": {"dtype": "float32", "threads": 2, "autotune": False}}),
        ("", HOST, {"kv_cache": "int8", "engine.tp": 1, "engine.pp": 2}),
        ("0.9.0", BIG, TRTLLM),
        ("0.16.0", BIG, TRTLLM | {"format": "fp8", "kv_cache": "fp8", "speculative": draft}),
        ("0.16.0", BIG, TRTLLM | {"format": "none", "speculative": heads}),
        ("0.16.0", BIG, TRTLLM | {"format": "int8_wo", "speculative": heads}),
        ("0.16.0", BIG, TRTLLM | {"format": "none", "speculative": net}),
        ("1.0.0", BIG, TRTLLM | {"engine.backend": "trtllm_torch", "format": "fp8"}),
        ("1.0.0", BIG, TRTLLM | {"engine.backend": "trtllm_torch", "format": "fp8", "speculative": draft}),
        ("1.0.0", BIG, TRTLLM | {"engine.backend": "trtllm_torch", "format": "none", "speculative": net}),
    ]  # fmt: skip
    for release, host, changes in rows:
        yield release, host, load(recipe_file(tmp, **changes))


def smaller(directory: Path) -> Path:
    """A draft model of two layers, all zero."""
    directory.mkdir()
    config = json.loads((DEMO / "model" / "config.json").read_text())
    config |= {"num_hidden_layers": 2, "dtype": "float16"}
    (directory / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / "model" / name, directory)
    sizes = source_tensors(read_shape(config)).items()
    save_file({name: np.zeros(size, np.float16) for name, size in sizes}, directory / "model.safetensors")
    return directory


def medusa(directory: Path) -> Path:
    """Two Medusa heads, all zero."""
    directory.mkdir()
    config = json.loads((DEMO / "model" / "config.json").read_text())
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    kinds = {"0.linear.weight": (hidden, hidden), "0.linear.bias": (hidden,), "1.weight": (vocab, hidden)}
    held = {f"{head}.{name}": np.zeros(size, np.float16) for head in (0, 1) for name, size in kinds.items()}
    said = {"medusa_num_heads": 2, "medusa_num_layers": 1, "base_model_name_or_path": "demo"}
    (directory / "config.json").write_text(json.dumps(said))
    save_file(held, directory / "medusa_lm_head.safetensors")
    return directory


def eagle(directory: Path) -> Path:
    """An EAGLE net, all zero."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(EAGLE))
    held = {name: np.zeros(size, np.float16) for name, size in eagle_sizes().items()}
    save_file(held, directory / "model.safetensors")
    return directory


def hub_recipe(tmp: Path) -> tuple[Loaded, ...]:
    """The demo's model and data, at a commit of a hub."""
    file = recipe_file(tmp)
    document = yaml.safe_load(file.read_text())
    commit = {"repo": hubs.REPO, "revision": hubs.COMMIT}
    document["model"], document["calibration"]["data"] = commit, [commit | {"samples": 400}]
    document["gate"]["data"] = commit | {"split": "test"}
    file.write_text(yaml.safe_dump(document))
    return load(file)


def written(tmp: Path) -> str:
    """Every step's document under its key, as the golden file has them."""
    store = tmp / "store"
    steps = [
        *documents(library("demo"), store, HOST),
        *documents(library("production"), store, BIG, "0.16.0"),
    ]
    for release, host, recipes in changed(tmp):
        steps += documents(recipes, store, host, release)
    files = {path.name: path.read_bytes() for path in (DEMO / "model").iterdir() if path.is_file()}
    rows = (DEMO / "data" / "calibration.jsonl").read_bytes()
    with hubs.serve(files | {"train.jsonl": rows, "test.jsonl": rows}) as hub:
        os.environ["HF_ENDPOINT"] = hub.address
        try:
            steps += documents(hub_recipe(tmp), store, HOST)
        finally:
            del os.environ["HF_ENDPOINT"]
    found = {step.key: json.dumps(step.as_dict(), sort_keys=True) for step in steps}
    lines = [f'"{key}": {document}' for key, document in sorted(found.items())]
    return "{\n" + ",\n".join(lines) + "\n}\n"


@pytest.mark.timeout(120)
def test_what_the_keys_hash_is_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    golden, now = json.loads(GOLDEN.read_text()), json.loads(written(tmp_path))
    assert {document["kind"].partition(".")[0] for document in golden.values()} >= {"dataset", "leakage"}
    assert len(golden) > 100
    lost, new = golden.keys() - now.keys(), now.keys() - golden.keys()
    assert [golden[key] for key in sorted(lost)] == [now[key] for key in sorted(new)]
    assert GOLDEN.read_text() == written_again(now)


def test_every_document_is_read_by_the_parameters_of_its_kind_and_written_the_same():
    for document in json.loads(GOLDEN.read_text()).values():
        model = maker(document["kind"]).job.model_fields["params"].annotation
        assert model is not None
        params = model.model_validate(document["params"], strict=False)  # as the child reads it
        assert json.loads(json.dumps(params.document())) == document["params"], document["kind"]


def written_again(now: dict[str, object]) -> str:
    """The golden file with these documents."""
    lines = [f'"{key}": {json.dumps(document, sort_keys=True)}' for key, document in sorted(now.items())]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(written(Path(folder)))
