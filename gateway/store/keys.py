"""
The rows of keys. A change raises the registry's generation and writes the audit row in the same
transaction, so that every process reads the keys anew when it reads the catalog.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.errors import KeyExists, KeyNotFound, LastAdminKey
from gateway.store.access_tables import KeyRow
from gateway.store.changes import record_change
from gateway.store.database import Database

_ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key that is to be stored. Times are UTC, in seconds since 1970."""

    id: str
    name: str
    role: str
    models: tuple[str, ...]
    digest: bytes = field(repr=False)
    pepper: str
    expires_at_s: float | None
    rate_per_s: float | None
    in_flight: int | None
    batch: bool


class KeyStore:
    """Reads and changes keys. Every method may raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read_all(self) -> Sequence[KeyRow]:
        """Read all keys, revoked and expired ones too, the oldest first."""
        async with self._database.read() as session:
            return (await session.scalars(select(KeyRow).order_by(KeyRow.created_at_s))).all()

    async def add(self, key: KeyRecord, *, actor: str, admin_elsewhere: bool) -> KeyRow:
        """
        Store a new key.

        Args:
            key: The key.
            actor: Who made it.
            admin_elsewhere: Keys can be managed without an admin's key of this table, too.

        Raises:
            KeyExists: A key of that name is in force.
            LastAdminKey: It is the first key and no admin's.
        """
        row = KeyRow(
            id=key.id,
            name=key.name,
            live_name=key.name,
            role=key.role,
            models=list(key.models),
            digest=key.digest,
            pepper=key.pepper,
            created_at_s=time.time(),
            created_by=actor,
            expires_at_s=key.expires_at_s,
            rate_per_s=key.rate_per_s,
            in_flight=key.in_flight,
            batch=key.batch,
        )
        try:
            async with self._database.write() as session:
                session.add(row)
                await session.flush()
                if not admin_elsewhere and not await _admins(session):
                    raise LastAdminKey(
                        "The first key closes the gateway to everybody else, so it must be an "
                        "admin's, without an expiry and for all models."
                    )
                details = {"key": key.name, "id": key.id, "role": key.role}
                details["models"] = ", ".join(key.models) or "*"
                await record_change(session, actor, "key_create", "", details)
        except IntegrityError as error:
            raise KeyExists(f"A key named {key.name} is in force already.") from error
        return row

    async def revoke(self, name: str, *, actor: str, admin_elsewhere: bool) -> KeyRow:
        """
        Put a key out of force, for good.

        Raises:
            KeyNotFound: No key in force has that name or id.
            LastAdminKey: Nobody could manage keys any more.
        """
        async with self._database.write() as session:
            row = await _in_force(session, name)
            row.revoked_at_s, row.live_name = time.time(), None
            await session.flush()
            if not admin_elsewhere and not await _admins(session):
                raise LastAdminKey(
                    "This is the last admin's key that does not expire: nobody could manage keys "
                    "any more."
                )
            details = {"key": row.name, "id": row.id}
            await record_change(session, actor, "key_revoke", "", details)
        return row

    async def rotate(
        self, name: str, *, digest: bytes, pepper: str, grace_s: float, actor: str
    ) -> KeyRow:
        """
        Give a key another secret; the old one is good for `grace_s` seconds more.

        Raises:
            KeyNotFound: No key in force has that name or id.
        """
        async with self._database.write() as session:
            row = await _in_force(session, name)
            if row.pepper == pepper and grace_s > 0:
                row.previous_digest, row.previous_until_s = row.digest, time.time() + grace_s
            else:
                row.previous_digest = row.previous_until_s = None
            row.digest, row.pepper = digest, pepper
            details = {"key": row.name, "id": row.id, "grace_s": grace_s}
            await record_change(session, actor, "key_rotate", "", details)
        return row

    async def in_force(self, name: str) -> KeyRow:
        """
        Read a key by its name or id.

        Raises:
            KeyNotFound: No key in force has it.
        """
        async with self._database.read() as session:
            return await _in_force(session, name)


async def _in_force(session: AsyncSession, name: str) -> KeyRow:
    row = await session.scalar(
        select(KeyRow).where(
            KeyRow.revoked_at_s.is_(None), or_(KeyRow.live_name == name, KeyRow.id == name)
        )
    )
    if row is None:
        raise KeyNotFound(name)
    return row


async def _admins(session: AsyncSession) -> int:
    """Count the keys that can manage keys and will go on doing so."""
    rows = await session.scalars(
        select(KeyRow).where(
            KeyRow.role == _ADMIN, KeyRow.revoked_at_s.is_(None), KeyRow.expires_at_s.is_(None)
        )
    )
    return sum(not row.models for row in rows)
