"""Which replica is asked: each in its turn, and there where the pixels lie already."""

from collections import Counter
from collections.abc import AsyncIterator

import pytest

from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.errors import TritonNotReady
from gateway.triton.replicas import Replica, ReplicaSet
from gateway.triton.shared_memory import Region
from gateway.triton.slots import PAGE_BYTES

SERVED = ("m", 1)


@pytest.fixture(params=[2, 3, 4])
async def replicas(request: pytest.FixtureRequest) -> AsyncIterator[ReplicaSet]:
    """So many replicas that are ready; nobody listens at their addresses."""
    known = ReplicaSet()
    for number in range(request.param):
        replica = Replica(f"r{number}", TritonEndpoint("127.0.0.1:9", "127.0.0.1:9"))
        replica.live, replica.ready = True, frozenset({SERVED})
        known.replicas.append(replica)
    yield known
    for replica in known:
        replica.client.sharing.region = None
    await known.close()


async def test_one_request_after_another_is_shared_among_all(replicas: ReplicaSet) -> None:
    """With and without shared memory, of any number of replicas each has the same share."""
    for shared in (False, True):
        asked: Counter[str] = Counter()
        for replica in replicas:
            replica.client.sharing.region = Region(PAGE_BYTES) if shared else None
        for _ in range(12 * len(replicas.replicas)):
            with replicas.lease(SERVED) as lease:
                assert lease.region is lease._replica.client.region
                assert (lease.region is not None) == shared
                asked[lease._replica.name] += 1
        assert set(asked.values()) == {12}
        assert len(asked) == len(replicas.replicas)


async def test_a_busy_replica_is_passed_over(replicas: ReplicaSet) -> None:
    """Fewer requests in flight count for more than pixels that lie there already."""
    for replica in replicas:
        replica.client.sharing.region = Region(PAGE_BYTES)
    first, *others = replicas.replicas
    with replicas.lease(SERVED, near=first.client.region) as held:
        assert held._replica is first
        for _ in range(6):
            with replicas.lease(SERVED) as lease:
                assert lease.region is not first.client.region
            with replicas.lease(SERVED, near=first.client.region) as lease:
                assert lease._replica in others


async def test_without_a_ready_replica_there_is_no_lease(replicas: ReplicaSet) -> None:
    """Nobody to ask: the request hears so before its image is decoded."""
    for replica in replicas:
        replica.client.sharing.region = Region(PAGE_BYTES)
        replica.mark_down()
    with pytest.raises(TritonNotReady):
        replicas.lease(SERVED)
