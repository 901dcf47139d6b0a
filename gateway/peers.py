"""
The other worker processes of this gateway, as one of them sees them. A gateway of one process has
none, and asks nobody.
"""

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

AnswerGiven = tuple[str, int, int]
"""Model, version and category of an answer."""


@dataclass(frozen=True, slots=True)
class Counts:
    """
    What this process has counted and remembers, for its peers to ask for.

    Attributes:
        flush: Stores the counts.
        shown: Shows them as metrics.
        recall: Gives away the answer to a request, by the request's id.
        every_s: How often the metrics are sent unasked, in seconds.
    """

    flush: Callable[[], Awaitable[object]]
    shown: Callable[[], list[Metric]]
    recall: Callable[[str], Awaitable[AnswerGiven | None]]
    every_s: float


class Peers(Protocol):
    """What a process asks of the others. Every call waits for a second or two at most."""

    def offering(self, counts: Counts) -> AbstractContextManager[None]:
        """Let the others ask for what this process counts, for the length of a block."""

    async def propagate(self) -> None:
        """Return when all of them know what this process has changed."""

    async def flush(self) -> None:
        """Have all of them store what they have counted."""

    async def scrape(self) -> Sequence[Metric] | None:
        """Add up everybody's metrics; None if there is nobody to add."""

    async def recall(self, request_id: str) -> AnswerGiven | None:
        """Find the answer to a request that one of them gave; it forgets the answer."""


class NoPeers:
    """The peers of a gateway of one process."""

    def offering(self, counts: Counts) -> AbstractContextManager[None]:  # noqa: ARG002 - to nobody
        """Do nothing."""
        return contextlib.nullcontext()

    async def propagate(self) -> None:
        """Return."""

    async def flush(self) -> None:
        """Return."""

    async def scrape(self) -> Sequence[Metric] | None:
        """Return None."""
        return None

    async def recall(self, request_id: str) -> AnswerGiven | None:  # noqa: ARG002 - nobody to ask
        """Return None."""
        return None


class Scraped(Collector):
    """Metrics that were read already, in the form that the client library writes."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """Yield them."""
        yield from self._families
