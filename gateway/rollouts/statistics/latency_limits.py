"""Where the tolerated limit of each latency bucket lies."""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from gateway.rollouts.statistics.histogram import LATENCY_BUCKETS, latency_edges_s
from gateway.rollouts.statistics.metrics import Metric


@lru_cache(maxsize=64)
def latency_limits(metric: Metric) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """
    Where the limit of each latency bucket lies: the arguments `surely` and `perhaps` of
    `evidence.percentiles`, each of shape [LATENCY_BUCKETS].
    """
    edges = np.concatenate([[0.0], latency_edges_s()])
    upper = np.append(edges[1:], math.inf)
    limit_of_upper = np.array([metric.limit_s(edge) for edge in upper])
    limit_of_lower = np.array([metric.limit_s(edge) for edge in edges])
    # A limit that is an edge but for rounding is taken to be that edge.
    surely = np.searchsorted(edges, limit_of_upper * (1 - 1e-12), side="left")
    perhaps = np.searchsorted(edges, limit_of_lower * (1 + 1e-12), side="right") - 1
    return np.clip(surely, 1, LATENCY_BUCKETS), np.clip(perhaps, 0, LATENCY_BUCKETS - 1)
