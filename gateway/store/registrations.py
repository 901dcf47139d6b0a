"""
The rows behind registration: claims of version numbers, reports, aliases that are moved, deletions.

A claim is written before the first file of a version is touched and deleted with the transaction
that records it, so that whatever a crash leaves behind is named here. Removing a version goes the
same way backwards.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.errors import AliasMoved, AliasNotFound, NameConflict, VersionInUse
from gateway.store.changes import lock_versions, point_alias, record_change
from gateway.store.database import Database
from gateway.store.rollout_tables import RolloutRow
from gateway.store.tables import (
    AliasRow,
    DesiredRow,
    ModelRow,
    NumberRow,
    QuarantineRow,
    ReportRow,
    UnsettledRow,
    VersionRow,
)

_CLAIM_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Claim:
    """
    The outcome of a claim.

    Attributes:
        version: The number.
        state: `claimed`: it is the caller's to publish. `registered`: these bytes with this record
            are that version already. `pending`: somebody is publishing them.
        owner: Who, if it is pending.
    """

    version: int
    state: str
    owner: str = ""


class RegistrationStore:
    """Reads and changes those rows. Every method may raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(
        self, model: str, *, source_digest: str, record_digest: str, owner: str, at_least: int
    ) -> Claim:
        """
        Claim the next number of a model, unless these bytes with this record have one.

        Args:
            model: The model.
            source_digest, record_digest: Of the upload, and of its record and labels.
            owner: The claiming gateway.
            at_least: The lowest number that is free in the repository.

        Raises:
            NameConflict: A model exists whose name differs only in case.
        """
        for attempt in range(_CLAIM_ATTEMPTS):
            try:
                return await self._claim(model, source_digest, record_digest, owner, at_least)
            except IntegrityError:
                # Another gateway claimed the first number of this name at the same moment.
                if attempt == _CLAIM_ATTEMPTS - 1:
                    raise
        raise AssertionError

    async def _claim(
        self, model: str, source_digest: str, record_digest: str, owner: str, at_least: int
    ) -> Claim:
        async with self._database.write() as session:
            # The row is the lock: claims of one name, and records of what was claimed, go one after
            # the other, so that what is asked below is one moment's truth.
            number = await session.get(NumberRow, model, with_for_update=True)
            await _check_case(session, model)
            upload = model, source_digest, record_digest
            known = await _recorded(session, *upload) or await _pending(session, *upload)
            if known is not None:
                return known
            if number is None:
                number = NumberRow(model=model, highest=0)
                session.add(number)
            number.highest = max(number.highest + 1, at_least)
            session.add(
                UnsettledRow(
                    model=model,
                    version=number.highest,
                    source_digest=source_digest,
                    record_digest=record_digest,
                    owner=owner,
                    since_s=time.time(),
                )
            )
            return Claim(number.highest, "claimed")

    async def release(self, model: str, version: int) -> None:
        """
        Give a claim up; none of the version's files is in the repository. If it was the last number
        given and nobody ever saw it, it is free again.
        """
        async with self._database.write() as session:
            number = await session.get(NumberRow, model, with_for_update=True)
            recorded = await session.get(VersionRow, (model, version))
            row = await session.get(UnsettledRow, (model, version))
            if row is None:
                return
            never_seen = recorded is None and row.source_digest != ""
            if never_seen and number is not None and number.highest == version:
                number.highest -= 1
            await session.delete(row)

    async def unsettled(self, model: str | None = None) -> Sequence[UnsettledRow]:
        """List the claims, of one model or all."""
        async with self._database.read() as session:
            query = select(UnsettledRow)
            if model is not None:
                query = query.where(UnsettledRow.model == model)
            return (await session.scalars(query)).all()

    async def is_recorded(self, model: str, version: int) -> bool:
        """Whether a version has a record."""
        async with self._database.read() as session:
            return await session.get(VersionRow, (model, version)) is not None

    async def report(self, model: str, version: int) -> dict[str, Any] | None:
        """Read the validation report of a version; None if it was never validated here."""
        async with self._database.read() as session:
            row = await session.get(ReportRow, (model, version))
            return None if row is None else row.report

    async def delete_versions(
        self, model: str, versions: Sequence[int], *, whole: bool, owner: str, actor: str
    ) -> None:
        """
        Delete the records of versions, with `whole` the model too, and claim their files.

        Raises:
            VersionInUse: Something holds one of them; nothing was deleted.
        """
        try:
            async with self._database.write() as session:
                # Whoever loads one, or begins a rollout, does so before this or not at all.
                await lock_versions(session, model, versions, for_change=True)
                await _check_free(session, model, versions)
                for row in (QuarantineRow, ReportRow, VersionRow):
                    await session.execute(
                        delete(row).where(row.model == model, row.version.in_(versions))
                    )
                for version in versions:
                    session.add(
                        UnsettledRow(
                            model=model,
                            version=version,
                            source_digest="",
                            record_digest="",
                            owner=owner,
                            since_s=time.time(),
                        )
                    )
                if whole:
                    await session.execute(delete(ModelRow).where(ModelRow.name == model))
                await record_change(session, actor, "delete", model, {"versions": list(versions)})
        except IntegrityError as error:
            raise VersionInUse(f"A version of {model} is in use.") from error

    async def point_alias(
        self, model: str, alias: str, version: int, *, expected: int | None, actor: str
    ) -> int:
        """
        Move an alias, or make it.

        Args:
            model, alias, version: What points where.
            expected: The alias's generation as the caller knows it, 0 for "not there"; None: any.
            actor: Who does it.

        Returns:
            Its generation now.

        Raises:
            AliasMoved: Its generation is another one.
            VersionInUse: The version was deleted meanwhile.
        """
        try:
            async with self._database.write() as session:
                row = await session.get(AliasRow, (model, alias), with_for_update=True)
                _check_generation(row, alias, expected)
                previous = None if row is None else row.version
                generation = await point_alias(session, model, alias, version)
                details = {"alias": alias, "from": previous, "to": version}
                await record_change(session, actor, "alias", model, details)
                return generation
        except IntegrityError as error:
            raise VersionInUse(f"Version {version} of {model} is being deleted.") from error

    async def drop_alias(self, model: str, alias: str, *, expected: int | None, actor: str) -> None:
        """
        Delete an alias.

        Raises:
            AliasNotFound, AliasMoved: It is not there, or not where the caller thought.
        """
        async with self._database.write() as session:
            row = await session.get(AliasRow, (model, alias), with_for_update=True)
            if row is None:
                raise AliasNotFound(model, alias)
            _check_generation(row, alias, expected)
            await session.delete(row)
            details = {"alias": alias, "from": row.version, "to": None}
            await record_change(session, actor, "alias", model, details)


async def _check_case(session: AsyncSession, model: str) -> None:
    other = await session.scalar(
        select(ModelRow.name).where(
            ModelRow.folded_name == model.casefold(), ModelRow.name != model
        )
    )
    if other is not None:
        raise NameConflict(f"{model} differs from the model {other} in nothing but case.")


async def _recorded(
    session: AsyncSession, model: str, source_digest: str, record_digest: str
) -> Claim | None:
    version = await session.scalar(
        select(VersionRow.version)
        .where(
            VersionRow.model == model,
            VersionRow.source_digest == source_digest,
            VersionRow.record_digest == record_digest,
        )
        .order_by(VersionRow.version)
    )
    return None if version is None else Claim(version, "registered")


async def _pending(
    session: AsyncSession, model: str, source_digest: str, record_digest: str
) -> Claim | None:
    pending = await session.scalar(
        select(UnsettledRow).where(
            UnsettledRow.model == model,
            UnsettledRow.source_digest == source_digest,
            UnsettledRow.record_digest == record_digest,
        )
    )
    return None if pending is None else Claim(pending.version, "pending", pending.owner)


async def _check_free(session: AsyncSession, model: str, versions: Sequence[int]) -> None:
    alias = await session.scalar(
        select(AliasRow).where(AliasRow.model == model, AliasRow.version.in_(versions))
    )
    if alias is not None:
        raise VersionInUse(
            f"Alias {alias.alias} of {model} names version {alias.version}: move or delete it."
        )
    desired = await session.scalar(
        select(DesiredRow).where(DesiredRow.model == model, DesiredRow.version.in_(versions))
    )
    if desired is not None:
        raise VersionInUse(f"Version {desired.version} of {model} is loaded: unload it first.")
    rollout = await session.scalar(select(RolloutRow).where(RolloutRow.live_model == model))
    if rollout is not None and {rollout.champion, rollout.challenger} & set(versions):
        raise VersionInUse(f"Rollout {rollout.id} of {model} has not ended: end it first.")


def _check_generation(row: AliasRow | None, alias: str, expected: int | None) -> None:
    found = 0 if row is None else row.generation
    if expected is not None and expected != found:
        where = "is not there" if row is None else f"names version {row.version}"
        raise AliasMoved(f"Alias {alias} {where} (generation {found}, not {expected}).")
