"""Differences between two versions sample by sample, which are surer than those of their intervals."""

from artifacts.finding.compare import same_samples
from artifacts.store.local import LocalStore
from artifacts.version import Metric, VersionRecord
from pipeline.evaluate import gate
from pipeline.step.judged import find_judgement


def paired(store: LocalStore, before: VersionRecord, after: VersionRecord) -> dict[str, Metric]:
    """Metric -> after less before, where the store has what both were scored with; none otherwise."""
    addresses = [_scores(store, record) for record in (before, after)]
    # only on the same samples can one be taken from the other
    if not same_samples(before, after) or None in addresses:
        return {}
    records = [gate.read_records(store.file(str(address), "samples.jsonl")) for address in addresses]
    differing = gate.differences(*records).items()
    return {
        name: Metric(name, difference.value, difference.low, difference.high)
        for name, difference in differing
        if difference.finite
    }


def _scores(store: LocalStore, record: VersionRecord) -> str | None:
    """Address of the evaluation of this very version; None where the store does not have it."""
    key = record.lineage.get("evaluation")
    if key is None or not store.has(key):
        return None
    engine = store.manifest(record.address).created_at if store.has(record.address) else record.published_at
    return find_judgement(store, "evaluation", key, record.manifest_digest, engine)
