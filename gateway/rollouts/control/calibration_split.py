"""
Which images of a set calibrate, and which judge. Pure.

Images are ordered by the digest of their names: whoever knows the set and the number divides it in
the same way. A version that was calibrated on images is never judged on them.
"""

import hashlib
from collections.abc import Sequence

MOST_SHARE = 0.25
"""At most this part of a set calibrates, whatever is asked for."""


def calibration_indexes(files: Sequence[str], wanted: int) -> list[int]:
    """
    Choose the images that calibrate.

    Args:
        files: Names of all images of the set.
        wanted: How many; never more than a quarter of them.

    Returns:
        Their indexes in `files`, in order.
    """
    count = min(wanted, int(len(files) * MOST_SHARE))
    by_digest = sorted(range(len(files)), key=lambda index: _digest(files[index]))
    return sorted(by_digest[:count])


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
