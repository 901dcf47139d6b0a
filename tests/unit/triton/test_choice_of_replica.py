"""Which replica is asked: each in its turn, and there where the pixels lie already."""

from collections import Counter
from collections.abc import AsyncIterator

import pytest

from gateway.triton.endpoint import TritonEndpoint
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
        replica.client.region = None
    await known.close()


async def test_one_request_after_another_is_shared_among_all(replicas: ReplicaSet) -> None:
    """With and without shared memory, of any number of replicas each has the same share."""
    for shared in (False, True):
        asked: Counter[str] = Counter()
        for replica in replicas:
            replica.client.region = Region(PAGE_BYTES) if shared else None
        for _ in range(12 * len(replicas.replicas)):
            region = replicas.region(SERVED)
            chosen = replicas._least_busy(replicas.serving(SERVED), region)
            assert not shared or chosen.client.region is region
            asked[chosen.name] += 1
        assert set(asked.values()) == {12}
        assert len(asked) == len(replicas.replicas)


async def test_a_busy_replica_is_passed_over(replicas: ReplicaSet) -> None:
    """Fewer requests in flight count for more than pixels that lie there already."""
    for replica in replicas:
        replica.client.region = Region(PAGE_BYTES)
    first, *others = replicas.replicas
    first.in_flight[SERVED] += 1
    for _ in range(6):
        region = replicas.region(SERVED)
        assert region is not first.client.region
        chosen = replicas._least_busy(replicas.serving(SERVED), first.client.region)
        assert chosen in others


async def test_without_a_ready_replica_there_is_no_region(replicas: ReplicaSet) -> None:
    """Nobody to ask: pixels are drawn anywhere."""
    for replica in replicas:
        replica.client.region = Region(PAGE_BYTES)
        replica.mark_down()
    assert replicas.region(SERVED) is None
