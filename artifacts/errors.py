"""What can go wrong where artifacts live."""


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
    """The registry cannot hold a value that was given: every reader would call its row odd."""


class AliasMoved(Exception):
    """Somebody moved the alias first."""


class NotPublishable(Exception):
    """The verdict does not allow publication."""


class PolicyRefused(Exception):
    """The version is not what the alias's policy asks; the refusal is in the log."""


class PolicyInvalid(Exception):
    """A policy or a waiver that cannot be meant."""


class NameRefused(Exception):
    """A name or an alias that is unsafe, or that differs from another only by case."""


class StoreMismatch(Exception):
    """The registry names artifacts of another store."""


class DestinationTaken(Exception):
    """The directory to pull into already holds something."""


class StoreBusy(Exception):
    """A sweep of the store takes longer than others wait for it."""


class LeaseLost(Exception):
    """A lease could not be renewed in time, so that what it protected may be gone."""


class KeyUnusable(Exception):
    """A key, a passphrase or a signature file cannot be used as given."""


class NotTrusted(Exception):
    """No signature by a trusted key vouches for these bytes."""


class SubscriptionRefused(Exception):
    """Nobody can be told of events that way."""
