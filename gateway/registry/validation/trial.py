"""
Trial inference: does the model answer real images as a classifier should?

Three photographs go through the graph, alone and in batches, as the server would send them. What
counts: finite scores, the same twice, and a row of a batch equal to that row alone. A model that
mixes the rows of a batch still serves, one request at a time.
"""

import math
import re
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from PIL import Image

from gateway.converter.errors import ToolError
from gateway.converter.onnx_signature import accepts_inputs
from gateway.converter.signature import ModelSignature, Shape, TensorSignature
from gateway.preprocessing.pixels import NUMPY_OF_TRITON, preprocess
from gateway.preprocessing.record import Preprocessing, image_axes
from gateway.registry.validation.runtime import Runtime, explain
from gateway.registry.validation.sandbox import peak_memory_bytes

_PHOTOGRAPHS = Path(__file__).parent / "photographs"
# Sizes for a model that says it takes any: usual ones and one that is not square. Then those of
# graphs that declare a free size and work with one only.
_USUAL_SIDES = ((224, 224), (160, 240), (64, 64))
_OTHER_SIDES = ((28, 28), (32, 32), (96, 96), (128, 128), (256, 256), (299, 299), (300, 300))
_MAX_SEARCHED_SIDE, _SEARCH_S = 512, 5.0
_REPEATS, _TIMED_S = 5, 0.25
_DISTINCT_ROWS = 3
_RELATIVE_TOLERANCE, _ABSOLUTE_TOLERANCE = 1e-3, 1e-4
_OUT_OF_MEMORY = re.compile(
    r"bad_alloc|[Ff]ailed to allocate|bad allocation|out of memory", re.IGNORECASE
)

Array = npt.NDArray[np.generic]


class TrialFailed(ToolError):
    """The graph cannot be run on an image."""

    code = "trial_failed"


class OutputInvalid(ToolError):
    """The graph answers NaN, infinity, or no scores."""

    code = "model_output_invalid"


@dataclass(frozen=True, slots=True)
class Trial:
    """
    What the trial found.

    Attributes:
        facts: For the report.
        warnings: What is worth knowing.
        images: The inputs that it was tried with, one image each.
        scores: What it answered them.
    """

    facts: dict[str, Any]
    warnings: tuple[str, ...]
    images: tuple[Array, ...]
    scores: tuple[Array, ...]


def run_trial(
    model: Path | bytes,
    graph: onnx.ModelProto,
    signature: ModelSignature,
    record: Preprocessing | None,
    *,
    max_batch_size: int,
    runtime: Runtime,
) -> Trial:
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
    session = _Session(model, signature, runtime)
    wanted = signature.inputs[0]
    warnings: list[str] = []
    fixed = record.size if record is not None and record.size is not None else None
    singles = _singles(session, graph, wanted, record, fixed, warnings)
    outputs = [session.scores(image) for image in singles]
    first = outputs[0]
    _check_scores(outputs)
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
    return Trial(facts, tuple(warnings), tuple(singles), tuple(outputs))


def answers_alike(source: Path, signature: ModelSignature, trial: Trial, runtime: Runtime) -> bool:
    """
    Whether the uploaded model answers the images of a trial with the same scores, bit for bit.

    Args:
        source, signature: The uploaded model.
        trial: Of the model with another datatype of the input.
        runtime: What the model is validated for.
    """
    session = _Session(source, signature, runtime)
    dtype = NUMPY_OF_TRITON[signature.inputs[0].dtype]
    return all(
        np.array_equal(session.scores(image.astype(dtype)), scores)
        for image, scores in zip(trial.images, trial.scores, strict=True)
    )


class _Session:
    """The model, one thread, and its errors in our words."""

    def __init__(
        self,
        model: Path | bytes,
        signature: ModelSignature,
        runtime: Runtime,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self._input = signature.inputs[0].name
        self._outputs = [tensor.name for tensor in signature.outputs]
        try:
            self._session = onnxruntime.InferenceSession(
                model if isinstance(model, bytes) else str(model),
                options,
                providers=["CPUExecutionProvider"],
            )
        except Exception as error:
            _raise_memory(error)
            explained = explain(error, runtime)
            if explained is not error:
                raise explained from error
            raise TrialFailed(f"onnxruntime cannot load the model: {_clean(error)}") from error

    def run(self, tensor: Array) -> list[Array]:
        try:
            return list(self._session.run(self._outputs, {self._input: tensor}))
        except Exception as error:
            _raise_memory(error)
            raise TrialFailed(
                f"The model fails on an input of shape {list(tensor.shape)}: {_clean(error)}"
            ) from error

    def scores(self, tensor: Array) -> Array:
        return self.run(tensor)[0]


def _singles(
    session: _Session,
    graph: onnx.ModelProto,
    wanted: TensorSignature,
    record: Preprocessing | None,
    fixed: tuple[int, int] | None,
    warnings: list[str],
) -> list[Array]:
    """Make one input of each photograph, in the sizes that the model takes."""
    axes = image_axes(wanted)
    assert axes is not None  # the signature was checked before
    free = fixed is None and None in _sides(axes)
    if not free:
        return [_input(photo, (224, 224), wanted, record) for photo in _photographs()]
    accepted: list[tuple[int, int]] = []
    refused: list[tuple[int, int]] = []
    failure: TrialFailed | None = None
    for sides in (*_USUAL_SIDES, *_OTHER_SIDES):
        if sides in _OTHER_SIDES and accepted:
            break
        try:
            session.scores(_input(_photographs()[0], sides, wanted, record))
        except TrialFailed as error:
            refused.append(sides)
            failure = failure or error
        else:
            accepted.append(sides)
    if not accepted:
        assert failure is not None
        accepted = _only_side(session, graph, wanted, record)
        if not accepted:
            raise failure
    if refused:
        taken = ", ".join(f"{height}x{width}" for height, width in accepted)
        warnings.append(
            f"The model declares a free height and width, but of the sizes tried it takes {taken} "
            "only. A preprocessing record with that size makes every image fit."
        )
    return [
        _input(photo, accepted[index % len(accepted)], wanted, record)
        for index, photo in enumerate(_photographs())
    ]


def _only_side(
    session: _Session,
    graph: onnx.ModelProto,
    wanted: TensorSignature,
    record: Preprocessing | None,
) -> list[tuple[int, int]]:
    """Search the one size that a graph works with, by its shapes first and then for real."""
    until_s = time.monotonic() + _SEARCH_S
    for side in range(1, _MAX_SEARCHED_SIDE + 1):
        if time.monotonic() > until_s:
            break
        tensor = _input(_photographs()[0], (side, side), wanted, record)
        if accepts_inputs(graph, {wanted.name: tensor.shape}):
            try:
                session.scores(tensor)
            except TrialFailed:
                continue
            return [(side, side)]
    return []


def _batch_problem(session: _Session, image: Array, largest: int) -> str | None:
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


def _median_s(session: _Session, tensor: Array) -> float:
    took_s = []
    for _ in range(_REPEATS):
        began_s = time.perf_counter()
        session.run(tensor)
        took_s.append(time.perf_counter() - began_s)
        if sum(took_s) > _TIMED_S:
            break
    return round(statistics.median(took_s), 6)


def _photographs() -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted(_PHOTOGRAPHS.glob("*.jpg"))]


def _input(
    photo: Image.Image,
    sides: tuple[int, int],
    wanted: TensorSignature,
    record: Preprocessing | None,
) -> Array:
    """Make an input of a photograph: by the record, or as near to raw pixels as it allows."""
    axes = image_axes(wanted)
    assert axes is not None
    if record is not None:
        height, width = _fixed_sides(axes, record, sides)
        if record.resize == "none":
            photo = photo.resize((width, height))
        return preprocess(np.asarray(photo), record, wanted)
    channels_first = _channels_first(axes)
    height, width = (
        fixed or side for fixed, side in zip(_sides(axes, channels_first), sides, strict=True)
    )
    channels = axes[0 if channels_first else 2] or 3
    size_bytes = height * width * channels * np.dtype(NUMPY_OF_TRITON[wanted.dtype]).itemsize
    pixels = np.asarray(photo.resize((width, height)))
    pixels = np.resize(pixels.transpose(2, 0, 1), (channels, height, width))
    if not channels_first:
        pixels = pixels.transpose(1, 2, 0)
    tensor = np.ascontiguousarray(pixels, dtype=NUMPY_OF_TRITON[wanted.dtype])
    assert tensor.nbytes == size_bytes
    return tensor[np.newaxis] if len(wanted.shape) == 4 else tensor


def _fixed_sides(axes: Shape, record: Preprocessing, sides: tuple[int, int]) -> tuple[int, int]:
    if record.size is not None:
        return record.size
    height, width = _sides(axes, record.layout == "NCHW")
    return height or sides[0], width or sides[1]


def _channels_first(axes: Shape) -> bool:
    return axes[2] not in {1, 3, 4} and (axes[0] in {1, 3, 4} or axes[2] is not None)


def _sides(axes: Shape, channels_first: bool | None = None) -> Shape:
    first = _channels_first(axes) if channels_first is None else channels_first
    return axes[1:] if first else axes[:2]


def _raise_memory(error: Exception) -> None:
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)):
        raise MemoryError(str(error)) from error


def _clean(error: Exception) -> str:
    """Keep what the runtime says about the model; leave out its sources' paths and functions."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"(?:/[\w.@+-]+){2,}(?::\d+)?\S*", "…", text)
    return text[:300]
