"""What a worker makes of what its parent sends, over a real channel and a real database."""

import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.registry.registry import Registry
from gateway.store.database import open_database
from gateway.store.versions import VersionStore
from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.loads import Failure, LoadStates
from gateway.triton.monitor import Monitor
from gateway.triton.replicas import ReplicaSet
from gateway.workers.child.remote import RemoteRepairs
from gateway.workers.child.state_follower import StateFollower
from gateway.workers.wire.channel import Channel
from gateway.workers.wire.messages import Follow, Knows, LoadEnded, State
from tests.eventually import eventually

# Nobody answers there.
_ONE = TritonEndpoint(http_url="127.0.0.1:1", grpc_url="127.0.0.1:1", admin_key="one")
_TWO = replace(_ONE, admin_key="two")


class _Followed:
    """A worker's records, and the parent's end of its channel."""

    def __init__(self, registry: Registry, parent: Channel) -> None:
        self.registry = registry
        self.parent = parent
        self.replicas = ReplicaSet()
        self.loads = LoadStates()
        self.known: list[Knows] = []
        self.ready_when_known: list[frozenset[int]] = []

    def hear(self, known: Knows) -> None:
        """Hear what the worker knows, and look what it has ready of model m by then."""
        self.known.append(known)
        for each in self.replicas:
            self.ready_when_known.append(each.ready_versions("m"))

    def publish(self, revision: int, **changes: object) -> None:
        """Send a state that differs from an empty one."""
        state = State(revision=revision, generation=self.registry.catalog.generation)
        self.parent.tell(replace(state, **changes))  # type: ignore[arg-type]  # of any field

    async def knows(self, revision: int) -> None:
        """Wait until the worker has said that it knows a revision."""
        await eventually(lambda: any(each.revision == revision for each in self.known))


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    database = await open_database(f"sqlite+aiosqlite:///{tmp_path}/gateway.db")
    registry = Registry(VersionStore(database))
    await registry.refresh()
    yield registry
    await database.close()


@contextlib.asynccontextmanager
async def _following(
    registry: Registry, first: State, *overtaking: State
) -> AsyncIterator[_Followed]:
    """Follow a parent whose first answer is overtaken by other states."""
    near, far = (Channel(end) for end in socket.socketpair())
    followed = _Followed(registry, near)

    async def answer(_follow: Follow) -> State:
        for state in overtaking:
            near.tell(state)
        return first

    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(near.answering(Follow, answer))
        stack.enter_context(near.on(Knows, followed.hear))
        for end in (near, far):
            await end.start()
            stack.push_async_callback(end.close)
        monitor = Monitor(
            followed.replicas, RemoteRepairs(far), poll_s=60, shared_bytes=lambda _replica: 0
        )
        stack.push_async_callback(followed.replicas.close)
        stack.push_async_callback(monitor.stop)
        follower = StateFollower(far, registry, monitor, followed.replicas, followed.loads)
        await stack.enter_async_context(follower.following())
        yield followed


async def test_an_answer_that_was_overtaken_changes_nothing(registry: Registry) -> None:
    """The state as it was when `Follow` was asked does not undo the one that came meanwhile."""
    failures = {("r", "m", 1): Failure("broken", 1, 0.0)}
    first = State(revision=1, generation=0)
    newer = State(revision=2, generation=0, failures=failures)
    async with _following(registry, first, newer) as followed:
        await followed.knows(2)
        assert followed.loads.failures == failures


async def test_what_a_load_left_ready_is_known_before_it_is_said_so(registry: Registry) -> None:
    """Whoever hears that this worker knows may let callers ask for the version."""
    async with _following(registry, State(1, 0, embedded=_ONE)) as followed:
        ended = LoadEnded("embedded", "m", frozenset({1, 2}))
        followed.publish(2, embedded=_ONE, ended=ended, first_loads=frozenset({("m", 2)}))
        await followed.knows(2)
        assert followed.ready_when_known[-1] == {1, 2}
        assert followed.loads.first_loads == {("m", 2)}


async def test_it_moves_to_where_triton_answers(registry: Registry) -> None:
    """Down at once, and with the next process as soon as there is one."""
    async with _following(registry, State(1, 0)) as followed:
        assert list(followed.replicas) == []
        followed.publish(2, embedded=_ONE)
        await followed.knows(2)
        (replica,) = followed.replicas
        replica.live = True
        followed.publish(3, embedded=None)
        await followed.knows(3)
        assert not replica.live
        followed.publish(4, embedded=_TWO)
        await eventually(lambda: replica.client.endpoint == _TWO)
        assert list(followed.replicas) == [replica]
