"""Ask models of one machine the same images: what they answer, and how long they take."""

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from gateway.optimize.quantization import Tensor

_WARM_UP_RUNS = 3
_ROUND_S = 0.15
_MOST_RUNS = 200


class Session:
    """A model that can be asked: one thread, as an instance in Triton has."""

    def __init__(self, model: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        providers = onnxruntime.get_available_providers()
        chosen = [each for each in ("CUDAExecutionProvider",) if each in providers]
        self._session = onnxruntime.InferenceSession(
            str(model), options, providers=[*chosen, "CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name

    def scores(self, tensor: Tensor) -> npt.NDArray[np.generic]:
        """Return the scores of one image."""
        (scores,) = self._session.run([self._output], {self._input: tensor})
        return np.asarray(scores)

    def answers(self, tensors: Sequence[Tensor]) -> npt.NDArray[np.int64]:
        """Return the class that each image is given."""
        return np.array([int(np.argmax(self.scores(tensor))) for tensor in tensors], np.int64)

    def median_s(self, tensors: Sequence[Tensor], for_s: float) -> float:
        """Measure for some seconds; the median of one run."""
        took_s: list[float] = []
        until_s = time.perf_counter() + for_s
        while (began_s := time.perf_counter()) < until_s and len(took_s) < _MOST_RUNS:
            self.scores(tensors[len(took_s) % len(tensors)])
            took_s.append(time.perf_counter() - began_s)
        return statistics.median(took_s)


def latencies_s(
    sessions: Mapping[str, Session], tensors: Sequence[Tensor], *, rounds: int
) -> dict[str, list[float]]:
    """
    Measure several models in turns, so that what else the machine does happens to all of them.

    Returns:
        By name, the median of each round, seconds.
    """
    found: dict[str, list[float]] = {name: [] for name in sessions}
    for session in sessions.values():
        for _ in range(_WARM_UP_RUNS):
            session.scores(tensors[0])
    for _ in range(rounds):
        for name, session in sessions.items():
            found[name].append(session.median_s(tensors, _ROUND_S))
    return found
