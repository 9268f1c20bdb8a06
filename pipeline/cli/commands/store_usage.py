"""store show, store share: what a store holds, and how many bytes it takes."""

import click

from pipeline.cli.app import App


@click.command()
@click.pass_obj
def show(app: App) -> None:
    """Show the store's id, artifacts and bytes, with and without sharing of equal files.

    Example: enginery store show
    """
    from artifacts.store.sharing import measure  # pydantic: not for --help
    from pipeline.units import size

    opened = app.client.store
    identity, usage = opened.identity(), measure(opened)
    answer = {
        "store": app.store_url,
        "id": identity.id if identity else None,
        "artifacts": usage.artifacts,
        "listed_bytes": usage.listed_bytes,
        "held_bytes": usage.held_bytes,
        "unused_bytes": usage.unused_bytes,
    }
    ratio = usage.listed_bytes / max(usage.held_bytes, 1)
    app.out.value(
        answer,
        text=f"{app.store_url}   id {identity.id[:12] if identity else 'none yet'}\n"
        f"{usage.artifacts:,} artifacts of {size(usage.listed_bytes)} take {size(usage.held_bytes)}:"
        f" {ratio:.2f} times less, because equal files are stored once\n"
        f"{size(usage.unused_bytes)} belong to no artifact",
        short=str(usage.held_bytes),
    )


@click.command()
@click.pass_obj
def share(app: App) -> None:
    """Deduplicate equal files of artifacts that early versions of enginery wrote.

    Example: enginery store share
    """
    from artifacts.store.sharing import measure, share  # pydantic: not for --help
    from pipeline.units import size

    opened = app.client.store
    before = measure(opened)
    damaged = share(opened)
    after = measure(opened)
    for path in damaged:
        app.out.warn(f"{path} is damaged and was not changed; see `enginery verify --all`")
    freed = before.held_bytes - after.held_bytes
    app.out.value(
        {"freed_bytes": freed, "damaged": [str(path) for path in damaged]},
        text=f"{after.artifacts:,} artifacts share equal files; {size(freed)} freed",
        short=str(freed),
    )
