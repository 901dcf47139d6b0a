"""How long a replica may take before another one is asked."""

import asyncio
import time

from gateway.triton.client import TritonClient
from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.errors import TritonSlow
from gateway.triton.patience import Patience
from gateway.triton.replica import Replica
from gateway.triton.replicas import ReplicaSet

FAST, SLOW = ("fast", 1), ("slow", 1)


def _experienced() -> Patience:
    patience = Patience()
    for _ in range(200):
        patience.answered(FAST, 0.01)
        patience.answered(SLOW, 2.0)
    return patience


def test_what_is_long_is_learned() -> None:
    """A version that usually takes long is waited for; one that nobody knows is too."""
    patience = _experienced()
    assert patience.limit_s(FAST) == 1.0
    limit_s = patience.limit_s(SLOW)
    assert limit_s is not None
    assert 19.0 < limit_s < 21.0
    assert patience.limit_s(("new", 1)) is None


def test_few_are_asked_anew() -> None:
    """Where nothing is answered in time, only a share is asked twice; answers earn it back."""
    patience, lost = _experienced(), 0
    while patience.limit_s(FAST) is not None:
        patience.lost()
        lost += 1
    assert lost == 20
    for _ in range(100):
        patience.answered(FAST, 0.01)
    while patience.limit_s(FAST) is not None:
        patience.lost()
        lost += 1
    assert lost in {29, 30}


def _two() -> ReplicaSet:
    replicas = ReplicaSet()
    for number in range(2):
        replica = Replica(f"r{number}", TritonEndpoint("127.0.0.1:9", "127.0.0.1:9"))
        replica.live, replica.ready = True, frozenset({FAST})
        replicas.replicas.append(replica)
    replicas.patience = _experienced()
    return replicas


async def test_a_request_leaves_a_replica_that_hangs() -> None:
    """The other one answers, soon; nothing stays counted, and the trouble is known."""
    replicas = _two()
    heard: list[Exception] = []
    began_s = time.monotonic()
    with replicas.lease(FAST) as lease:
        hung = lease._replica
        hung.watcher.trouble = lambda *told: heard.append(told[-1])  # type: ignore[method-assign]

        async def ask(client: TritonClient) -> str:
            if client is hung.client:
                await asyncio.Event().wait()
            return "yes"

        assert await lease.ask(ask) == "yes"
    assert 0.9 < time.monotonic() - began_s < 10.0
    assert [type(error) for error in heard] == [TritonSlow]
    assert all(each.leases == 0 and each.busy == 0 for each in replicas)
    await replicas.close()


async def test_where_no_other_could_answer_it_is_waited_for() -> None:
    """One replica alone may take as long as the request may."""
    replicas = _two()
    replicas.replicas[1].live = False
    with replicas.lease(FAST) as lease:

        async def ask(client: TritonClient) -> str:  # noqa: ARG001
            await asyncio.sleep(1.5)
            return "late"

        assert await lease.ask(ask) == "late"
    await replicas.close()
