"""
Leases: who may do a job that only one gateway at a time may do.

Time is the database's, so that gateways whose clocks differ agree on it. SQLite's is the clock of
its host, which may be set back: a lease that would last longer from now than leases are given for
was taken before that, and has run out.
"""

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.store.database import Database
from gateway.store.rollout_tables import LeaseRow


class LeaseStore:
    """Reads and changes those rows. Every method may raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def hold(self, name: str, owner: str, *, for_s: float) -> bool:
        """Take or extend a lease that is free, run out or one's own; False if it is another's."""
        try:
            async with self._database.write() as session:
                now_s = await _now_s(session)
                row = await session.get(LeaseRow, name, with_for_update=True)
                if row is None:
                    session.add(LeaseRow(name=name, owner=owner, until_s=now_s + for_s))
                    return True
                if row.owner != owner and now_s < row.until_s <= now_s + for_s:
                    return False
                row.owner, row.until_s = owner, now_s + for_s
                return True
        except IntegrityError:
            return False

    async def release(self, name: str, owner: str) -> None:
        """Give a lease back, if it is the owner's."""
        async with self._database.write() as session:
            await session.execute(
                delete(LeaseRow).where(LeaseRow.name == name, LeaseRow.owner == owner)
            )


async def _now_s(session: AsyncSession) -> float:
    """Tell the database's time, Unix seconds."""
    if session.get_bind().dialect.name == "sqlite":
        now = (func.julianday("now") - 2440587.5) * 86_400.0
    else:
        now = func.extract("epoch", func.clock_timestamp())
    return float((await session.execute(select(now))).scalar_one())
