"""Time to answer each page of the registry, over a real socket, with 10,000 versions published.

python -m tests.benchmarks.pages
"""

import sqlite3
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

import httpx

from artifacts.registry.registry import open_registry
from tests.pipeline.pages.web.test_web_server import serving
from tests.pipeline.published import FACTS, publication

FORMATS, MODELS, TPS = ("fp8", "int4_awq", "nvfp4", "int8_sq"), 5, (1, 2, 4, 8)
PER_NAME = 125
REPEATS = 9

NAME = "model-0/fp8_tp2"
PAGES = (
    "/", f"/engines/{NAME}", f"/engines/{NAME}:77", "/find", "/find?q=model-3&sort=fastest", "/log",
    f"/compare?a={NAME}:1&b={NAME}:9", "/api/v1/versions?format=fp8&tp=2", "/metrics", "/healthz",
)  # fmt: skip

MORE = f"WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {PER_NAME}) INSERT INTO "
COPIES = (
    MORE
    + "version SELECT name, i, engine_key, manifest_digest, model, origin, identity || i, verdict, recipe, "
    "lineage, checks, source, facts_id, published_at, published_by, collected_at, seal FROM version, n WHERE number = 1",
    MORE + "metric SELECT name, i, metric, position, value * (1 + (i % 17) / 50.0), low, high "
    "FROM metric, n WHERE number = 1",
    MORE + "event(at, name, kind, by, detail) SELECT published_at, name, 'published', published_by, "
    "json_object('number', i, 'verdict', 'PASS') FROM version, n WHERE number = 1",
)


def fill(file: Path) -> int:
    """Publishes one version per name, and copies it; the number of versions."""
    registry = open_registry(file)
    for model in range(MODELS):
        for form in FORMATS:
            for tp in TPS:
                facts = FACTS | {"format": form, "tp": tp}
                name = f"model-{model}/{form}_tp{tp}"
                registry.publish(publication(name, seed=1 + model, facts=facts, alias="prod"))
    with closing(sqlite3.connect(file)) as db, db:
        for statement in COPIES:
            db.execute(statement)
        return int(db.execute("SELECT count(*) FROM version").fetchone()[0])


def main() -> None:
    """Prints a table: page, median and slowest time."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "registry.db"
        print(f"{fill(file):,} versions on SQLite, one request at a time, median of {REPEATS}\n")
        print("| page | median ms | slowest ms | kB |\n| --- | ---: | ---: | ---: |")
        with serving(file) as (_, url), httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
            for page in PAGES:
                took, answer = [], client.get(page)
                for _ in range(REPEATS):
                    started = time.perf_counter()
                    answer = client.get(page)
                    took.append(1000 * (time.perf_counter() - started))
                answer.raise_for_status()
                size = len(answer.content) / 1000
                print(f"| {page} | {statistics.median(took):.0f} | {max(took):.0f} | {size:.0f} |")


if __name__ == "__main__":
    main()
