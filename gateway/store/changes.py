"""Parts of transactions that change the registry; a change is whole with `record_change` in it."""

import time
from collections.abc import Iterable
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.store.audit import ORIGIN
from gateway.store.tables import AliasRow, AuditRow, StateRow, VersionRow


async def lock_versions(
    session: AsyncSession, model: str, versions: Iterable[int], *, for_change: bool = False
) -> set[int]:
    """
    Hold versions until the transaction ends: nobody deletes them, and with `for_change` nobody
    begins to use them either.

    Returns:
        Which of them there are.
    """
    numbers = sorted(versions)
    if not numbers:
        return set()
    query = (
        select(VersionRow.version)
        .where(VersionRow.model == model, VersionRow.version.in_(numbers))
        .order_by(VersionRow.version)
        .with_for_update(read=not for_change, key_share=not for_change)
    )
    return set(await session.scalars(query))


async def point_alias(session: AsyncSession, model: str, alias: str, version: int) -> int:
    """Let an alias name a version, in a transaction; return the alias's generation."""
    row = await session.get(AliasRow, (model, alias))
    if row is None:
        row = AliasRow(model=model, alias=alias, version=version, generation=1)
        session.add(row)
    else:
        row.version = version
        row.generation += 1
    return row.generation


async def record_change(
    session: AsyncSession, actor: str, action: str, model: str, details: dict[str, Any]
) -> None:
    """Write the audit row of a change and raise the generation, in the change's transaction."""
    origin = ORIGIN.get()
    session.add(
        AuditRow(
            at_s=time.time(),
            actor=actor,
            action=action,
            model=model,
            details=details,
            source=origin.source,
            request_id=origin.request_id,
        )
    )
    await session.execute(
        update(StateRow).where(StateRow.id == 1).values(generation=StateRow.generation + 1)
    )
