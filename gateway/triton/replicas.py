"""
The replicas: which Tritons there are, what each has ready, and how busy it is.

`ReplicaSet.infer` sends a request to the replica with the fewest requests in flight among those
that have the version ready. A replica that cannot be reached is left out at once; what brings it
back is the monitor. A request that met a dead or unready replica is tried once more, on another one
if there is another: inference changes nothing, so that asking twice is safe.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt

from gateway.triton.client import IndexEntry, TritonClient
from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.errors import StubLost, TritonError, TritonNotReady, TritonUnreachable
from gateway.triton.shared_memory import Region
from gateway.triton.tensor import InputTensor

_ATTEMPTS = 2
# This many failed executions of a version in a row, and its replica is left out for that version.
_FAILURES_TO_OPEN = 5
_OPEN_S = 5.0

Served = tuple[str, int]
"""A model's name and a version of it."""


class Replica:
    """
    One Triton. `ready` is what was last observed; `live` is False from the moment when it could not
    be reached until its index was read again.
    """

    def __init__(self, name: str, endpoint: TritonEndpoint) -> None:
        self.name = name
        self.client = TritonClient(endpoint)
        self.live = False
        self.ready: frozenset[Served] = frozenset()
        self.reasons: dict[Served, str] = {}
        self.in_flight: Counter[Served] = Counter()
        self.loading: set[Served] = set()
        self.answered_at_s: dict[Served, float] = {}
        self.incarnation = 0
        self._changed_at_s: dict[str, float] = {}
        self._failures_in_row: Counter[Served] = Counter()
        self._open_until_s: dict[Served, float] = {}

    @property
    def busy(self) -> int:
        """Requests in flight, all models together."""
        return self.in_flight.total()

    def serves(self, served: Served) -> bool:
        """Whether a request for this version may be sent here now."""
        open_until_s = self._open_until_s.get(served, 0.0)
        return self.live and served in self.ready and time.monotonic() >= open_until_s

    def ready_versions(self, name: str) -> frozenset[int]:
        """The versions of a model that are ready here."""
        return frozenset(version for model, version in self.ready if model == name)

    def mark_ready(self, name: str, versions: Iterable[int]) -> None:
        """Take note that a load or unload left exactly these versions of a model ready."""
        self._changed_at_s[name] = time.monotonic()
        others = {served for served in self.ready if served[0] != name}
        self.ready = frozenset(others | {(name, version) for version in versions})

    def mark_unready(self, served: Served) -> None:
        """Leave one version out until the index, or a load, says that it is ready."""
        self.ready -= {served}

    def observe(self, entries: Iterable[IndexEntry], *, read_at_s: float) -> None:
        """
        Take over an index that was read beginning at `read_at_s` (monotonic): what a load changed
        meanwhile is newer than the index and stays.
        """
        entries = list(entries)
        newer = {name for name, at_s in self._changed_at_s.items() if at_s >= read_at_s}
        kept = {served for served in self.ready if served[0] in newer}
        observed = {
            (entry.name, entry.version)
            for entry in entries
            if entry.state == "READY" and entry.name not in newer
        }
        self.ready = frozenset(kept | observed)
        self.reasons = {
            (entry.name, entry.version): entry.reason
            for entry in entries
            if entry.state == "UNAVAILABLE" and entry.reason not in {"", "unloaded"}
        }
        self.live = True

    def mark_down(self) -> None:
        """Leave the replica out: it cannot be reached."""
        self.live = False
        self.ready = frozenset()

    def answered_since(self, at_s: float) -> bool:
        """Whether any request was answered here since `at_s` (monotonic)."""
        return any(answered_s >= at_s for answered_s in self.answered_at_s.values())

    def mark_answered(self, served: Served) -> None:
        """Take note of a right answer: it closes the breaker and makes a probe needless."""
        self._failures_in_row.pop(served, None)
        self.answered_at_s[served] = time.monotonic()

    def mark_failed(self, served: Served) -> None:
        """
        Take note of a failed execution; several in a row open the version's breaker for some
        seconds. Each version has its own: a challenger that fails must not silence its champion.
        """
        self._failures_in_row[served] += 1
        if self._failures_in_row[served] >= _FAILURES_TO_OPEN:
            self._open_until_s[served] = time.monotonic() + _OPEN_S
            # Half open afterwards: one more failure opens it again.
            self._failures_in_row[served] = _FAILURES_TO_OPEN - 1

    async def move(self, endpoint: TritonEndpoint) -> None:
        """Talk to another endpoint from now on: the process behind the replica is a new one."""
        previous, self.client = self.client, TritonClient(endpoint)
        self.incarnation += 1
        self.mark_down()
        await previous.close()


class ReplicaSet:
    """The replicas of this gateway, and the choice among them."""

    def __init__(self) -> None:
        self.replicas: list[Replica] = []
        self.changed = asyncio.Condition()
        self._turn = 0
        self.on_trouble: Callable[[Replica, Served, TritonError], None] = _ignore_trouble
        self.recheck: Callable[[Replica], Awaitable[None]] = _no_recheck

    def __iter__(self) -> Iterator[Replica]:
        return iter(self.replicas)

    def live(self) -> list[Replica]:
        """The replicas that can be reached."""
        return [replica for replica in self.replicas if replica.live]

    def serving(self, served: Served) -> list[Replica]:
        """The replicas that have this version ready."""
        return [replica for replica in self.replicas if replica.serves(served)]

    async def announce(self) -> None:
        """Wake whoever waits for a replica to come or go."""
        async with self.changed:
            self.changed.notify_all()

    async def infer(
        self,
        served: Served,
        *,
        input_name: str,
        input_dtype: str,
        tensor: InputTensor,
        output_name: str,
        request_id: str,
    ) -> npt.NDArray[np.generic]:
        """
        Run a tensor through a version on the least busy replica that has it ready.

        Args:
            served: Model and version.
            input_name, input_dtype, tensor, output_name, request_id: As in `TritonClient.infer`.

        Raises:
            TritonNotReady: No replica has the version ready.
            TritonError: The last attempt's failure.
        """
        tried: list[Replica] = []
        failure: TritonError = TritonNotReady(f"no replica has version {served[1]} ready")
        for _ in range(_ATTEMPTS):
            candidates = [r for r in self.serving(served) if r not in tried]
            if not candidates and isinstance(failure, TritonUnreachable):
                # Was it the connection or the process? A look at its index tells.
                await self.recheck(tried[-1])
                candidates = self.serving(served)
            if not candidates:
                break
            replica = self._least_busy(candidates, tensor.region)
            tried.append(replica)
            replica.in_flight[served] += 1
            try:
                output = await replica.client.infer(
                    served[0],
                    served[1],
                    input_name=input_name,
                    input_dtype=input_dtype,
                    tensor=tensor,
                    output_name=output_name,
                    request_id=request_id,
                )
            except (TritonUnreachable, TritonNotReady, StubLost) as error:
                # The replica is at fault, not the request: leave it out and ask another one.
                failure = error
                self.on_trouble(replica, served, error)
            except TritonError as error:
                self.on_trouble(replica, served, error)
                raise
            else:
                replica.mark_answered(served)
                return output
            finally:
                replica.in_flight[served] -= 1
        raise failure

    def decode(self, served: Served) -> bool:
        """Whether every replica that may be asked takes a JPEG in place of pixels."""
        candidates = self.serving(served)
        return bool(candidates) and all(c.client.endpoint.decodes for c in candidates)

    def region(self, served: Served) -> Region | None:
        """
        Find shared memory for an input of this version: that of the replica which would be asked
        right now. None if it shares none.
        """
        # Once for each request, so that it is asked there too, and the next request is not.
        self._turn += 1
        candidates = self.serving(served)
        return self._least_busy(candidates).client.region if candidates else None

    def _least_busy(self, candidates: list[Replica], region: Region | None = None) -> Replica:
        """Choose a replica; of equally busy ones the one that has the input already."""
        if len(candidates) == 1:
            return candidates[0]
        # Else each has its turn: a light load is shared too.
        start = self._turn % len(candidates)
        turns = candidates[start:] + candidates[:start]
        return min(turns, key=lambda c: (c.busy, region is None or c.client.region is not region))

    async def close(self) -> None:
        """Close every replica's connections."""
        await asyncio.gather(*(replica.client.close() for replica in self.replicas))


def _ignore_trouble(_replica: Replica, _served: Served, _error: TritonError) -> None:
    """Until a monitor listens."""


async def _no_recheck(_replica: Replica) -> None:
    """Until a monitor listens."""
