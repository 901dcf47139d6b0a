"""A lease asks one replica and, if that one is at fault, another. It counts while it is held."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from gateway.triton.client import TritonClient
from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.errors import (
    StubLost,
    TritonError,
    TritonFailed,
    TritonNotReady,
    TritonRejected,
    TritonUnreachable,
)
from gateway.triton.replicas import Replica, ReplicaSet, Served

SERVED = ("m", 1)
Question = Callable[[TritonClient], Awaitable[str]]


class Watched(ReplicaSet):
    """Two replicas at which nobody listens, and what was heard of them."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[TritonError] = []
        self.looked: list[Replica] = []
        for number in range(2):
            replica = Replica(f"r{number}", TritonEndpoint("127.0.0.1:9", "127.0.0.1:9"), self)
            replica.live, replica.ready = True, frozenset({SERVED})
            self.replicas.append(replica)

    def trouble(self, replica: Replica, served: Served, error: TritonError) -> None:
        self.heard.append(error)
        replica.mark_unready(served)

    async def look(self, replica: Replica) -> None:
        self.looked.append(replica)
        replica.mark_ready("m", [1])

    def question(self, *outcomes: TritonError | str) -> Question:
        """Make a question that the replicas answer so, one after another."""
        left = list(outcomes)

        async def ask(client: TritonClient) -> str:
            (replica,) = (each for each in self if each.client is client)
            assert replica.in_flight[SERVED] == 1
            assert replica.leases == 1
            outcome = left.pop(0)
            if isinstance(outcome, TritonError):
                raise outcome
            return f"{outcome} by {replica.name}"

        return ask

    def idle(self) -> bool:
        return all(each.leases == 0 and each.busy == 0 for each in self)


@pytest.fixture
async def replicas() -> AsyncIterator[Watched]:
    known = Watched()
    yield known
    await known.close()


@pytest.mark.parametrize("error", [TritonUnreachable("x"), TritonNotReady("x"), StubLost("x")])
async def test_a_replica_at_fault_is_not_asked_twice(replicas: Watched, error: TritonError) -> None:
    """The other replica answers, the trouble is told, and nothing stays counted."""
    with replicas.lease(SERVED) as lease:
        first = lease._replica
        answer = await lease.ask(replicas.question(error, "yes"))
        assert answer != f"yes by {first.name}"
        assert (first.leases, lease._replica.leases) == (0, 1)
    assert replicas.heard == [error]
    assert replicas.idle()


@pytest.mark.parametrize("error", [TritonRejected("x"), TritonFailed("x")])
async def test_a_request_at_fault_is_not_asked_again(replicas: Watched, error: TritonError) -> None:
    """What a replica says of the request is the answer."""
    with replicas.lease(SERVED) as lease, pytest.raises(type(error)):
        await lease.ask(replicas.question(error))
    assert replicas.idle()


async def test_there_are_two_attempts(replicas: Watched) -> None:
    """A second replica at fault is the end of it."""
    with replicas.lease(SERVED) as lease, pytest.raises(StubLost):
        await lease.ask(replicas.question(TritonNotReady("x"), StubLost("y")))
    assert len(replicas.heard) == 2
    assert replicas.idle()


async def test_the_only_replica_is_asked_again_if_it_is_still_there(replicas: Watched) -> None:
    """A broken connection is no dead process: a look at the index tells, and only then."""
    alone = replicas.replicas[0]
    replicas.replicas[1].mark_down()
    with replicas.lease(SERVED) as lease:
        broken = TritonUnreachable("x")
        assert await lease.ask(replicas.question(broken, "yes")) == "yes by r0"
    with replicas.lease(SERVED) as lease, pytest.raises(StubLost):
        await lease.ask(replicas.question(StubLost("x")))
    assert replicas.looked == [alone]
    assert replicas.idle()


async def test_a_replica_that_left_meanwhile_is_not_asked(replicas: Watched) -> None:
    """The lease moves on to one that is ready; without one the request hears so."""
    with replicas.lease(SERVED) as lease:
        lease._replica.mark_down()
        assert (await lease.ask(replicas.question("yes"))).startswith("yes")
    with replicas.lease(SERVED) as lease:
        lease._replica.mark_down()
        with pytest.raises(TritonNotReady):
            await lease.ask(replicas.question())
    assert replicas.heard == []
    assert replicas.idle()
