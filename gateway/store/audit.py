"""
The audit log: every change of state, by whom, from where, and why. Rows are only ever added; the
database itself refuses to change or delete one.

Rows are written in the transaction of the change that they tell of (`versions.record_change`).
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from sqlalchemy import select

from gateway.store.database import Database
from gateway.store.tables import AuditRow


@dataclass(frozen=True, slots=True)
class Origin:
    """
    Where a change comes from.

    Attributes:
        source: The caller's address; "" for what the gateway does by itself.
        request_id: The request that asked for it; "" likewise.
    """

    source: str = ""
    request_id: str = ""


NOWHERE = Origin()
"""Of what the gateway does by itself."""
ORIGIN: ContextVar[Origin] = ContextVar("origin", default=NOWHERE)
"""Of the request that is being answered; rows that are written meanwhile take it over."""


@contextlib.contextmanager
def acting_for(origin: Origin) -> Iterator[None]:
    """Let rows that are written in the block say this origin."""
    token = ORIGIN.set(origin)
    try:
        yield
    finally:
        ORIGIN.reset(token)


class AuditStore:
    """Reads the log. Every method may raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(
        self,
        *,
        after: int = 0,
        start_s: float | None = None,
        end_s: float | None = None,
        actor: str | None = None,
        action: str | None = None,
        model: str | None = None,
        limit: int,
    ) -> Sequence[AuditRow]:
        """
        Read the newest rows, the oldest of them first; with `after` the next ones after that id.

        Args:
            after: Only rows with a higher id; 0 for the end of the log.
            start_s, end_s: Only rows of this time, UTC in seconds, the end excluded.
            actor, action, model: Only rows of these.
            limit: How many at most.
        """
        query = select(AuditRow).limit(limit)
        if start_s is not None:
            query = query.where(AuditRow.at_s >= start_s)
        if end_s is not None:
            query = query.where(AuditRow.at_s < end_s)
        for column, value in (
            (AuditRow.actor, actor),
            (AuditRow.action, action),
            (AuditRow.model, model),
        ):
            if value is not None:
                query = query.where(column == value)
        query = (
            query.where(AuditRow.id > after).order_by(AuditRow.id)
            if after
            else query.order_by(AuditRow.id.desc())
        )
        async with self._database.read() as session:
            rows = (await session.scalars(query)).all()
        return rows if after else list(reversed(rows))
