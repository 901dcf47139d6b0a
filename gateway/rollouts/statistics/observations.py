"""
What has been observed in one step of a rollout: small counts that are merged by addition.

No sample is kept. Every gateway counts for itself and the controller adds the counts up, so it does
not matter who saw which request or in which order. Latencies go into logarithmic buckets (growth
2^(1/320): two neighbouring edges differ by 0.22 %), score distances into fifty equal ones.

Counts are floats because callers that name themselves have fractional weights, and so that expected
counts can be planned with.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce

from gateway.rollouts.statistics.histogram import NOTHING, Histogram
from gateway.rollouts.stored import Stored


@dataclass(frozen=True, slots=True)
class Arm:
    """
    One version's answers.

    Attributes:
        requests: Requests that the version was asked, answered or failed.
        errors: Those that it failed, timeouts included. A caller's own mistakes are not counted.
        latencies: Of those that it answered.
        labelled: Answers whose true class is known (feedback).
        wrong: Those of them that were wrong.
    """

    requests: float = 0
    errors: float = 0
    latencies: Histogram = NOTHING
    labelled: float = 0
    wrong: float = 0

    def __add__(self, other: "Arm") -> "Arm":
        return Arm(
            requests=self.requests + other.requests,
            errors=self.errors + other.errors,
            latencies=self.latencies + other.latencies,
            labelled=self.labelled + other.labelled,
            wrong=self.wrong + other.wrong,
        )

    def scaled(self, factor: float) -> "Arm":
        """Every count times `factor`."""
        return Arm(
            requests=self.requests * factor,
            errors=self.errors * factor,
            latencies=self.latencies.scaled(factor),
            labelled=self.labelled * factor,
            wrong=self.wrong * factor,
        )


@dataclass(frozen=True, slots=True)
class Pairs:
    """
    Requests that both versions answered (shadow).

    Attributes:
        compared: Pairs of answers.
        disagreed: Pairs with different categories.
        distances: Distances of the two score vectors, in [0, 1].
        labelled: Pairs whose true class is known.
        only_champion_right: Labelled pairs that the champion got right and the challenger wrong.
        only_challenger_right: Labelled pairs the other way round.
    """

    compared: float = 0
    disagreed: float = 0
    distances: Histogram = NOTHING
    labelled: float = 0
    only_champion_right: float = 0
    only_challenger_right: float = 0

    def __add__(self, other: "Pairs") -> "Pairs":
        return Pairs(
            compared=self.compared + other.compared,
            disagreed=self.disagreed + other.disagreed,
            distances=self.distances + other.distances,
            labelled=self.labelled + other.labelled,
            only_champion_right=self.only_champion_right + other.only_champion_right,
            only_challenger_right=self.only_challenger_right + other.only_challenger_right,
        )

    def scaled(self, factor: float) -> "Pairs":
        """Every count times `factor`."""
        return Pairs(
            compared=self.compared * factor,
            disagreed=self.disagreed * factor,
            distances=self.distances.scaled(factor),
            labelled=self.labelled * factor,
            only_champion_right=self.only_champion_right * factor,
            only_challenger_right=self.only_challenger_right * factor,
        )


@dataclass(frozen=True, slots=True)
class ClassPairs:
    """Labelled pairs of one true class; the fields as in `Pairs`."""

    labelled: float = 0
    only_champion_right: float = 0
    only_challenger_right: float = 0

    def __add__(self, other: "ClassPairs") -> "ClassPairs":
        return ClassPairs(
            self.labelled + other.labelled,
            self.only_champion_right + other.only_champion_right,
            self.only_challenger_right + other.only_challenger_right,
        )

    def scaled(self, factor: float) -> "ClassPairs":
        """Every count times `factor`."""
        return ClassPairs(
            self.labelled * factor,
            self.only_champion_right * factor,
            self.only_challenger_right * factor,
        )


@dataclass(frozen=True, slots=True)
class Compute:
    """
    What Triton says of its own computing. A window is a short time in which both versions computed
    something; in each the mean computing times of the two are compared.

    Attributes:
        windows: How many there were.
        slower: Those in which the challenger's mean was above what is tolerated.
        champion_s, challenger_s: All computing time in them, in seconds.
        champion_runs, challenger_runs: The inferences that took it.
    """

    windows: float = 0
    slower: float = 0
    champion_s: float = 0
    challenger_s: float = 0
    champion_runs: float = 0
    challenger_runs: float = 0

    def __add__(self, other: "Compute") -> "Compute":
        return Compute(
            self.windows + other.windows,
            self.slower + other.slower,
            self.champion_s + other.champion_s,
            self.challenger_s + other.challenger_s,
            self.champion_runs + other.champion_runs,
            self.challenger_runs + other.challenger_runs,
        )

    def scaled(self, factor: float) -> "Compute":
        """Every count and time times `factor`."""
        return Compute(
            self.windows * factor,
            self.slower * factor,
            self.champion_s * factor,
            self.challenger_s * factor,
            self.champion_runs * factor,
            self.challenger_runs * factor,
        )


@dataclass(frozen=True, slots=True)
class Observations(Stored):
    """
    Everything counted since one step began.

    Attributes:
        champion, challenger: Their answers to requests that name no caller.
        pairs: Requests that both answered.
        callers_champion, callers_challenger: Callers that are complete, each with a weight of 1.
        of_callers_champion, of_callers_challenger: All requests of named callers.
        classes: Labelled pairs by true class.
        apart: Answers and labels of a class that only one version knows.
        shared: Requests that both versions failed.
        capped: Requests that the challenger was spared, to keep to its weight.
        compute: What Triton says of its computing.
    """

    champion: Arm = Arm()
    challenger: Arm = Arm()
    pairs: Pairs = Pairs()
    callers_champion: Arm = Arm()
    callers_challenger: Arm = Arm()
    of_callers_champion: float = 0
    of_callers_challenger: float = 0
    classes: Mapping[int, ClassPairs] = field(default_factory=dict)
    apart: float = 0
    shared: float = 0
    capped: float = 0
    compute: Compute = Compute()

    def __add__(self, other: "Observations") -> "Observations":
        classes = dict(self.classes)
        for category, counts in other.classes.items():
            classes[category] = classes.get(category, ClassPairs()) + counts
        return Observations(
            champion=self.champion + other.champion,
            challenger=self.challenger + other.challenger,
            pairs=self.pairs + other.pairs,
            callers_champion=self.callers_champion + other.callers_champion,
            callers_challenger=self.callers_challenger + other.callers_challenger,
            of_callers_champion=self.of_callers_champion + other.of_callers_champion,
            of_callers_challenger=self.of_callers_challenger + other.of_callers_challenger,
            classes=classes,
            apart=self.apart + other.apart,
            shared=self.shared + other.shared,
            capped=self.capped + other.capped,
            compute=self.compute + other.compute,
        )

    def scaled(self, factor: float) -> "Observations":
        """Every count times `factor`: what to expect after `factor` requests."""
        return Observations(
            champion=self.champion.scaled(factor),
            challenger=self.challenger.scaled(factor),
            pairs=self.pairs.scaled(factor),
            callers_champion=self.callers_champion.scaled(factor),
            callers_challenger=self.callers_challenger.scaled(factor),
            of_callers_champion=self.of_callers_champion * factor,
            of_callers_challenger=self.of_callers_challenger * factor,
            classes={key: counts.scaled(factor) for key, counts in self.classes.items()},
            apart=self.apart * factor,
            shared=self.shared * factor,
            capped=self.capped * factor,
            compute=self.compute.scaled(factor),
        )

    @property
    def champion_requests(self) -> float:
        """Requests that the champion was asked, by whomever."""
        return self.champion.requests + self.of_callers_champion

    @property
    def challenger_requests(self) -> float:
        """Requests that the challenger was asked, by whomever."""
        return self.challenger.requests + self.of_callers_challenger

    @property
    def champion_evidence(self) -> Arm:
        """The champion's independent observations: single requests, and complete callers."""
        return self.champion + self.callers_champion

    @property
    def challenger_evidence(self) -> Arm:
        """The challenger's independent observations: single requests, and complete callers."""
        return self.challenger + self.callers_challenger


def merged(parts: Iterable[Observations]) -> Observations:
    """
    Add up what several gateways counted. A complete caller weighs 1 in all, however many gateways
    saw it.
    """
    found = tuple(parts)
    added = reduce(lambda one, other: one + other, found, Observations())
    saw_callers = sum(part.of_callers_champion + part.of_callers_challenger > 0 for part in found)
    if saw_callers < 2:
        return added
    return replace(
        added,
        callers_champion=added.callers_champion.scaled(1 / saw_callers),
        callers_challenger=added.callers_challenger.scaled(1 / saw_callers),
    )
