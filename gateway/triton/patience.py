"""
How long a replica may take before another one is asked.

A replica that hangs would keep its requests until their deadline, though another one could answer.
What is long is learned: many times what the version usually takes, so that a slow model is waited
for. Asking twice is for what is rare: where everything is slow, because there is too much to do, it
would only add to it. So a small share of the requests may be asked anew.

Source: Dean and Barroso, "The Tail at Scale" (2013); retry budgets as in Envoy.
"""

from collections import defaultdict

_LEAST_S = 1.0
_TIMES_USUAL = 10.0
_LEAST_ANSWERS = 20
_WEIGHT = 0.05
_SHARE = 0.1
_SAVED = 20.0


class Patience:
    """What one gateway process has learned."""

    def __init__(self) -> None:
        self._usual_s: dict[tuple[str, int], float] = {}
        self._answers: defaultdict[tuple[str, int], int] = defaultdict(int)
        self._saved = _SAVED

    def answered(self, served: tuple[str, int], took_s: float) -> None:
        """Learn from an answer of a version."""
        self._answers[served] += 1
        usual_s = self._usual_s.get(served, took_s)
        self._usual_s[served] = usual_s + _WEIGHT * (took_s - usual_s)
        self._saved = min(_SAVED, self._saved + _SHARE)

    def limit_s(self, served: tuple[str, int]) -> float | None:
        """Tell how long to wait for an answer while there are others to ask; None: to the end."""
        if self._saved < 1.0 or self._answers[served] < _LEAST_ANSWERS:
            return None
        return max(_LEAST_S, _TIMES_USUAL * self._usual_s[served])

    def lost(self) -> None:
        """Take note that one was waited for in vain, and asked anew."""
        self._saved = max(0.0, self._saved - 1.0)
