"""What the parent and a worker tell each other."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.settings import Settings
from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.reconciler import Failure
from gateway.triton.replicas import Served


@dataclass(frozen=True, slots=True)
class Acted:
    """A load or unload that has ended: which versions of a model a replica has ready now."""

    replica: str
    model: str
    versions: frozenset[int]


@dataclass(frozen=True, slots=True)
class News:
    """
    What the parent knows and the workers must.

    Attributes:
        generation: Of the newest catalog that anybody has seen.
        revision: Grows with every load and unload.
        loading: Versions whose first load is under way: not loaded yet, towards callers.
        in_load: By replica, the versions that Triton is loading.
        failures: Why versions are not ready, by replica, model and version.
        load_times_s: How long their last loads took.
        acted: What has just been done, if that is the news.
    """

    generation: int
    revision: int
    loading: frozenset[Served] = frozenset()
    in_load: Mapping[str, frozenset[Served]] = field(default_factory=dict)
    failures: Mapping[tuple[str, str, int], Failure] = field(default_factory=dict)
    load_times_s: Mapping[tuple[str, str, int], float] = field(default_factory=dict)
    acted: Acted | None = None


@dataclass(frozen=True, slots=True)
class Welcome:
    """
    What a worker gets at its start.

    Attributes:
        settings: Its own share.
        embedded: Where the embedded Triton answers; None if there is none, or none right now.
        news: As of now.
    """

    settings: Settings
    embedded: TritonEndpoint | None
    news: News


@dataclass(frozen=True, slots=True)
class Report:
    """
    How a worker is.

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
