"""Reading moments and lengths of time as people write them. Pure."""

import math
import re
from datetime import UTC, datetime

from gateway.errors import MetricsQueryInvalid

_LENGTH = re.compile(r"(\d{1,9})(s|m|h|d|w)?")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, None: 1}
_DATE = (
    "(19[7-9][0-9]|[2-9][0-9]{3})-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])"
    "|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
)
MOMENT_PATTERN = (
    rf"^([0-9]{{1,11}}(\.[0-9]{{1,9}})?|{_DATE}(T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z)?)$"
)
"""What schemas say of a moment; more is understood, such as other zones."""
LENGTH_PATTERN = "^[1-9][0-9]{0,5}[smhdw]?$"
"""What schemas say of a length of time."""
_LATEST_S = 253_402_300_799  # the end of the year 9999


def read_length_s(text: str) -> int:
    """
    Read a length of time: `90`, `90s`, `5m`, `1h`, `7d`, `2w`.

    Raises:
        MetricsQueryInvalid: It is none, or nothing.
    """
    found = _LENGTH.fullmatch(text)
    length_s = int(found[1]) * _UNIT_S[found[2]] if found else 0
    if not 0 < length_s <= _LATEST_S:
        raise MetricsQueryInvalid("A length of time reads 90s, 5m, 1h, 7d or 2w.")
    return length_s


def read_moment_s(text: str) -> int:
    """
    Read a moment: ISO 8601 (UTC if it names no zone), or seconds since 1970.

    Raises:
        MetricsQueryInvalid: It is neither.
    """
    try:
        # A blank stands for the plus of a zone that was not escaped in a URL.
        moment_s = float(text) if _number(text) else _timestamp(text.replace(" ", "+"))
    except (ValueError, OverflowError):
        moment_s = -1.0
    if not 0 <= moment_s <= _LATEST_S:
        raise MetricsQueryInvalid(
            "A moment reads 2026-01-31T12:00:00Z, 2026-01-31, or seconds since 1970."
        )
    return math.floor(moment_s)


def iso(moment_s: int) -> str:
    """Write a moment, to the second, in UTC."""
    return datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def iso_ms(moment_s: float) -> str:
    """Write a moment, to the millisecond, in UTC."""
    moment = datetime.fromtimestamp(moment_s, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _number(text: str) -> bool:
    return re.fullmatch(r"\d{1,12}(\.\d{1,9})?", text) is not None


def _timestamp(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
