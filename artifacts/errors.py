"""Errors of stores, registries and signatures."""


class StoreUnknown(Exception):
    """No store for that URL."""


class StoreUnusable(Exception):
    """The store, its registry or a pull's destination cannot be written or read, or its disk is full."""


class ArtifactCorrupt(Exception):
    """Files of an artifact are missing or differ from their digests."""


class FileChanged(Exception):
    """A file changed while it was being hashed."""


class NotFound(Exception):
    """No such name, version, alias or key."""


class RowRefused(Exception):
    """The registry cannot store a value: readers would reject its row as odd."""


class AliasMoved(Exception):
    """The alias does not point at the expected version: another process moved it."""


class NotPublishable(Exception):
    """The verdict does not allow publication."""


class PolicyRefused(Exception):
    """The version violates the alias's policy; the log records the refusal."""


class PolicyInvalid(Exception):
    """A policy or a waiver has an invalid value."""


class NameRefused(Exception):
    """A name or an alias is unsafe, or differs from another only by case."""


class StoreMismatch(Exception):
    """The registry names artifacts of another store."""


class DestinationTaken(Exception):
    """The directory to pull into is not empty."""


class StoreBusy(Exception):
    """A sweep or a lock was held longer than the caller waits."""


class LeaseLost(Exception):
    """A lease was not renewed in time: what it protected may have been removed."""


class KeyUnusable(Exception):
    """A key, a passphrase or a signature file is missing, wrong or malformed."""


class NotTrusted(Exception):
    """No trusted key signed these bytes."""


class SubscriptionRefused(Exception):
    """A subscription has an invalid target, secret or kind of event."""
