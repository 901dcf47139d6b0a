"""
The registry's rows: models, versions, aliases, what should be loaded, and who changed it.

Every change runs in one transaction that also raises the generation and writes the audit row, so
that a cache can tell that it is stale and a person can tell who made it so.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.errors import VersionConflict, VersionNotFound
from gateway.store.changes import lock_versions, point_alias, record_change
from gateway.store.database import Database
from gateway.store.leases import LeaseStore
from gateway.store.rollout_tables import RolloutRow
from gateway.store.tables import (
    AliasRow,
    DesiredRow,
    ModelRow,
    NumberRow,
    QuarantineRow,
    ReportRow,
    StateRow,
    UnsettledRow,
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
    rollouts: Sequence[RolloutRow] = ()


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
    preprocessing: dict[str, Any] | None = None
    labels: tuple[str, ...] | None = None
    record_digest: str = ""
    scores: str | None = None
    trial_shape: tuple[int, ...] | None = None
    report: dict[str, Any] | None = None


GONE = "gone"
"""The source of a model that is shown to nobody, until whoever brought it brings it back."""


class VersionStore:
    """
    Reads and changes the registry's rows. Every method may raise StoreUnavailable.

    Attributes:
        leases: Those of the same database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.leases = LeaseStore(database)

    async def data_version(self) -> int | None:
        """See `Database.data_version`."""
        return await self._database.data_version()

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
                rollouts=(
                    await session.scalars(
                        select(RolloutRow).where(RolloutRow.live_model.is_not(None))
                    )
                ).all(),
            )

    async def add_version(
        self, new: NewVersion, *, actor: str, aliases: Iterable[str] = ()
    ) -> None:
        """
        Record a published version, and its model if it is the first. The first version becomes
        champion; `aliases` move to this one whatever they named before.

        Raises:
            VersionConflict: The version, or a model whose name differs only in case, exists.
        """
        try:
            await self._add_version(new, actor, aliases)
        except IntegrityError as error:
            raise VersionConflict(
                f"Version {new.version} of {new.model}, or a model whose name differs from that in "
                "nothing but case, is registered already."
            ) from error

    async def _add_version(self, new: NewVersion, actor: str, aliases: Iterable[str]) -> None:
        async with self._database.write() as session:
            # The lock of whoever claims a number: see `RegistrationStore.claim`.
            await session.get(NumberRow, new.model, with_for_update=True)
            now_s = time.time()
            model = await session.get(ModelRow, new.model)
            # One that is gone from its source begins anew.
            first = model is None or model.source == GONE
            if model is not None and first:
                model.source = new.source
            elif model is None:
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
                    preprocessing=new.preprocessing,
                    labels=None if new.labels is None else list(new.labels),
                    record_digest=new.record_digest,
                    scores=new.scores,
                    trial_shape=None if new.trial_shape is None else list(new.trial_shape),
                )
            )
            await session.flush()
            if new.report is not None:
                session.add(ReportRow(model=new.model, version=new.version, report=new.report))
            await _settle(session, new.model, new.version)
            for alias in {"champion", *aliases} if first else set(aliases):
                await point_alias(session, new.model, alias, new.version)
            details = {"version": new.version, "digest": new.digest, "source": new.source}
            await record_change(session, actor, "register", new.model, details)

    async def highest_number(self, model: str) -> int:
        """Tell the highest number that a name has ever had, deleted ones too; 0 for none."""
        async with self._database.read() as session:
            row = await session.get(NumberRow, model)
            return 0 if row is None else row.highest

    async def set_desired(
        self, model: str, *, add: Iterable[int] = (), remove: Iterable[int] = (), actor: str
    ) -> int:
        """
        Change which versions of a model should be loaded. Adding one lifts its quarantine.

        Returns:
            How many were removed.

        Raises:
            VersionNotFound: One to be added was deleted meanwhile; nothing was changed.
        """
        adding, removing = set(add), set(remove)
        async with self._database.write() as session:
            gone = adding - await lock_versions(session, model, adding)
            if gone:
                raise VersionNotFound(model, min(gone))
            now_s = time.time()
            for version in sorted(adding):
                await session.merge(DesiredRow(model=model, version=version, since_s=now_s))
            deleted = await session.execute(
                delete(DesiredRow).where(
                    DesiredRow.model == model, DesiredRow.version.in_(removing)
                )
            )
            removed = cast("CursorResult[Any]", deleted).rowcount
            await session.execute(
                delete(QuarantineRow).where(
                    QuarantineRow.model == model, QuarantineRow.version.in_(adding)
                )
            )
            if adding:
                await record_change(session, actor, "load", model, {"versions": sorted(adding)})
            if removed:
                await record_change(session, actor, "unload", model, {"versions": sorted(removing)})
            return removed

    async def replace_champion(
        self, model: str, version: int, *, swap_desired: bool, actor: str
    ) -> None:
        """
        Move the alias `champion` to a version; with `swap_desired` the new one should be loaded and
        the old one should not. One transaction.

        Raises:
            VersionNotFound: The version was deleted meanwhile; nothing was changed.
        """
        async with self._database.write() as session:
            if not await lock_versions(session, model, {version}):
                raise VersionNotFound(model, version)
            row = await session.get(AliasRow, (model, "champion"))
            previous = row.version if row else None
            await point_alias(session, model, "champion", version)
            if swap_desired:
                await session.merge(DesiredRow(model=model, version=version, since_s=time.time()))
                await session.execute(
                    delete(DesiredRow).where(
                        DesiredRow.model == model, DesiredRow.version == previous
                    )
                )
            details = {"alias": "champion", "from": previous, "to": version}
            await record_change(session, actor, "alias", model, details)

    async def set_source(self, model: str, source: str | None) -> bool:
        """
        Say where a model comes from; None: it is gone from there. Its versions stay.

        Returns:
            Whether there is such a model, and it came from elsewhere before.
        """
        async with self._database.write() as session:
            row = await session.get(ModelRow, model, with_for_update=True)
            wanted = source or GONE
            if row is None or row.source == wanted:
                return False
            details = {"from": row.source, "to": wanted}
            row.source = wanted
            await record_change(session, "gateway", "source", model, details)
            return True

    async def replace_configs(self, model: str, configs: Mapping[int, str], *, actor: str) -> None:
        """Record other configurations to load versions of a model with; one transaction."""
        async with self._database.write() as session:
            for version, config in configs.items():
                await session.execute(
                    update(VersionRow)
                    .where(VersionRow.model == model, VersionRow.version == version)
                    .values(config=config)
                )
            await record_change(session, actor, "configure", model, {"versions": sorted(configs)})

    async def quarantine(self, model: str, version: int, reason: str) -> None:
        """Keep a version out until somebody loads it again; nothing if it was deleted meanwhile."""
        async with self._database.write() as session:
            if not await lock_versions(session, model, {version}):
                return
            await session.merge(
                QuarantineRow(model=model, version=version, reason=reason, since_s=time.time())
            )
            details = {"version": version, "reason": reason}
            await record_change(session, "gateway", "quarantine", model, details)


async def _settle(session: AsyncSession, model: str, version: int) -> None:
    """Take note that a version's number is given, and that its record now matches its files."""
    number = await session.get(NumberRow, model)
    if number is None:
        session.add(NumberRow(model=model, highest=version))
    else:
        number.highest = max(number.highest, version)
    await session.execute(
        delete(UnsettledRow).where(UnsettledRow.model == model, UnsettledRow.version == version)
    )


async def _generation(session: AsyncSession) -> int:
    return (await session.execute(select(StateRow.generation).where(StateRow.id == 1))).scalar_one()
