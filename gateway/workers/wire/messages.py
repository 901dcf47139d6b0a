"""
What the parent and a worker say to each other.

A `Notice` is sent and forgotten. A `Call[Answer]` is answered with an `Answer`, or with an error.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from prometheus_client.core import Metric

from gateway.peers import AnswerGiven
from gateway.settings import Settings
from gateway.store.audit import NOWHERE, Origin
from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.loads import Failure, LoadKey
from gateway.triton.replicas import Served

Answer_co = TypeVar("Answer_co", covariant=True)


class Notice:
    """A message without an answer."""

    __slots__ = ()


class Call(Generic[Answer_co]):
    """A message that is answered."""

    __slots__ = ()


# From the parent to a worker.


@dataclass(frozen=True, slots=True)
class LoadEnded:
    """A load or unload that has ended: which versions of a model a replica has ready now."""

    replica: str
    model: str
    versions: frozenset[int]


@dataclass(frozen=True, slots=True)
class State(Notice):
    """
    How things are; each replaces the one before.

    Attributes:
        revision: Grows with every message of this kind.
        generation: Of the newest catalog that the parent has seen.
        embedded: Where the embedded Triton answers; None if there is none, or none right now.
        first_loads: Versions whose first load is under way: not loaded yet, towards callers.
        loading: By replica, the versions that Triton is loading.
        failures: Why versions are not ready.
        load_times_s: How long their last loads took.
        ended: The load or unload that is the reason of this message, if one is.
    """

    revision: int
    generation: int
    embedded: TritonEndpoint | None = None
    first_loads: frozenset[Served] = frozenset()
    loading: Mapping[str, frozenset[Served]] = field(default_factory=dict)
    failures: Mapping[LoadKey, Failure] = field(default_factory=dict)
    load_times_s: Mapping[LoadKey, float] = field(default_factory=dict)
    ended: LoadEnded | None = None


@dataclass(frozen=True, slots=True)
class ReadReport(Call["WorkerReport"]):
    """Ask how a worker is, now."""


@dataclass(frozen=True, slots=True)
class ReadMetrics(Call[list[Metric]]):
    """Ask for what a worker has counted."""


@dataclass(frozen=True, slots=True)
class StoreMetrics(Call[None]):
    """Have a worker store what it has counted."""


@dataclass(frozen=True, slots=True)
class RecallAnswer(Call[AnswerGiven | None]):
    """Ask a worker, or by the parent all others, for the answer to a request."""

    request_id: str


# From a worker to the parent.


@dataclass(frozen=True, slots=True)
class Hello(Call[Settings]):
    """A worker's first call; answered with its share of the settings once the parent is open."""


@dataclass(frozen=True, slots=True)
class Follow(Call[State]):
    """Ask for the state as it is, and for every later one."""


@dataclass(frozen=True, slots=True)
class Knows(Notice):
    """A worker knows the catalog and the state up to here."""

    generation: int
    revision: int


@dataclass(frozen=True, slots=True)
class Serving(Notice):
    """A worker takes connections."""


@dataclass(frozen=True, slots=True)
class WorkerReady(Notice):
    """A worker has everything loaded, as it sees it."""


@dataclass(frozen=True, slots=True)
class WorkerReport(Notice):
    """
    How a worker is. Sent twice a second, and in answer to `ReadReport`.

    Attributes:
        connections: Clients' connections that are open.
        taken: Connections that it was handed since its start.
        in_flight: By replica, its inferences under way.
        answered_at_s: By replica, when each version answered last (monotonic, one for all
            processes of a machine).
    """

    connections: int
    taken: int
    in_flight: Mapping[str, Mapping[Served, int]]
    answered_at_s: Mapping[str, Mapping[Served, float]]


@dataclass(frozen=True, slots=True)
class WorkerMetrics(Notice):
    """What a worker has counted so far."""

    families: list[Metric]


@dataclass(frozen=True, slots=True)
class Load(Call[int]):
    """Have a version of a model loaded (None: its champion); answered with the version's number."""

    model: str
    version: int | None
    actor: str
    origin: Origin = NOWHERE


@dataclass(frozen=True, slots=True)
class Unload(Call[None]):
    """Have a version of a model unloaded (None: all of them)."""

    model: str
    version: int | None
    actor: str
    origin: Origin = NOWHERE


@dataclass(frozen=True, slots=True)
class Repair(Notice):
    """A version on a replica lost one of its processes at `noticed_at_s` (monotonic)."""

    replica: str
    served: Served
    noticed_at_s: float


@dataclass(frozen=True, slots=True)
class SyncFolder(Call[None]):
    """Have the parent look at MODELS_DIR, for one model or all."""

    model: str | None = None


@dataclass(frozen=True, slots=True)
class Propagate(Call[None]):
    """Answered when every worker knows the catalog as it is stored now."""


@dataclass(frozen=True, slots=True)
class Scrape(Call[list[Metric]]):
    """Ask for the sum of what all workers and the parent have counted."""


@dataclass(frozen=True, slots=True)
class StoreAllMetrics(Call[None]):
    """Have all other workers store what they have counted."""


@dataclass(frozen=True, slots=True)
class TakeValidationSlot(Call[None]):
    """Answered when this worker may validate a model."""


@dataclass(frozen=True, slots=True)
class GiveValidationSlot(Notice):
    """A worker gives back a slot that it took, or that it no longer waits for."""
