"""Where `enginery up` keeps its Prefect server: address, database and logs, in a directory of the store."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Home:
    """The server's directory in a store."""

    root: Path
    """The store's local directory."""

    @property
    def path(self) -> Path:
        """The directory itself; Prefect's own home."""
        return self.root / "prefect"

    def log(self, service: str) -> Path:
        """Log of the `server` or the `worker`."""
        return self.path / f"{service}.log"

    @property
    def address(self) -> Path:
        """File with the API's URL; it is there while `enginery up` runs, and after one that was killed."""
        return self.path / "api_url"

    def api_url(self) -> str | None:
        """URL of the API, or None where no server was started or it was stopped."""
        return self.address.read_text() if self.address.exists() else None
