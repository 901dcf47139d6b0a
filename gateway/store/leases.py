"""
Leases: who may do a job that only one gateway at a time may do.

Time is the database's, so that gateways whose clocks differ agree on it. SQLite's is the clock of
its host, which may be set back: a lease that would last longer from now than leases are given for
was taken before that, and has run out.

A lease has a fencing number, which grows whenever the lease changes hands. Whoever extends a lease
and is told another number has lost it in between.
"""

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.store.database import Database
from gateway.store.rollout_tables import LeaseRow

# Far longer than any gateway could stand still and still believe that it holds a lease.
_FORGOTTEN_S = 86_400.0


class LeaseStore:
    """Reads and changes those rows. Every method may raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def hold(self, name: str, owner: str, *, for_s: float) -> int:
        """
        Take or extend a lease that is free, run out or one's own.

        Returns:
            Its fencing number, from 1; 0 if it is another's.
        """
        try:
            async with self._database.write() as session:
                now_s = await _now_s(session)
                row = await session.get(LeaseRow, name, with_for_update=True)
                if row is None:
                    await session.execute(
                        delete(LeaseRow).where(LeaseRow.until_s < now_s - _FORGOTTEN_S)
                    )
                    session.add(LeaseRow(name=name, owner=owner, until_s=now_s + for_s, number=1))
                    return 1
                changes_hands = row.owner != owner
                if changes_hands and now_s < row.until_s <= now_s + for_s:
                    return 0
                # A lease of a release that did not number them has the number 0.
                row.number = max(1, row.number + changes_hands)
                row.owner, row.until_s = owner, now_s + for_s
                return row.number
        except IntegrityError:
            return 0

    async def release(self, name: str, owner: str) -> None:
        """Give a lease back, if it is the owner's. Its number stays."""
        async with self._database.write() as session:
            await session.execute(
                update(LeaseRow)
                .where(LeaseRow.name == name, LeaseRow.owner == owner)
                .values(until_s=await _now_s(session))
            )


async def _now_s(session: AsyncSession) -> float:
    """Tell the database's time, Unix seconds."""
    if session.get_bind().dialect.name == "sqlite":
        now = (func.julianday("now") - 2440587.5) * 86_400.0
    else:
        now = func.extract("epoch", func.clock_timestamp())
    return float((await session.execute(select(now))).scalar_one())
