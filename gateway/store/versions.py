"""
The registry's rows: models, versions, aliases, what should be loaded, and who changed it.

Every change runs in one transaction that also raises the generation and writes the audit row, so
that a cache can tell that it is stale and a person can tell who made it so.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.store.database import Database
from gateway.store.tables import (
    AliasRow,
    AuditRow,
    DesiredRow,
    ModelRow,
    QuarantineRow,
    StateRow,
    VersionRow,
)


@dataclass(frozen=True, slots=True)
class RegistryRows:
    """All rows of the registry, as of one generation."""

    generation: int
    models: Sequence[ModelRow]
    versions: Sequence[VersionRow]
    aliases: Sequence[AliasRow]
    desired: Sequence[DesiredRow]
    quarantine: Sequence[QuarantineRow]


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version that was published and is to be recorded. Digests read `sha256:…`."""

    model: str
    version: int
    digest: str
    source_digest: str
    size_bytes: int
    signature: dict[str, Any]
    config: str
    changes: tuple[str, ...]
    source: str


class VersionStore:
    """Reads and changes the registry's rows. Every method may raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def generation(self) -> int:
        """Tell the number that grows with every change."""
        async with self._database.read() as session:
            return await _generation(session)

    async def read_all(self) -> RegistryRows:
        """Read every row in one transaction."""
        async with self._database.read() as session:
            return RegistryRows(
                generation=await _generation(session),
                models=(await session.scalars(select(ModelRow))).all(),
                versions=(await session.scalars(select(VersionRow))).all(),
                aliases=(await session.scalars(select(AliasRow))).all(),
                desired=(await session.scalars(select(DesiredRow))).all(),
                quarantine=(await session.scalars(select(QuarantineRow))).all(),
            )

    async def add_version(
        self, new: NewVersion, *, actor: str, aliases: Iterable[str] = ()
    ) -> None:
        """
        Record a published version, and its model if it is the first. The first version becomes
        champion; `aliases` move to this one whatever they named before.

        Raises:
            IntegrityError: The version, or a model whose name differs only in case, exists.
        """
        async with self._database.write() as session:
            now_s = time.time()
            first = await session.get(ModelRow, new.model) is None
            if first:
                session.add(
                    ModelRow(
                        name=new.model,
                        folded_name=new.model.casefold(),
                        source=new.source,
                        created_at_s=now_s,
                    )
                )
                await session.flush()
            session.add(
                VersionRow(
                    model=new.model,
                    version=new.version,
                    digest=new.digest,
                    source_digest=new.source_digest,
                    size_bytes=new.size_bytes,
                    signature=new.signature,
                    config=new.config,
                    changes=list(new.changes),
                    source=new.source,
                    created_at_s=now_s,
                )
            )
            await session.flush()
            for alias in {"champion", *aliases} if first else set(aliases):
                await _point_alias(session, new.model, alias, new.version)
            details = {"version": new.version, "digest": new.digest, "source": new.source}
            await _record(session, actor, "register", new.model, details)

    async def set_desired(
        self, model: str, *, add: Iterable[int] = (), remove: Iterable[int] = (), actor: str
    ) -> None:
        """Change which versions of a model should be loaded. Adding one lifts its quarantine."""
        adding, removing = set(add), set(remove)
        async with self._database.write() as session:
            now_s = time.time()
            for version in sorted(adding):
                await session.merge(DesiredRow(model=model, version=version, since_s=now_s))
            await session.execute(
                delete(DesiredRow).where(
                    DesiredRow.model == model, DesiredRow.version.in_(removing)
                )
            )
            await session.execute(
                delete(QuarantineRow).where(
                    QuarantineRow.model == model, QuarantineRow.version.in_(adding)
                )
            )
            if adding:
                await _record(session, actor, "load", model, {"versions": sorted(adding)})
            if removing:
                await _record(session, actor, "unload", model, {"versions": sorted(removing)})

    async def replace_champion(
        self, model: str, version: int, *, swap_desired: bool, actor: str
    ) -> None:
        """
        Move the alias `champion` to a version; with `swap_desired` the new one should be loaded and
        the old one should not. One transaction.
        """
        async with self._database.write() as session:
            row = await session.get(AliasRow, (model, "champion"))
            previous = row.version if row else None
            await _point_alias(session, model, "champion", version)
            if swap_desired:
                await session.merge(DesiredRow(model=model, version=version, since_s=time.time()))
                await session.execute(
                    delete(DesiredRow).where(
                        DesiredRow.model == model, DesiredRow.version == previous
                    )
                )
            details = {"alias": "champion", "from": previous, "to": version}
            await _record(session, actor, "alias", model, details)

    async def quarantine(self, model: str, version: int, reason: str) -> None:
        """Keep a version out until somebody loads it again."""
        async with self._database.write() as session:
            await session.merge(
                QuarantineRow(model=model, version=version, reason=reason, since_s=time.time())
            )
            details = {"version": version, "reason": reason}
            await _record(session, "gateway", "quarantine", model, details)


async def _generation(session: AsyncSession) -> int:
    return (await session.execute(select(StateRow.generation).where(StateRow.id == 1))).scalar_one()


async def _point_alias(session: AsyncSession, model: str, alias: str, version: int) -> None:
    row = await session.get(AliasRow, (model, alias))
    if row is None:
        session.add(AliasRow(model=model, alias=alias, version=version, generation=1))
    else:
        row.version = version
        row.generation += 1


async def _record(
    session: AsyncSession, actor: str, action: str, model: str, details: dict[str, Any]
) -> None:
    session.add(
        AuditRow(at_s=time.time(), actor=actor, action=action, model=model, details=details)
    )
    await session.execute(
        update(StateRow).where(StateRow.id == 1).values(generation=StateRow.generation + 1)
    )
