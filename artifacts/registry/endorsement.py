"""Signatures and attestations in a registry."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Table, delete, insert, select

from artifacts import digest
from artifacts.address import address, is_same, parse_address
from artifacts.registry import log, rows, seals, tables
from artifacts.registry.database import Database
from artifacts.trust.provenance import Attestation
from artifacts.trust.signing import Signature


class Endorsements:
    """Signatures and attestations of one registry. They are stored unverified: their users verify them."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add_signature(self, signature: Signature, engine_key: str) -> None:
        """Store a signature in place of an earlier one by the same key; logs an event per version."""
        row = {"manifest_digest": signature.manifest_digest, **_common(signature)}
        with self._db.writing() as db:
            # The row and its events are one transaction: no signature without its entry in the log.
            _replace_row(db, tables.signature, row, "manifest_digest")
            content_address = address(engine_key, signature.manifest_digest)
            _record(db, content_address, {"kind": "signature", "key_id": signature.key_id})

    def add_attestation(self, attestation: Attestation, content: str) -> None:
        """Store a signed provenance statement in place of an earlier one by the same key."""
        row = {"engine_key": _column(attestation.engine_key, content), **_common(attestation)}
        with self._db.writing() as db:
            _replace_row(db, tables.attestation, row, "engine_key")
            content_address = address(attestation.engine_key, content)
            _record(db, content_address, {"kind": "provenance", "key_id": attestation.key_id})

    def signatures(self, manifest_digest: str) -> list[Signature]:
        """Every signature over the files with that manifest digest, oldest first."""
        signature_rows = self._rows(tables.signature, "manifest_digest", manifest_digest)
        return [signature(row) for row in signature_rows]

    def attestations(self, engine_key: str, content: str) -> list[Attestation]:
        """Every signed provenance statement of that content of the engine, oldest first.

        Earlier versions stored statements under the key alone; those may be of any content.
        """
        attestation_rows = self._rows(
            tables.attestation, "engine_key", engine_key, _column(engine_key, content)
        )
        return [Attestation(engine_key=engine_key, **_signature_fields(row)) for row in attestation_rows]

    def _rows(self, table: Table, column: str, *values: str) -> list[Row[Any]]:
        if not self._db.exists():
            return []
        query = select(table).where(table.c[column].in_(values)).order_by(table.c.signed_at, table.c.key_id)
        with self._db.reading() as db:
            return rows.select_rows(db, table, query)


def signature(row: Row[Any]) -> Signature:
    """The signature in a valid row."""
    return Signature(manifest_digest=row.manifest_digest, **_signature_fields(row))


def _signature_fields(row: Row[Any]) -> dict[str, Any]:
    fields = {name: getattr(row, name) for name in ("key_id", "bundle", "signed_by")}
    return {**fields, "signed_at": datetime.fromisoformat(row.signed_at)}


def _common(endorsement: Signature | Attestation) -> dict[str, Any]:
    return {
        "key_id": endorsement.key_id,
        "bundle": endorsement.bundle,
        "signed_at": endorsement.signed_at.isoformat(),
        "signed_by": endorsement.signed_by,
    }


def _column(engine_key: str, content: str) -> str:
    """The value of the key column of an attestation: a digest of engine key and content, as long as a key."""
    return digest.of_json([engine_key, content])


def _replace_row(db: Connection, table: Table, row: dict[str, Any], key_column: str) -> None:
    # Deleted and inserted rather than updated: the new row gets a new seal over all of its columns.
    db.execute(delete(table).where(table.c[key_column] == row[key_column], table.c.key_id == row["key_id"]))
    db.execute(insert(table), [seals.sealed(table, row)])


def _record(db: Connection, content_address: str, detail: dict[str, Any]) -> None:
    """Log an event for every version of that content of an engine."""
    version, (engine_key, content) = tables.version, parse_address(content_address)
    query = select(version.c.name, version.c.number, version.c.manifest_digest)
    query = query.where(version.c.engine_key == engine_key)
    for row in db.execute(query.order_by(version.c.name, version.c.number)).all():
        # Another build of the same key may have other contents, which the signer has not signed.
        if is_same(row.manifest_digest, content):
            log.record(db, row.name, "signed", {"number": row.number, **detail})
