"""What the replicas say that they computed for each version, without the waiting."""

import asyncio

import structlog

from gateway.triton.errors import TritonError
from gateway.triton.replicas import Replica, ReplicaSet

log = structlog.get_logger(__name__)

_TIMEOUT_S = 2.0


async def computed(replicas: ReplicaSet) -> dict[tuple[str, str, int], tuple[int, float]]:
    """
    Ask every live replica; one that does not answer is left out.

    Returns:
        By replica, model and version: inferences and the seconds that they were computed, since the
        replica started.
    """

    async def ask(replica: Replica) -> dict[tuple[str, str, int], tuple[int, float]]:
        try:
            statistics = await replica.client.statistics(timeout_s=_TIMEOUT_S)
        except TritonError as error:
            log.debug("statistics_unread", replica=replica.name, reason=str(error))
            return {}
        return {
            (replica.name, *served): (seen.inferences, seen.compute_s)
            for served, seen in statistics.items()
        }

    answers = await asyncio.gather(*map(ask, replicas.live()))
    return {key: value for answer in answers for key, value in answer.items()}
