"""The inputs of a trial: photographs, in a size that the model takes."""

import time
from pathlib import Path

import numpy as np
import onnx
from PIL import Image

from gateway.converter.onnx_signature import accepts_inputs
from gateway.converter.signature import Shape, TensorSignature
from gateway.preprocessing.pixels import NUMPY_OF_TRITON, preprocess
from gateway.preprocessing.presets import image_axes
from gateway.preprocessing.record import Preprocessing
from gateway.registry.validation.trial_session import Array, TrialFailed, TrialSession

_PHOTOGRAPHS = Path(__file__).parent / "photographs"
# Sizes for a model that says it takes any: usual ones and one that is not square. Then those of
# graphs that declare a free size and work with one only.
_USUAL_SIDES = ((224, 224), (160, 240), (64, 64))
_OTHER_SIDES = ((28, 28), (32, 32), (96, 96), (128, 128), (256, 256), (299, 299), (300, 300))
_MAX_SEARCHED_SIDE, _SEARCH_S = 512, 5.0


def trial_inputs(
    session: TrialSession,
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
    session: TrialSession,
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
