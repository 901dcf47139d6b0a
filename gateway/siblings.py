"""
The other worker processes of this gateway, as one of them sees them. A gateway of one process has
none, and asks nobody.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

Recalled = tuple[str, int, int]
"""Model, version and category of an answer."""


class Siblings(Protocol):
    """What a process asks of the others. Every call waits for a second or two at most."""

    async def caught_up(self) -> None:
        """Return when all of them know what this process has changed."""

    async def flush(self) -> None:
        """Have all of them store what they have counted."""

    async def scrape(self) -> Sequence[Metric] | None:
        """Add up everybody's metrics; None if there is nobody to add."""

    async def recall(self, request_id: str) -> Recalled | None:
        """Find the answer to a request that one of them gave, and forget it there."""


class Alone:
    """One process."""

    async def caught_up(self) -> None:
        """Return."""

    async def flush(self) -> None:
        """Return."""

    async def scrape(self) -> Sequence[Metric] | None:
        """Return None."""
        return None

    async def recall(self, request_id: str) -> Recalled | None:  # noqa: ARG002 - nobody to ask
        """Return None."""
        return None


class Scraped(Collector):
    """Metrics that were read already, in the form that the client library writes."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """Yield them."""
        yield from self._families
