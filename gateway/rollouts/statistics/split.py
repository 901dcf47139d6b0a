"""
Whether the split is what the plan says: a sample-ratio mismatch.

Requests that name no caller are split by chance, so the challenger's share of those that were
counted must be its weight. If it is not, requests of one side are lost on their way to the counts
(they time out, are cut off, crash a worker), and whatever was counted of the others is a biased
sample. Such a step is held. A twentieth of the weight is left for requests that are under way.

Source: Fabijan et al., "Diagnosing sample ratio mismatch in online controlled experiments" (KDD
2019); the test is the one of `evidence`, so it may be looked at at every check.
"""

import math

from gateway.rollouts.statistics import evidence
from gateway.rollouts.statistics.metrics import OnFail
from gateway.rollouts.statistics.observations import Observations
from gateway.rollouts.statistics.verdict import MetricVerdict, Outcome

SPLIT = "split"
_ALPHA = 0.001
_UNDER_WAY = 0.05
_LEAST_REQUESTS = 200


def judge_split(seen: Observations, weight: float) -> MetricVerdict:
    """
    Compare the challenger's share of requests with its weight.

    Args:
        seen: Counts of the step.
        weight: The challenger's, 0 to 1.
    """
    ours, all_ = seen.challenger.requests, seen.champion.requests + seen.challenger.requests
    above = float(evidence.rate_above(ours, all_, min(1.0, weight * (1 + _UNDER_WAY))))
    below = float(evidence.rate_below(ours, all_, weight * (1 - _UNDER_WAY)))
    most = max(above, below)
    mismatch = all_ >= _LEAST_REQUESTS and most >= math.log(2 / _ALPHA)
    asked = seen.champion_requests + seen.challenger_requests
    share = seen.challenger_requests / asked if asked else None
    if mismatch:
        sentence = (
            f"The challenger has {ours / all_:.2%} of the requests that were counted and a weight "
            f"of {weight:.2%}: requests of one side are lost, so the counts are not comparable."
        )
    elif share is None:
        sentence = "No request was split yet."
    else:
        sentence = f"The challenger answered {share:.2%} of {int(asked):,} requests."
    return MetricVerdict(
        metric=SPLIT,
        outcome=Outcome.FAILED if mismatch else Outcome.INCONCLUSIVE,
        champion=None,
        challenger=share,
        tolerated=weight,
        champion_samples=int(seen.champion_requests),
        challenger_samples=int(seen.challenger_requests),
        chance_if_tolerable=math.exp(-max(0.0, most)),
        chance_if_worse=1.0,
        required=False,
        sentence=sentence,
        on_fail=OnFail.HOLD,
    )
