"""What a pull records for gc: a lease while it runs, and its time."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from sqlalchemy.exc import DBAPIError

from artifacts.errors import NotFound, StoreUnusable
from artifacts.registry import retention
from artifacts.registry.database import Database
from artifacts.store.local import LocalStore
from artifacts.version import VersionRecord

log = logging.getLogger(__name__)


@contextmanager
def pulling(store: LocalStore, database: Database, record: VersionRecord) -> Iterator[None]:
    """Keep a version's engine while it is copied, and record the pull if the block succeeds.

    With read-only access to the store or the registry the pull works too: every byte is verified, so that a
    sweep during the pull causes an error. A collected version is a NotFound that says so.
    """
    with ExitStack() as stack:
        stack.enter_context(store.reading([record.engine_key], f"the pull of {record.reference}"))
        # Inside the lease: a gc that runs now either sees it or has already recorded the collection.
        if record.collected_at is not None and not store.has(record.address):
            raise NotFound(retention.collected_message(record.reference, record.collected_at))
        yield
    try:
        retention.record_pull(database, record.name, record.number)
    except (StoreUnusable, DBAPIError) as exc:
        log.info("the pull of %s is not recorded, so gc ignores it: %s", record.reference, exc)
