"""
What is tuned: one version of a model as it lies in the repository, its configuration, and the input
that it is asked with.

The input is a real image if one is given, as a request would bring it. Else it is made of pixels of
chance in a shape that is known to work: the one that was tried at registration, the one that the
model is warmed up with, or the sizes of the signature with 224 in the place of free sides.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.converter import model_config
from gateway.converter.errors import VersionMissing
from gateway.converter.publish import published_versions, read_published
from gateway.converter.signature import ModelSignature, TensorSignature, takes_raw_pixels
from gateway.errors import ModelNotFound, VersionNotFound
from gateway.inference.images.decoding import ImageLimits, decode_image
from gateway.inference.images.tensors import to_tensor
from gateway.preprocessing.pixels import NUMPY_OF_TRITON
from gateway.registry.versions import ModelVersion
from gateway.tuning.errors import NotTunable, ShapeRequired

_SIDE = 224
_ONE_IMAGE = (3, 4)


@dataclass(frozen=True, slots=True)
class Record:
    """What a gateway has recorded of a model: its champion's number, and its versions."""

    champion: int
    versions: Mapping[int, ModelVersion]


@dataclass(frozen=True, slots=True)
class Subject:
    """
    What is tuned.

    Attributes:
        name, version: Which version is asked.
        signature: Its inputs and outputs; it has one input.
        config_text: The config.pbtxt that it is loaded with now.
        tensor: The input, batch axis included.
    """

    name: str
    version: int
    signature: ModelSignature
    config_text: str
    tensor: npt.NDArray[np.generic]

    @property
    def config(self) -> Any:
        """Triton's ModelConfig of `config_text`."""
        return model_config.parse(self.config_text)

    @property
    def triton_model(self) -> str:
        """The Triton model in which the version lies: its directory in the repository."""
        return model_config.model_name(self.config_text) or self.name


def read_subject(
    repository: Path,
    name: str,
    record: Record | None,
    *,
    version: int | None,
    image: bytes | None,
    shape: tuple[int, ...] | None,
    max_image_pixels: int,
) -> Subject:
    """
    Find out what is to be tuned.

    Args:
        repository, name: The model.
        record: What the gateway has recorded of it, if it has.
        version: Which version; None: the champion, or the newest where nothing is recorded.
        image: An encoded image to ask with.
        shape: Of the input, batch axis included, instead of an image.
        max_image_pixels: Largest accepted image.

    Raises:
        ModelNotFound, VersionNotFound: There is no such thing in the repository.
        ConverterError: The repository's files cannot be read.
        NotTunable: The model has several inputs, an input without numbers, or no output.
        ShapeRequired: The input is not an image, and neither `shape` nor a known one says more.
        ImageInvalid, ImageMismatch, PreprocessingRequired: The image does not fit the model.
    """
    versions = published_versions(repository, name)
    if not versions:
        raise ModelNotFound(name)
    number = version or (record.champion if record is not None else versions[-1])
    try:
        published = read_published(repository, name, number)
    except VersionMissing:
        raise VersionNotFound(name, number) from None
    recorded = None if record is None else record.versions.get(number)
    text = published.config_text if recorded is None else recorded.config
    signature = published.signature
    if len(signature.inputs) != 1 or not signature.outputs:
        raise NotTunable(f"A model of one input and an output is needed; this one has {signature}")
    wanted = signature.inputs[0]
    if wanted.dtype not in NUMPY_OF_TRITON:
        raise NotTunable(f"The input {wanted} does not hold numbers.")
    if image is not None:
        pixels = decode_image(image, ImageLimits(max_image_pixels))
        preprocessing = None if recorded is None else recorded.preprocessing
        tensor = to_tensor(pixels, wanted, preprocessing)
    else:
        tried = None if recorded is None else recorded.trial_shape
        tensor = make_input(wanted, shape or tried or _warmed_up_with(text, wanted))
    return Subject(name, number, signature, text, np.ascontiguousarray(tensor))


def make_input(wanted: TensorSignature, shape: tuple[int, ...] | None) -> npt.NDArray[np.generic]:
    """
    Make an input of random pixels, 0 to 255, the same at every call.

    Args:
        wanted: The input.
        shape: A shape of it, batch axis included; None: one image, free sides 224.

    Raises:
        ShapeRequired: There is no shape and the input is no image, or the shape does not fit.
    """
    if shape is None:
        shape = _usual_shape(wanted)
    fits = len(shape) == len(wanted.shape) and all(
        size > 0 and size == (real or size) for size, real in zip(shape, wanted.shape, strict=True)
    )
    if not fits:
        raise ShapeRequired(f"The shape {list(shape)} does not fit the input {wanted}.")
    pixels = np.random.default_rng(0).integers(0, 256, size=shape, dtype=np.uint8)
    return pixels.astype(NUMPY_OF_TRITON[wanted.dtype])


def _usual_shape(wanted: TensorSignature) -> tuple[int, ...]:
    sizes = wanted.shape
    # Channels first, or any layout whose sizes are all told but that of the batch.
    known = len(sizes) in _ONE_IMAGE and all(sizes[len(sizes) - 3 :])
    planes = len(sizes) in _ONE_IMAGE and sizes[len(sizes) - 3] in {1, 3, 4}
    if not (takes_raw_pixels(wanted) or known or planes):
        raise ShapeRequired(
            f"The input {wanted} is not an image: say its shape, the batch axis first "
            "(--shape 1,16,8)."
        )
    chosen = [_SIDE if size is None else size for size in sizes]
    if len(sizes) == 4:
        chosen[0] = 1 if sizes[0] is None else chosen[0]
    if not planes and sizes[-1] is None:
        chosen[-1] = 3
    return tuple(chosen)


def _warmed_up_with(text: str, wanted: TensorSignature) -> tuple[int, ...] | None:
    """Give the shape of the configuration's first warm-up, with the batch axis where it has one."""
    config = model_config.parse(text)
    for warm_up in config.model_warmup:
        if wanted.name in warm_up.inputs:
            dims = tuple(warm_up.inputs[wanted.name].dims)
            return (1, *dims) if config.max_batch_size > 0 else dims
    return None
