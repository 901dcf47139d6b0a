"""
How fast a caller may ask: a bucket of tokens for each key with a rate, refilled all the time, that
holds one second's worth. Pure: the time comes in.

With several workers each has its part of the rate, because connections are shared out evenly.

Source: draft-ietf-httpapi-ratelimit-headers-10, for what is told of a bucket.
"""

import math
from typing import NamedTuple

from gateway.access.callers import Caller
from gateway.errors import RateLimited


class Allowance(NamedTuple):
    """
    What is left after a request.

    Attributes:
        quota: Requests that the full bucket holds.
        window_s: How long an empty bucket takes to be full, in whole seconds.
        remaining: Requests that may come at once now.
        reset_s: How long until the bucket is full, in whole seconds.
    """

    quota: int
    window_s: int
    remaining: int
    reset_s: int


class _Bucket:
    __slots__ = ("at_s", "quota", "rate_per_s", "tokens", "window_s")

    def __init__(self, rate_per_s: float, at_s: float) -> None:
        self.rate_per_s = rate_per_s
        self.quota = max(1, math.ceil(rate_per_s))
        self.window_s = math.ceil(self.quota / rate_per_s)
        self.tokens: float = self.quota
        self.at_s = at_s

    def refill(self, now_s: float) -> None:
        tokens = self.tokens + (now_s - self.at_s) * self.rate_per_s
        self.tokens = min(self.quota, tokens)
        self.at_s = now_s


class RateLimits:
    """
    The buckets of this process.

    Args:
        part: Which part of each rate this process grants, at most 1.
    """

    def __init__(self, *, part: float = 1.0) -> None:
        self._part = part
        self._buckets: dict[str, _Bucket] = {}

    def in_flight(self, caller: Caller) -> int | None:
        """Tell how many runs of a caller this process may work on at once; None for any number."""
        allowed = caller.limits.in_flight
        return None if allowed is None else max(1, round(allowed * self._part))

    def look(self, caller: Caller, now_s: float) -> Allowance | None:
        """Tell what a caller has left; None for one without a rate. `now_s` never goes back."""
        bucket = self._refilled(caller, now_s)
        if bucket is None:
            return None
        reset_s = math.ceil((bucket.quota - bucket.tokens) / bucket.rate_per_s)
        return Allowance(bucket.quota, bucket.window_s, int(bucket.tokens), reset_s)

    def take(self, caller: Caller, now_s: float) -> None:
        """
        Take a token of a caller.

        Raises:
            RateLimited: There is none; it says how long until there is one.
        """
        bucket = self._refilled(caller, now_s)
        if bucket is None:
            return
        if bucket.tokens < 1.0:
            raise RateLimited(
                f"The key's limit of {caller.limits.rate_per_s:g} requests per second is reached.",
                retry_after_s=(1.0 - bucket.tokens) / bucket.rate_per_s,
            )
        bucket.tokens -= 1.0

    def _refilled(self, caller: Caller, now_s: float) -> _Bucket | None:
        rate_per_s = caller.limits.rate_per_s
        if rate_per_s is None:
            return None
        bucket = self._buckets.get(caller.id)
        if bucket is None:
            bucket = self._buckets[caller.id] = _Bucket(rate_per_s * self._part, now_s)
        else:
            bucket.refill(now_s)
        return bucket
