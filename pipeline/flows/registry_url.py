"""Registry URLs that travel: without a password on the way, with it again where they are used."""

from pathlib import Path

from sqlalchemy.engine import make_url


def shown(url: str) -> str:
    """The URL as anyone may see it: no password, and a database file by its absolute path."""
    parsed = make_url(url)._replace(password=None).difference_update_query(["password", "sslpassword"])
    if parsed.get_backend_name() == "sqlite" and parsed.database and parsed.database != ":memory:":
        parsed = parsed.set(database=str(Path(parsed.database).absolute()))
    return parsed.render_as_string(hide_password=False)


def usable(url: str | None, own: str | None) -> str | None:
    """`url`, or `own` where that is the same database and has the password."""
    return own if own is not None and url == shown(own) else url
