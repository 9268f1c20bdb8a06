"""Documents changed by chance are read, or refused by an error that names their file.

1,000 recipes and some hundred of the others here. By hand, 10,000 with another seed:
`ODD_DOCUMENTS=10000 ODD_SEED=7 python -m pytest tests/test_odd_documents.py`; each failure names its number.
"""

import base64
import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from artifacts.registry.policy import parse_policy
from artifacts.store.opening import open_store
from artifacts.trust import bundle, signing
from calibration.errors import DataError
from pipeline.cli.boundary import report
from pipeline.cli.output import Output
from pipeline.errors import EXIT_CODES
from pipeline.export.export_settings import parse_settings
from pipeline.export.exporters.vllm import VllmSettings
from pipeline.plan.data_facts import read_data
from pipeline.process.host import probe
from pipeline.rebuild.host_pools import load_pools
from pipeline.step.realize import Site
from pipeline.toolchains import declared
from recipes.data import Data
from recipes.errors import RecipeError
from tests.artifacts.caches import commit
from tests.main_job import DEMO, write_recipe
from tests.mutants import flipped, mutant
from tests.odd import VALUES, places
from tests.pipeline.plans import draft_file

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("ODD_DOCUMENTS", "1000"))
SEED = int(os.environ.get("ODD_SEED", "0"))
HUNG_S = 20
"""A document that takes longer hangs; the slowest take some tenths of a second."""


class Hung(BaseException):
    """No error of anything that is read."""


@contextmanager
def watched() -> Iterator[None]:
    """Ends the block when it hangs; the timer that was set before goes on after it."""

    def hung(*_: object) -> None:
        raise Hung

    handler, timer = signal.signal(signal.SIGALRM, hung), signal.setitimer(signal.ITIMER_REAL, HUNG_S)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def expect_located(read: Callable[[], object], file: Path | str) -> bool:
    """Whether it is read; if not, the error is one for users, of a bounded length, and names the file."""
    try:
        with watched():
            read()
    except tuple(EXIT_CODES) as exc:
        error = exc
    else:
        return True
    code = report(error, Output(quiet=True))
    assert code == 4 or (code == 2 and str(file) in str(error))
    assert len(str(error)) < 12_000
    return False


def outcomes(count: int, case: Callable[[random.Random], tuple[Callable[[], object], Path | str]]) -> int:
    """How many of the cases are read; one that ends otherwise fails with its number."""
    read = 0
    for number in range(count):
        rng = random.Random(f"{SEED}/{number}")
        act, file = case(rng)
        try:
            read += expect_located(act, file)
        except (Exception, Hung) as exc:
            raise AssertionError(f"seed {SEED}, number {number}") from exc
    return read


RECIPE_PARTS: dict[str, Any] = {
    "kv_cache": "fp8",
    "publish": {"alias": "candidate"},
    "schedule": {"cron": "0 3 * * *", "timezone": "UTC"},
    "traffic": {"input_tokens": 100, "output_tokens": 20, "concurrency": 2},
    "tune": {"space": {"max_batch_size": [1, 2], "options.autotune": [True, False]}, "budget": {"trials": 2}, "slo": {"ttft_ms_p95": 10.5}},
    "speculative": {"mode": "lookahead_decoding", "max_draft_len": 3},
    "matrix": {"format": ["fp8", "none"], "engine.tp": [1, 2]},
}  # fmt: skip


def test_a_changed_recipe_is_planned_or_refused_by_its_place(tmp_path: Path):
    places(tmp_path / "odd")
    good = write_recipe(
        tmp_path / "odd" / "recipe.yaml", calibration__memory={"host_gb": 4}, engine__options={"threads": 1}
    )
    whole = yaml.safe_load(good.read_text())
    site = Site(store=open_store(tmp_path / "store"), host=probe())
    assert expect_located(lambda: draft_file(good, site), good)

    def case(rng: random.Random) -> tuple[Callable[[], object], Path]:
        parts = rng.sample(sorted(RECIPE_PARTS), rng.choice((0, 0, 1, 2)))
        document = whole | {name: RECIPE_PARTS[name] for name in parts}
        good.write_bytes(mutant(document, rng))
        return lambda: draft_file(good, site), good

    read = outcomes(COUNT, case)
    assert COUNT / 100 < read < COUNT / 2


POOLS = {
    "version": 1,
    "pools": [
        {"name": "a", "gpu": "h200", "driver": "570", "tensorrt_llm": ["0.16.0"], "aliases": ["prod"], "usd_per_gpu_hour": 2.5},
        {"name": "b", "cpu": "avx2"},
    ],
}  # fmt: skip
TOOLCHAINS = {
    "version": 1,
    "toolchains": {
        "a": {"environment": "/opt/a"},
        "b": {"image": "x:1", "runtime": "docker", "launcher": "mpirun"},
    },
}


@pytest.mark.parametrize(
    ("document", "read"),
    [(POOLS, load_pools), (TOOLCHAINS, lambda file: declared.read({declared.VARIABLE: str(file)}))],
    ids=["pools", "toolchains"],
)
def test_a_changed_file_of_pools_or_toolchains_is_read_or_refused_by_its_place(
    tmp_path: Path, document: dict[str, Any], read
):
    file = tmp_path / "hosts.yaml"

    def case(rng: random.Random) -> tuple[Callable[[], object], Path]:
        file.write_bytes(mutant(document, rng))
        return lambda: read(file), file

    assert outcomes(COUNT // 5, case) > 0


def test_a_changed_setting_of_an_export_is_taken_or_refused(tmp_path: Path):
    fields = sorted(VllmSettings.model_fields)

    def case(rng: random.Random) -> tuple[Callable[[], object], str]:
        name = rng.choice(fields)
        return lambda: parse_settings(VllmSettings, [f"{name}={rng.choice(VALUES)}"], root="/models/x"), name

    assert outcomes(COUNT // 5, case) > 0


ROWS = {
    "jsonl": b"".join(json.dumps({"text": f"row {n}"}).encode() + b"\n" for n in range(20)),
    "csv": b"text,number\n" + b"".join(b'"row %d, and more",%d\n' % (n, n) for n in range(20)),
    "txt": b"\n\n".join(b"paragraph %d" % n for n in range(20)),
    "parquet": b"PAR1" + bytes(range(150)) + b"\x15\x02" + bytes(30) + (32).to_bytes(4, "little") + b"PAR1",
}


@pytest.mark.parametrize("kind", ROWS)
def test_a_changed_data_file_is_read_or_refused_by_its_path(tmp_path: Path, kind: str):
    file, store = tmp_path / f"rows.{kind}", open_store(tmp_path / "store")

    def case(rng: random.Random) -> tuple[Callable[[], object], Path]:
        file.write_bytes(flipped(ROWS[kind], rng))
        return lambda: read_data(tmp_path, Data(path=file.name), store), file

    assert outcomes(COUNT // 20, case) > 0


def test_a_row_without_an_end_is_refused_before_it_is_in_memory(tmp_path: Path):
    store = open_store(tmp_path / "store")
    for name, begin in (("a.jsonl", b""), ("a.txt", b""), ("a.csv", b'text\n"')):
        with (tmp_path / name).open("wb") as out:
            out.write(begin)
            out.truncate(1 << 40)
        with watched(), pytest.raises(DataError, match=r"a\.\w+:\d: a row of more than 16,777,216 bytes"):
            read_data(tmp_path, Data(path=name), store)


def test_changed_keys_and_signatures_are_read_or_refused_by_their_path(tmp_path: Path):
    bundle.make_key(tmp_path / "key", "")
    public, private = tmp_path / "key.pub", tmp_path / "key"
    pem, own = public.read_bytes(), private.read_bytes()
    signed = bundle.sign_statement(
        {"subject": [], "x": base64.b64encode(b"y" * 90).decode()}, bundle.read_private_key(private)
    )
    keys = bundle.trusted_keys([public])
    store = open_store(tmp_path / "store")
    commit(store, "0" * 64, {"engine.json": b"{}"})
    manifest = store.manifest("0" * 64)

    def case(rng: random.Random) -> tuple[Callable[[], object], Path | str]:
        match rng.randrange(3):
            case 0:
                public.write_bytes(flipped(pem, rng))
                return lambda: bundle.trusted_keys([public]), public
            case 1:
                private.write_bytes(flipped(own, rng))
                return lambda: bundle.read_private_key(private), private
            case _:
                text = flipped(signed.encode(), rng).decode(errors="replace")
                return lambda: signing.vouching_keys(manifest, [text], keys), ""

    assert outcomes(COUNT // 5, case) > 0


def test_a_changed_policy_is_a_policy_or_refused_by_its_rule():
    good = {
        "verdict": ["PASS"],
        "max_age_days": 7.5,
        "metrics": {"kl": {"max": 0.1}},
        "measured_on_target": True,
    }

    def case(rng: random.Random) -> tuple[Callable[[], object], str]:
        from recipes import yaml_text  # any value that a JSON document could hold too

        try:
            document = yaml_text.parse(mutant(good, rng).decode(errors="replace"))
        except yaml.YAMLError:
            document = good
        return lambda: parse_policy(document if isinstance(document, dict) else {}), "rule"

    assert outcomes(COUNT // 5, case) > 0


def test_recipes_that_the_issue_names_are_refused_by_their_place(tmp_path: Path):
    file = tmp_path / "recipe.yaml"
    good = write_recipe(file).read_text()
    for text in (
        "tune: {space: {max_batch_size: []}}",
        "foo[1]: 1",
        "matrix: {1: [a]}",
        f"model: {{path: {DEMO / 'model' / 'config.json'}}}",
    ):
        key = text.partition(":")[0]
        kept = "".join(
            part
            for part in good.splitlines(keepends=True)
            if not part.startswith((f"{key}:", "  path:")) or key != "model"
        )
        file.write_text(f"{kept}\n{text}\n")
        with pytest.raises(RecipeError) as caught:
            draft_file(file, Site(store=open_store(tmp_path / "store"), host=probe()))
        assert str(caught.value).startswith(f"{file}: ")
