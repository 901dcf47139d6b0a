"""
Which candidate is worth it. Pure: measurements come in, a decision and a sentence go out.

A candidate has to agree with the model that it is made of on the images that did not calibrate, and
to be faster on this machine, by a tenth at least if nothing else is said. Of those that are, the
fastest wins; of two that are as fast within 3 %, the one that agrees more.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

LEAST_SPEEDUP = 1.1
"""What is less is not worth a version of its own."""
_AS_FAST = 1.03


@dataclass(frozen=True, slots=True)
class Row:
    """
    One model, measured.

    Attributes:
        name: The recipe in words; "as it is" for the model itself.
        agreement: Share of the judging images on which the answer is the model's own, 0 to 1.
        accuracy: Share of them that are answered right, 0 to 1; None without labels.
        latency_ms: Median of one image, one thread.
        speedup: The model's own latency divided by this one's, measured in turns.
        size_bytes: Of the file.
    """

    name: str
    agreement: float
    accuracy: float | None
    latency_ms: float
    speedup: float
    size_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Give it as JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Choice:
    """`chosen` is an index into the rows; None: nothing is worth it. `reason` is for people."""

    chosen: int | None
    reason: str


def decide(rows: Sequence[Row], *, least_agreement: float, least_speedup: float) -> Choice:
    """
    Choose among candidates.

    Args:
        rows: The candidates, without the model itself.
        least_agreement: What a candidate must agree at least, 0 to 1.
        least_speedup: How many times as fast it must be at least.
    """
    if not rows:
        return Choice(None, "No candidate could be made: nothing in the graph can be quantized.")
    if (best := max(row.speedup for row in rows)) < least_speedup:
        return Choice(None, _too_slow(best, least_speedup))
    agreeing = [index for index, row in enumerate(rows) if row.agreement >= least_agreement]
    if not agreeing:
        nearest = max(rows, key=lambda row: row.agreement)
        return Choice(
            None,
            f"No candidate answers as the model does: {nearest.name} agrees on "
            f"{nearest.agreement:.1%} of the images, {least_agreement:.1%} are wanted.",
        )
    if (fastest := max(rows[index].speedup for index in agreeing)) < least_speedup:
        return Choice(None, _too_slow(fastest, least_speedup))
    near = [index for index in agreeing if rows[index].speedup * _AS_FAST >= fastest]
    chosen = max(near, key=lambda index: (rows[index].agreement, rows[index].speedup))
    row = rows[chosen]
    return Choice(
        chosen,
        f"{row.name} is {row.speedup:.2f} times as fast on this machine and agrees on "
        f"{row.agreement:.1%} of the images.",
    )


def _too_slow(speedup: float, least: float) -> str:
    if speedup < 1:
        return f"All candidates are slower on this machine: {speedup:.2f} times as fast at best."
    return (
        f"It is not worth it on this machine: {speedup:.2f} times as fast at best, {least:.2f} "
        "times is the least."
    )
