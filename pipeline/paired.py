"""Differences between two versions sample by sample, which are surer than those of their intervals."""

from artifacts.finding.compare import same_samples
from artifacts.store.local import LocalStore
from artifacts.version import Metric, VersionRecord
from pipeline import gate


def paired(store: LocalStore, before: VersionRecord, after: VersionRecord) -> dict[str, Metric]:
    """Metric -> after less before, where the store has what both were scored with; none otherwise."""
    keys = [record.lineage.get("evaluation") for record in (before, after)]
    if not same_samples(before, after) or not all(key and store.has(key) for key in keys):
        return {}
    records = [gate.read_records(store.file(str(key), "samples.jsonl")) for key in keys]
    found = gate.differences(*records)
    return {name: Metric(name, one.value, one.low, one.high) for name, one in found.items() if one.finite}
