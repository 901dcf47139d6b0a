"""
The rows of what a rollout saw: verdicts, counts by step and gateway, samples of disagreement.

Verdicts are thinned with age: of those that are more than 256 checks old every second one stays, of
those more than 512 old every fourth, and so on; failed ones all stay. A week of checks every ten
seconds leaves about fifteen hundred.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.store.database import Database
from gateway.store.rollout_tables import DisagreementRow, ObservationRow, VerdictRow

_KEPT_WHOLE = 256
_MOST_THINNINGS = 20


@dataclass(frozen=True, slots=True)
class Sample:
    """
    A request that champion and challenger answered differently.

    Attributes:
        request_id: The request.
        at_s: When, Unix seconds.
        image_digest: Of the image's file, "sha256:…".
        image_kept: Whether the image itself is stored.
        champion, challenger: Category and largest scores of each.
    """

    request_id: str
    at_s: float
    image_digest: str
    image_kept: bool
    champion: Mapping[str, Any]
    challenger: Mapping[str, Any]


class StepDocument(NamedTuple):
    """What one gateway counted in one step, and the copies that it dropped."""

    stage: int
    step: int
    counts: dict[str, Any]
    dropped: int


class EvidenceStore:
    """Reads and changes those rows. Every method may raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def verdicts(
        self, rollout: str, *, limit: int, before: int | None = None
    ) -> list[dict[str, Any]]:
        """
        Read the newest verdicts of a rollout, the oldest of them first.

        Args:
            rollout: Its id.
            limit: At most so many.
            before: Only those with a smaller number.
        """
        async with self._database.read() as session:
            query = select(VerdictRow.verdict).where(VerdictRow.rollout == rollout)
            if before is not None:
                query = query.where(VerdictRow.number < before)
            newest = (
                await session.scalars(query.order_by(VerdictRow.id.desc()).limit(limit))
            ).all()
            return list(reversed(newest))

    async def observations(self, rollout: str) -> Sequence[StepDocument]:
        """Read the counts of all steps, one document for each step and gateway."""
        async with self._database.read() as session:
            query = select(
                ObservationRow.stage,
                ObservationRow.step,
                ObservationRow.counts,
                ObservationRow.dropped,
            ).where(ObservationRow.rollout == rollout)
            return [StepDocument(*row) for row in await session.execute(query)]

    async def put_observations(
        self,
        gateway: str,
        counts: Mapping[tuple[str, int, int], tuple[Mapping[str, Any], int]],
        disagreements: Sequence[Mapping[str, Any]],
    ) -> None:
        """
        Store what a gateway has counted since it started, by rollout, stage and step, in place of
        what it stored before; and new samples of disagreement.
        """
        async with self._database.write() as session:
            for (rollout, stage, step), (document, dropped) in counts.items():
                await session.merge(
                    ObservationRow(
                        rollout=rollout,
                        stage=stage,
                        step=step,
                        gateway=gateway,
                        counts=dict(document),
                        dropped=dropped,
                    )
                )
            session.add_all(DisagreementRow(**sample) for sample in disagreements)

    async def samples(self, rollout: str, *, limit: int) -> Sequence[Sample]:
        """Read samples of requests that the two versions answered differently, the newest first."""
        async with self._database.read() as session:
            # Not the images: each may have megabytes.
            query = select(
                DisagreementRow.request_id,
                DisagreementRow.at_s,
                DisagreementRow.image_digest,
                DisagreementRow.image.is_not(None),
                DisagreementRow.champion,
                DisagreementRow.challenger,
            ).where(DisagreementRow.rollout == rollout)
            query = query.order_by(DisagreementRow.id.desc()).limit(limit)
            return [Sample(*row) for row in await session.execute(query)]

    async def sample_image(self, rollout: str, digest: str) -> bytes | None:
        """Read the image of a sample; None if there is none, or if it was not kept."""
        async with self._database.read() as session:
            query = select(DisagreementRow.image).where(
                DisagreementRow.rollout == rollout,
                DisagreementRow.image_digest == digest,
                DisagreementRow.image.is_not(None),
            )
            return (await session.scalars(query.limit(1))).first()


async def add_verdict(session: AsyncSession, rollout: str, verdict: Mapping[str, Any]) -> None:
    """Store a verdict, and now and then thin the older ones."""
    number = int(verdict["number"])
    session.add(
        VerdictRow(
            rollout=rollout,
            number=number,
            at_s=verdict["at_s"],
            outcome=verdict["outcome"],
            verdict=dict(verdict),
        )
    )
    if number % _KEPT_WHOLE:
        return
    for power in range(_MOST_THINNINGS):
        older_than = number - (_KEPT_WHOLE << power)
        if older_than <= 0:
            return
        await session.execute(
            delete(VerdictRow).where(
                VerdictRow.rollout == rollout,
                VerdictRow.number < older_than,
                VerdictRow.number % (2 << power) != 0,
                VerdictRow.outcome != "Failed",
            )
        )
