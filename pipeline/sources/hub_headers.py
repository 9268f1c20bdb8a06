"""Opens a hub commit for planning: its config.json and the headers of its weights."""

from pipeline.errors import SourceError
from pipeline.sources.snapshot import HEADERS_ONLY, Remote
from pipeline.weights.tensors import Checkpoint, open_checkpoint


def remote_checkpoint(remote: Remote) -> Checkpoint:
    """Opens a commit's `config.json` and safetensors headers, for planning: the weights are holes.

    They are fetched once and kept; a hub that cannot be reached is a SourceError.
    """
    directory = remote.directory / "headers"
    if not (directory / HEADERS_ONLY).exists():
        from pipeline.sources import (
            hub,  # huggingface_hub costs 0.2 s, and only the first plan of a commit needs it
        )

        hub.fetch_headers(remote, directory)
    try:
        return open_checkpoint(directory)
    except SourceError as exc:
        raise SourceError(str(exc).replace(str(directory), remote.where)) from exc
