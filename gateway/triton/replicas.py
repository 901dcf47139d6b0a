"""
The replicas: which Tritons there are, what each has ready, and how busy it is.

A request takes a lease on the least busy replica that has its version ready. A replica that cannot
be reached is left out at once; the monitor brings it back. A request that met a dead, unready or
hung replica is tried once more, on another one if there is another: inference changes nothing, so
asking twice is safe.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt

from gateway.triton.client import TritonClient
from gateway.triton.errors import (
    StubLost,
    TritonError,
    TritonNotReady,
    TritonSlow,
    TritonUnreachable,
)
from gateway.triton.model_names import ModelNames
from gateway.triton.patience import Patience
from gateway.triton.replica import Replica, Served
from gateway.triton.shared_memory import Region
from gateway.triton.tensor import InputTensor

__all__ = ["Lease", "Replica", "ReplicaSet", "Served"]

_T = TypeVar("_T")
REPLICA_AT_FAULT = (TritonUnreachable, TritonNotReady, TritonSlow, StubLost)
"""What another replica may do better."""


class ReplicaSet:
    """The replicas of this gateway, and the choice among them."""

    def __init__(self) -> None:
        self.replicas: list[Replica] = []
        self.names = ModelNames()
        self.changed = asyncio.Condition()
        self.patience = Patience()
        self._turn = 0

    def __iter__(self) -> Iterator[Replica]:
        return iter(self.replicas)

    def live(self) -> list[Replica]:
        """The replicas that can be reached."""
        return [replica for replica in self.replicas if replica.live]

    def serving(self, served: Served) -> list[Replica]:
        """The replicas that have this version ready."""
        return [replica for replica in self.replicas if replica.serves(served)]

    def limit_s(self, served: Served) -> float | None:
        """Tell how long one replica may take; None where no other could answer instead."""
        if len(self.replicas) < 2 or len(self.serving(served)) < 2:
            return None
        return self.patience.limit_s(served)

    async def announce(self) -> None:
        """Wake whoever waits for a replica to come or go."""
        async with self.changed:
            self.changed.notify_all()

    def lease(self, served: Served, *, near: Region | None = None) -> "Lease":
        """
        Choose the replica that answers one request.

        Args:
            served: Model and version.
            near: Shared memory that holds the input already; its replica wins a tie.

        Raises:
            TritonNotReady: No replica has the version ready.
        """
        candidates = self.serving(served)
        if not candidates:
            raise TritonNotReady(f"no replica has version {served[1]} ready")
        decodes = all(candidate.client.endpoint.decodes for candidate in candidates)
        return Lease(self, served, self._least_busy(candidates, near), decodes=decodes)

    async def other(self, served: Served, failed: Replica, error: TritonError) -> Replica:
        """
        Find a replica for a second attempt.

        Args:
            served: Model and version.
            failed: The replica that was asked.
            error: What it failed with.

        Raises:
            TritonError: There is none; this is `error`.
        """
        candidates = [replica for replica in self.serving(served) if replica is not failed]
        if not candidates and isinstance(error, TritonUnreachable):
            # Was it the connection or the process? A look at its index tells.
            await failed.watcher.look(failed)
            candidates = self.serving(served)
        if not candidates:
            raise error
        return self._least_busy(candidates)

    def _least_busy(self, candidates: list[Replica], near: Region | None = None) -> Replica:
        if len(candidates) == 1:
            return candidates[0]
        # Equally busy ones take turns: a light load is shared too.
        self._turn += 1
        start = self._turn % len(candidates)
        turns = candidates[start:] + candidates[:start]
        return min(turns, key=lambda c: (c.leases, near is None or c.client.region is not near))

    async def close(self) -> None:
        """Close every replica's connections."""
        await asyncio.gather(*(replica.client.close() for replica in self.replicas))


class Lease:
    """
    One request's hold on a replica, for the length of a `with`.

    Attributes:
        served: Model and version.
        decodes: Whether every replica that may be asked takes a JPEG in place of pixels.
    """

    __slots__ = ("_replica", "_replicas", "decodes", "served")

    def __init__(
        self, replicas: ReplicaSet, served: Served, replica: Replica, *, decodes: bool
    ) -> None:
        self.served = served
        self.decodes = decodes
        self._replicas = replicas
        self._replica = replica

    def __enter__(self) -> Self:
        self._replica.leases += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._replica.leases -= 1

    @property
    def region(self) -> Region | None:
        """Memory that the replica shares, for the input; None if it shares none."""
        return self._replica.client.region

    async def infer(
        self,
        *,
        input_name: str,
        input_dtype: str,
        tensor: InputTensor,
        output_name: str,
        request_id: str,
    ) -> npt.NDArray[np.generic]:
        """
        Run one tensor through the version; arguments and answer are those of `TritonClient.infer`.

        Raises:
            TritonNotReady: No replica has the version ready any more.
            TritonError: The last attempt's failure.
        """
        name, version = self._replicas.names.triton_model(self.served), self.served[1]
        return await self.ask(
            lambda client: client.infer(
                name,
                version,
                input_name=input_name,
                input_dtype=input_dtype,
                tensor=tensor,
                output_name=output_name,
                request_id=request_id,
            )
        )

    async def ask(
        self, question: Callable[[TritonClient], Awaitable[_T]], *, ours: bool = True
    ) -> _T:
        """
        Put an inference to the replica and, if the replica is at fault, once more to another.

        Args:
            question: The inference.
            ours: The gateway made the input: an execution that fails speaks against the version. Of
                tensors that a caller made it says nothing.

        Raises:
            TritonNotReady: No replica has the version ready any more.
            TritonError: The last attempt's failure.
        """
        if not self._replica.serves(self.served):
            # It went away while the input was made.
            gone = TritonNotReady(f"no replica has version {self.served[1]} ready")
            self._move(await self._replicas.other(self.served, self._replica, gone))
        try:
            return await self._ask(question, ours, self._replicas.limit_s(self.served))
        except REPLICA_AT_FAULT as error:
            self._move(await self._replicas.other(self.served, self._replica, error))
        return await self._ask(question, ours)

    async def _ask(
        self,
        question: Callable[[TritonClient], Awaitable[_T]],
        ours: bool,
        limit_s: float | None = None,
    ) -> _T:
        replica, served, began_s = self._replica, self.served, time.monotonic()
        replica.in_flight[served] += 1
        try:
            if limit_s is None:
                answer = await question(replica.client)
            else:
                answer = await self._ask_in_time(question, limit_s)
        except TritonError as error:
            if ours or isinstance(error, REPLICA_AT_FAULT):
                replica.watcher.trouble(replica, served, error)
            raise
        finally:
            replica.in_flight[served] -= 1
        replica.mark_answered(served)
        self._replicas.patience.answered(served, time.monotonic() - began_s)
        return answer

    async def _ask_in_time(
        self, question: Callable[[TritonClient], Awaitable[_T]], limit_s: float
    ) -> _T:
        try:
            async with asyncio.timeout(limit_s):
                return await question(self._replica.client)
        except TimeoutError as error:
            self._replicas.patience.lost()
            raise TritonSlow(f"no answer within {limit_s:.1f} s") from error

    def _move(self, replica: Replica) -> None:
        self._replica.leases -= 1
        self._replica = replica
        replica.leases += 1
