"""Everything that needs Prefect: flows, deployments, schedules, the server and its reports.

Deployments that are registered on a server name their flow `pipeline.flows.release` or
`pipeline.flows.rebuild_stale`; both stay importable under these names.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """The flows, imported when a worker asks for one: the other modules here need no flow engine."""
    if name not in ("release", "rebuild_stale"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.flows import flow  # opens Prefect's engine

    return getattr(flow, name)
