"""
Admission: how many requests are worked on, and how many may wait for that.

What is over the two limits is refused at once, so that an overload shortens the queue and not the
goodput: a client that hears 429 early can go elsewhere.
"""

import asyncio
from typing import Self

from gateway.errors import Draining, GatewayError, Overloaded


class Admission:
    """
    A bounded door. `working` of `capacity` are inside, `waiting` of `queue` in front of it.

    Attributes:
        coming: Requests that have been read and are about to ask for a place. Counting them lets a
            connection refuse by a request's head, before its body is read or decoded.
        leaving: The server will stop soon; it still answers.
        draining: The server is stopping and takes nothing new.
    """

    def __init__(self, capacity: int, queue: int) -> None:
        self.capacity = capacity
        self.queue = queue
        self.working = 0
        self.waiting = 0
        self.coming = 0
        self.leaving = False
        self.draining = False
        self._places = asyncio.Semaphore(capacity)

    def refusal(self) -> GatewayError | None:
        """Say why one more request would be refused now; None if it would not."""
        if self.draining:
            return Draining("The server is stopping.")
        if self.working + self.waiting + self.coming >= self.capacity + self.queue:
            return Overloaded(
                f"{self.working} requests are being worked on and {self.waiting} are waiting."
            )
        return None

    def admit(self) -> Self:
        """
        Hold a place for the length of an `async with`; waits for one if need be.

        Raises:
            Overloaded: The queue is full. Raised at once.
            Draining: The server is stopping.
        """
        return self

    async def __aenter__(self) -> None:
        if self.draining:
            raise Draining("The server is stopping.")
        if self._places.locked() and self.waiting >= self.queue:
            raise Overloaded(
                f"{self.working} requests are being worked on and {self.waiting} are waiting."
            )
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        self.working += 1

    async def __aexit__(self, *_: object) -> None:
        self.working -= 1
        self._places.release()
