"""
Trial inference: does the model answer real images as a classifier should?

Three photographs go through the graph, alone and in batches, as the server would send them. What
counts: finite scores, the same twice, and a row of a batch equal to that row alone. A model that
mixes the rows of a batch still serves, one request at a time.
"""

import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from gateway.converter.errors import ConverterError, SignatureUnsupported
from gateway.converter.signature import ModelSignature
from gateway.preprocessing.pixels import NUMPY_OF_TRITON
from gateway.preprocessing.record import Preprocessing
from gateway.registry.validation.runtime import Runtime
from gateway.registry.validation.sandbox import peak_memory_bytes
from gateway.registry.validation.trial_inputs import trial_inputs
from gateway.registry.validation.trial_session import Array, TrialFailed, TrialSession

_REPEATS, _TIMED_S = 5, 0.25
_DISTINCT_ROWS = 3
_RELATIVE_TOLERANCE, _ABSOLUTE_TOLERANCE = 1e-3, 1e-4


class OutputInvalid(ConverterError):
    """The graph answers NaN, infinity, or no scores."""

    code = "model_output_invalid"


@dataclass(frozen=True, slots=True)
class TrialResult:
    """
    What the trial found.

    Attributes:
        facts: For the report.
        warnings: What is worth knowing.
        images: The inputs that it was tried with, one image each.
        rows: What it answered them: every output.
    """

    facts: dict[str, Any]
    warnings: tuple[str, ...]
    images: tuple[Array, ...]
    rows: tuple[tuple[Array, ...], ...]

    @property
    def scores(self) -> tuple[Array, ...]:
        """The first output for each image."""
        return tuple(row[0] for row in self.rows)


def run_trial(
    model: Path | bytes,
    graph: onnx.ModelProto,
    signature: ModelSignature,
    record: Preprocessing | None,
    *,
    max_batch_size: int,
    runtime: Runtime,
) -> TrialResult:
    """
    Run a model on photographs.

    Args:
        model: Its file, or the bytes of one.
        graph, signature: Of the model; the weights may be missing.
        record: How an image becomes its input; None: as it is.
        max_batch_size: Largest batch to try.
        runtime: What the model is validated for.

    Raises:
        TrialFailed: It cannot be run.
        OutputInvalid: Its scores are not finite, or there are none.
        OperatorUnsupported, OpsetUnsupported: The runtime does not know what it asks for.
        MemoryError: It asked for more memory than there is.
    """
    session = TrialSession(model, signature, runtime)
    wanted = signature.inputs[0]
    warnings: list[str] = []
    fixed = record.size if record is not None and record.size is not None else None
    singles = trial_inputs(session, graph, wanted, record, fixed, warnings)
    rows = tuple(tuple(session.run(image)) for image in singles)
    outputs = [row[0] for row in rows]
    first = outputs[0]
    _check_scores(outputs)
    _check_axis(session, signature, singles[0], first)
    deterministic = np.array_equal(first, session.scores(singles[0]))
    if not deterministic:
        warnings.append("The model answers the same image differently: it is not deterministic.")
    latency_s, memory_bytes = _median_s(session, singles[0]), peak_memory_bytes()
    facts: dict[str, Any] = {
        "input_shapes": [list(image.shape) for image in singles],
        "output_shape": list(first.shape),
        "classes": int(first.size),
        "scores": _kind(outputs),
        "deterministic": bool(deterministic),
        "latency_batch_1_s": latency_s,
        "peak_memory_batch_1_bytes": memory_bytes,
    }
    largest = 0
    if signature.batchable and max_batch_size > 0:
        problem = _batch_problem(session, singles[0], max_batch_size)
        if problem is None and deterministic:
            largest = max_batch_size
            batch = np.repeat(singles[0], largest, axis=0)
            facts["latency_batch_largest_s"] = _median_s(session, batch)
            facts["peak_memory_batch_largest_bytes"] = peak_memory_bytes()
        elif problem is not None:
            warnings.append(f"{problem} It is served one request at a time (max_batch_size: 0).")
    facts["max_batch_size"] = largest
    return TrialResult(facts, tuple(warnings), tuple(singles), rows)


def answers_alike(
    source: Path, signature: ModelSignature, trial: TrialResult, runtime: Runtime
) -> bool:
    """
    Whether the uploaded model answers the images of a trial with the same scores, bit for bit.

    Args:
        source, signature: The uploaded model.
        trial: Of the model with another datatype of the input.
        runtime: What the model is validated for.
    """
    session = TrialSession(source, signature, runtime)
    dtype = NUMPY_OF_TRITON[signature.inputs[0].dtype]
    return all(
        np.array_equal(session.scores(image.astype(dtype)), scores)
        for image, scores in zip(trial.images, trial.scores, strict=True)
    )


def _batch_problem(session: TrialSession, image: Array, largest: int) -> str | None:
    """Compare each row of a batch with that row alone; None if all are equal."""
    distinct = min(_DISTINCT_ROWS, largest)
    rows = [np.ascontiguousarray(_varied(image, shift)) for shift in range(distinct)]
    alone = [session.run(row) for row in rows]
    for size in sorted({2, largest} - {1}):
        try:
            together = session.run(np.concatenate([rows[row % distinct] for row in range(size)]))
        except TrialFailed:
            return f"The model declares a free batch axis and fails on a batch of {size}."
        for index, batch in enumerate(together):
            if batch.ndim == 0 or batch.shape[0] != size:
                return f"Output {index + 1} has no row for each image of a batch."
            for row in range(size):
                if not _close(batch[row], alone[row % distinct][index][0]):
                    return "A row of a batch differs from that image alone: the model mixes images."
    return None


def _varied(image: Array, shift: int) -> Array:
    """Another image of the same size: the rows of a batch must not be equal."""
    axis = 1 + int(np.argmax(image.shape[1:]))
    flipped = np.flip(image, axis) if shift % 2 else image
    return np.roll(flipped, shift * max(1, image.shape[axis] // 9), axis)


def _close(one: Array, other: Array) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    largest = float(np.max(np.abs(other), initial=0.0))
    return bool(
        np.allclose(
            one,
            other,
            rtol=_RELATIVE_TOLERANCE,
            atol=_ABSOLUTE_TOLERANCE * max(largest, 1e-6),
            equal_nan=True,
        )
    )


def _check_axis(
    session: TrialSession, signature: ModelSignature, image: Array, answered: Array
) -> None:
    """
    Check that the one axis of the first output is that of the classes.

    Raises:
        SignatureUnsupported: It has one number for each image of a batch.
    """
    if signature.inputs[0].shape[0] is not None or answered.shape != (1,):
        return
    try:
        together = session.scores(np.concatenate([image, _varied(image, 1)]))
    except TrialFailed:
        return
    if together.shape == (2,):
        raise SignatureUnsupported(
            f"Not an image classifier: the first output {signature.outputs[0].name!r} has one "
            "number for each image, and no axis of classes: it is a label, or a single score. Put "
            f"the scores first. The model has {signature}"
        )


def _check_scores(outputs: list[Array]) -> None:
    for scores in outputs:
        if scores.size == 0:
            raise OutputInvalid("The model answers no scores for an image.")
        if max(scores.shape, default=1) != scores.size:
            raise OutputInvalid(
                f"The model answers {list(scores.shape)} for one image, not one score by class."
            )
        if scores.dtype.kind == "f" and not np.isfinite(scores).all():
            raise OutputInvalid(
                "The model answers NaN or infinity for a photograph. If it needs other values "
                "than 0-255, register it with a preprocessing record."
            )


def _kind(outputs: list[Array]) -> str:
    """Tell whether scores are probabilities already: none negative, a sum of one."""
    for scores in outputs:
        values = scores.astype(np.float64)
        if values.min() < 0 or not math.isclose(float(values.sum()), 1.0, abs_tol=1e-2):
            return "logits"
    return "probabilities"


def _median_s(session: TrialSession, tensor: Array) -> float:
    took_s = []
    for _ in range(_REPEATS):
        began_s = time.perf_counter()
        session.run(tensor)
        took_s.append(time.perf_counter() - began_s)
        if sum(took_s) > _TIMED_S:
            break
    return round(statistics.median(took_s), 6)
