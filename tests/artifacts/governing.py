"""What the tests of promotions share: versions, a policy, waivers, and changes that no command makes."""

import dataclasses
from datetime import UTC, datetime, timedelta

from sqlalchemy import create_engine

from artifacts.registry.registry import Metric, Publication, Request, parse_policy

ONE = Publication(
    name="demo/fp8",
    engine_key="1" * 64,
    manifest_digest="d" * 64,
    recipe={"n": 1},
    verdict="PASS",
    facts={"format": "fp8", "target": "host"},
    metrics=[Metric("tokens_per_s", 100.0), Metric("kl", 0.01)],
)
FAST = parse_policy({"metrics": {"tokens_per_s": {"min": 200}}})


def version(n: int, **changes) -> Publication:
    return dataclasses.replace(ONE, engine_key=f"{n:064x}", recipe={"n": n}, **changes)


def waiver(number: int = 1, rule: str = "metrics", **changes) -> Request:
    asked = {"name": "demo/fp8", "number": number, "alias": "prod", "rule": rule, "reason": "agreed"}
    return Request(**{**asked, "until": datetime.now(UTC) + timedelta(days=7), **changes})


def change(url: str, *statements) -> None:
    """Changes what no command changes."""
    engine = create_engine(url)
    with engine.begin() as db:
        for statement in statements:
            db.execute(statement)
    engine.dispose()
