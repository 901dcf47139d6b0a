"""
Admission: how many requests are worked on, and how many may wait for that.

What is over the two limits is refused at once, so that an overload shortens the queue and not the
goodput: a client that hears 429 early can go elsewhere. Whose turn it is, and who is refused, is
decided fairly between callers (`fair_queue.py`).
"""

import asyncio
from collections import Counter
from types import TracebackType

from gateway.errors import Draining, GatewayError, Overloaded
from gateway.inference.fair_queue import EVERYBODY, FairQueue, Share

# As `max_concurrent_runs` has it by default.
_PLACES_FOR_EACH_CORE = 8


class Admission:
    """
    Bounds requests: `working` of `capacity` are worked on, `waiting` of `queue` wait for that.
    While several callers ask, at most `beside_others` of each are worked on.

    Attributes:
        coming: Requests that have been read and are about to ask for a place. Counting them lets a
            connection refuse by a request's head, before its body is read or decoded.
        leaving: The server will stop soon; it still answers.
        draining: The server is stopping and takes nothing new.
        running, queued: Requests that are worked on, and that wait, by model.
    """

    def __init__(self, capacity: int, queue: int, beside_others: int | None = None) -> None:
        self.capacity = capacity
        self.queue = queue
        self.working = 0
        self.coming = 0
        self.leaving = False
        self.draining = False
        self.running: Counter[str] = Counter()
        self.queued: Counter[str] = Counter()
        self._waiters: FairQueue[asyncio.Future[None]] = FairQueue(beside_others)

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiters)

    def refusal(self, share: Share = EVERYBODY) -> GatewayError | None:
        """Say why one more request of a caller would be refused now; None if it would not."""
        if self.draining:
            return Draining("The server is stopping.")
        if self.working + self.waiting + self.coming < self.capacity + self.queue:
            return None
        return None if self._waiters.can_make_room(share) else self._overloaded()

    def uses_the_machine_up(self) -> bool:
        """Whether so much is under way that whatever else is done makes callers wait."""
        return self.working + self.waiting >= max(2, self.capacity // _PLACES_FOR_EACH_CORE)

    def admit(self, share: Share = EVERYBODY, model: str = "") -> "_Place":
        """
        Hold a place for the length of an `async with`; waits for one if need be.

        Args:
            share: Who asks, and how many places at most are for it.
            model: Which model is asked.

        Raises:
            Overloaded: The queue is full, and nobody waits in a longer line. Raised at once; or
                later, to the last one of the longest line, when another takes its place.
            Draining: The server is stopping.
        """
        return _Place(self, share, model)

    async def enter(self, share: Share) -> None:
        """Take a place; see `admit`."""
        if self.draining:
            raise Draining("The server is stopping.")
        waiters = self._waiters
        if self.working < self.capacity and waiters.may_go(share):
            self._begin(share)
            return
        if self.waiting >= self.queue:
            last = waiters.make_room(share)
            if last is None:
                raise self._overloaded()
            last.set_exception(self._overloaded())
        turn = asyncio.get_running_loop().create_future()
        waiters.add(share, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave(share)  # the place came together with the cancellation
            else:
                waiters.remove(share, turn)
            raise

    def leave(self, share: Share) -> None:
        """Give a place back, and let in who is next."""
        self.working -= 1
        self._waiters.ended(share)
        while self.working < self.capacity and (found := self._waiters.next()) is not None:
            following, turn = found
            if not turn.done():
                self._begin(following)
                turn.set_result(None)

    def _begin(self, share: Share) -> None:
        self.working += 1
        self._waiters.began(share)

    def _overloaded(self) -> GatewayError:
        return Overloaded(
            f"{self.working} requests are being worked on and {self.waiting} are waiting."
        )


class _Place:
    """A place, for the length of an `async with`."""

    __slots__ = ("_admission", "_model", "_share")

    def __init__(self, admission: Admission, share: Share, model: str) -> None:
        self._admission = admission
        self._share = share
        self._model = model

    async def __aenter__(self) -> None:
        admission, model = self._admission, self._model
        admission.queued[model] += 1
        try:
            await admission.enter(self._share)
        finally:
            admission.queued[model] -= 1
        admission.running[model] += 1

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._admission.running[self._model] -= 1
        self._admission.leave(self._share)
