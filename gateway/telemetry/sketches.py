"""
Latencies in a form that can be added up: DDSketch, whose quantiles are within a fixed share of the
true ones, however many sketches of however many processes were merged.

Recording uses the library's sketch; reading merges the library's protobuf messages as arrays, which
is some ten times faster than turning each of thousands back into a sketch.

Source: Masson, Rim, Lee, "DDSketch: A Fast and Fully-Mergeable Quantile Sketch with
Relative-Error Guarantees" (2019).
"""

import math
import struct
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
from ddsketch import DDSketch, LogarithmicMapping
from ddsketch.pb import ddsketch_pb2
from ddsketch.pb.proto import DDSketchProto

RELATIVE_ACCURACY = 0.008
"""A quantile is off by at most this share of its value."""
SHORTEST_S = 1e-6
"""What is shorter counts as this, so that clock noise needs no bins of its own."""

_RANK_ERROR = 1e-6
_MAPPING = LogarithmicMapping(RELATIVE_ACCURACY)
_FRAME = struct.Struct("<BdI")  # length of the name, sum in seconds, length of the sketch


class LatencySketch:
    """Durations as they come in. `add` costs about two microseconds."""

    __slots__ = ("_sketch", "sum_s")

    def __init__(self) -> None:
        self._sketch = DDSketch(RELATIVE_ACCURACY)
        self.sum_s = 0.0

    def add(self, duration_s: float) -> None:
        """Add one duration, in seconds."""
        self.sum_s += duration_s
        self._sketch.add(max(duration_s, SHORTEST_S))

    def message(self) -> bytes:
        """Return the sketch as the library's protobuf message, without the sum."""
        proto = DDSketchProto.to_proto(self._sketch)  # type: ignore[no-untyped-call]  # untyped library
        message: bytes = proto.SerializeToString()
        return message


class Latencies:
    """Merged durations: what sketches of any number of rows say together."""

    __slots__ = ("_counts", "_offset", "sum_s")

    def __init__(self) -> None:
        self._counts: npt.NDArray[np.float64] = np.zeros(0)
        self._offset = 0
        self.sum_s = 0.0

    @property
    def count(self) -> int:
        """How many durations there are."""
        return round(float(self._counts.sum()))

    @property
    def mean_s(self) -> float | None:
        """Their exact mean in seconds; None if there are none."""
        return self.sum_s / count if (count := self.count) else None

    def quantile_s(self, share: float) -> float | None:
        """
        Return the shortest duration that at least `share` of them do not exceed, in seconds; None
        if there are none.

        That is the nearest rank, rounded up: the p99 of a few durations is the longest of them.

        Source: numpy.quantile, method "inverted_cdf" (Hyndman and Fan's first).
        """
        count = float(self._counts.sum())
        if count == 0:
            return None
        # 0.07 × 100 is a rounding error more than 7.
        rank = max(1, math.ceil(share * count - _RANK_ERROR))
        place = int(np.searchsorted(np.cumsum(self._counts), rank))
        value: float = _MAPPING.value(self._offset + min(place, len(self._counts) - 1))
        return value

    def add_message(self, message: bytes, sum_s: float) -> None:
        """Merge one sketch in."""
        store = ddsketch_pb2.DDSketch.FromString(message).positiveValues
        counts = np.asarray(store.contiguousBinCounts, dtype=np.float64)
        filled = np.flatnonzero(counts)
        self.sum_s += sum_s
        if filled.size == 0:
            return
        first, last = int(filled[0]), int(filled[-1])
        self._add(counts[first : last + 1], store.contiguousBinIndexOffset + first)

    def _add(self, counts: npt.NDArray[np.float64], offset: int) -> None:
        if self._counts.size == 0:
            self._counts, self._offset = counts.copy(), offset
            return
        low = min(offset, self._offset)
        high = max(offset + counts.size, self._offset + self._counts.size)
        if low < self._offset or high > self._offset + self._counts.size:
            wider = np.zeros(high - low)
            wider[self._offset - low : self._offset - low + self._counts.size] = self._counts
            self._counts, self._offset = wider, low
        self._counts[offset - low : offset - low + counts.size] += counts

    def message(self) -> bytes:
        """Return the merged sketch in the library's format."""
        message: bytes = ddsketch_pb2.DDSketch(
            mapping=ddsketch_pb2.IndexMapping(gamma=_MAPPING.gamma, indexOffset=0.0),
            positiveValues=ddsketch_pb2.Store(
                contiguousBinCounts=self._counts, contiguousBinIndexOffset=self._offset
            ),
        ).SerializeToString()
        return message


def pack(sketches: Mapping[str, LatencySketch | Latencies]) -> bytes:
    """Pack named sketches into the one compressed value that a row stores."""
    parts = []
    for name, sketch in sketches.items():
        message = sketch.message()
        parts += [_FRAME.pack(len(name), sketch.sum_s, len(message)), name.encode(), message]
    return zlib.compress(b"".join(parts), 6)


def unpack(packed: bytes) -> Iterator[tuple[str, float, bytes]]:
    """Yield name, sum in seconds and message of each sketch that `pack` packed."""
    data = zlib.decompress(packed)
    at = 0
    while at < len(data):
        name_size, sum_s, message_size = _FRAME.unpack_from(data, at)
        at += _FRAME.size
        name = data[at : at + name_size].decode()
        at += name_size
        yield name, sum_s, data[at : at + message_size]
        at += message_size


def merge_packed(packed: bytes, into: dict[str, Latencies]) -> None:
    """Merge a row's sketches into those that were gathered so far."""
    for name, sum_s, message in unpack(packed):
        into.setdefault(name, Latencies()).add_message(message, sum_s)
