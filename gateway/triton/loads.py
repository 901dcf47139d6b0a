"""
What is known of loads: which failed and why, how long they took, which are new to callers.

The process that loads writes it. In a worker the same record is filled from what the parent sends.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass

from gateway.triton.replicas import Replica, Served

LoadKey = tuple[str, str, int]
"""Replica, model and version."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A version that did not load: why, how often, and when it is tried again (monotonic)."""

    reason: str
    attempts: int
    retry_at_s: float


class LoadStates:
    """
    The record of one gateway process.

    Attributes:
        failures: Failures that are not forgotten.
        load_times_s: How long the last load of a version took.
        first_loads: Versions whose first load is under way. Callers hear "not loaded" for them,
            even where a replica has them ready already.
    """

    def __init__(self) -> None:
        self.failures: dict[LoadKey, Failure] = {}
        self.load_times_s: dict[LoadKey, float] = {}
        self.first_loads: set[Served] = set()

    def failure(self, replica: Replica, name: str, version: int) -> Failure | None:
        """Return why a version is not ready on a replica, if a load of it failed."""
        return self.failures.get((replica.name, name, version))

    def state(self, replica: Replica, name: str, version: int) -> tuple[str, str]:
        """Return a version's state on a replica in Triton's spelling, and why it is not ready."""
        served, failure = (name, version), self.failure(replica, name, version)
        if not replica.live:
            return "UNAVAILABLE", "the replica cannot be reached"
        if served in replica.ready:
            return "READY", ""
        if served in replica.loading:
            return "LOADING", ""
        if failure is not None:
            return "UNAVAILABLE", failure.reason
        return "UNLOADED", ""

    def forgive(self, name: str, version: int) -> None:
        """Forget that a version failed, so that it is tried at once."""
        for key in [key for key in self.failures if key[1:] == (name, version)]:
            del self.failures[key]

    def replace(
        self,
        *,
        failures: Mapping[LoadKey, Failure],
        load_times_s: Mapping[LoadKey, float],
        first_loads: Set[Served],
    ) -> None:
        """Take over the record of another process."""
        self.failures, self.load_times_s = dict(failures), dict(load_times_s)
        # In place: whoever answers requests holds this very set.
        self.first_loads.clear()
        self.first_loads.update(first_loads)
