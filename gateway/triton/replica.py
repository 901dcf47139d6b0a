"""One Triton as the gateway sees it: what it has ready, how busy it is, and when it is left out."""

import time
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from gateway.triton.client import TritonClient
from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.errors import TritonError
from gateway.triton.statistics import IndexEntry

# This many failed executions of a version in a row, and its replica is left out for that version.
_FAILURES_TO_OPEN = 5
_OPEN_S = 5.0

Served = tuple[str, int]
"""A model's name and a version of it."""


class Watcher(Protocol):
    """Hears how requests fared at a replica, and can look at it."""

    def trouble(self, replica: "Replica", served: Served, error: TritonError) -> None:
        """Hear of a failed request. Called on the path of a request: it only takes notes."""

    async def look(self, replica: "Replica") -> None:
        """Read the replica's index now: was it the connection, or is its process gone?"""


class Unwatched:
    """The watcher of a replica that nobody watches."""

    def trouble(self, replica: "Replica", served: Served, error: TritonError) -> None:
        """Do nothing."""

    async def look(self, replica: "Replica") -> None:
        """Return."""


class Replica:
    """
    One Triton.

    Attributes:
        live: False from the moment it could not be reached until its index is read again.
        ready: What was last observed to be ready.
        watcher: Hears of failed requests: the monitor that made it.
        in_flight: Inferences that it is working on, by version.
        leases: Requests that are here or on their way, from before their images are decoded.
    """

    def __init__(self, name: str, endpoint: TritonEndpoint, watcher: Watcher | None = None) -> None:
        self.name = name
        self.watcher = Unwatched() if watcher is None else watcher
        self.client = TritonClient(endpoint)
        self.live = False
        self.ready: frozenset[Served] = frozenset()
        self.reasons: dict[Served, str] = {}
        self.in_flight: Counter[Served] = Counter()
        self.leases = 0
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
        changed = {served for served in self.ready if served[0] in newer}
        observed = {
            (entry.name, entry.version)
            for entry in entries
            if entry.state == "READY" and entry.name not in newer
        }
        self.ready = frozenset(changed | observed)
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
