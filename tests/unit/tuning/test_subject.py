"""What is tuned, and with which input."""

from pathlib import Path

import numpy as np
import pytest

from gateway.converter.model_config import ConfigOptions
from gateway.converter.publish import publish_version
from gateway.converter.signature import TensorSignature
from gateway.converter.uint8_input import InputPolicy
from gateway.demo import SAMPLE
from gateway.errors import ImageInvalid, ModelNotFound, VersionNotFound
from gateway.tuning.errors import NotTunable, ShapeRequired
from gateway.tuning.subject import Subject, make_input, read_subject
from tests.model_family import FAMILY, ModelCase

CASES = {case.id: case for case in FAMILY}


def _read(
    repository: Path,
    name: str = "m",
    *,
    version: int | None = None,
    image: bytes | None = None,
    shape: tuple[int, ...] | None = None,
) -> Subject:
    return read_subject(
        repository,
        name,
        None,
        version=version,
        image=image,
        shape=shape,
        max_image_pixels=1_000_000,
    )


def _publish(repository: Path, case: ModelCase, version: int = 1) -> None:
    source = repository.parent / f"{version}.onnx"
    source.write_bytes(case.make().SerializeToString())
    publish_version(
        source,
        repository=repository,
        name="m",
        version=version,
        options=ConfigOptions(),
        policy=InputPolicy(pixels=True),
    )


@pytest.mark.parametrize(
    ("dtype", "shape", "chosen"),
    [
        ("UINT8", (None, None, None, 3), (1, 224, 224, 3)),
        ("FP32", (None, 3, None, None), (1, 3, 224, 224)),
        ("FP32", (None, 8, 9, 3), (1, 8, 9, 3)),
        ("FP16", (1, 3, 32, 32), (1, 3, 32, 32)),
        ("FP32", (None, None, 3), (224, 224, 3)),
        ("FP32", (None, None, None, None), (1, 224, 224, 3)),
    ],
)
def test_an_image_has_a_usual_size(
    dtype: str, shape: tuple[int | None, ...], chosen: tuple[int, ...]
) -> None:
    """One image; free sides are 224, and there are three channels wherever they lie."""
    made = make_input(TensorSignature("x", dtype, shape), None)
    assert made.shape == chosen
    assert 0 <= made.min() < made.max() <= 255


@pytest.mark.parametrize(
    "shape", [(None, 16), (None, None, None, None, 3), (None, 7, None, 5), ()], ids=str
)
def test_what_is_no_image_needs_a_shape(shape: tuple[int | None, ...]) -> None:
    """An input of another kind is asked with the shape that is said, and with no guess."""
    wanted = TensorSignature("x", "FP32", shape)
    with pytest.raises(ShapeRequired, match="--shape"):
        make_input(wanted, None)
    said = tuple(size or 2 for size in shape)
    assert make_input(wanted, said).shape == said


def test_a_shape_that_does_not_fit_is_refused() -> None:
    """A wrong rank, a fixed size that differs, or no size at all: said before Triton is started."""
    wanted = TensorSignature("x", "FP32", (None, 8, 8, 3))
    for shape in [(1, 8, 8), (1, 9, 8, 3), (0, 8, 8, 3)]:
        with pytest.raises(ShapeRequired, match="does not fit"):
            make_input(wanted, shape)


def test_a_model_is_found_in_the_repository(tmp_path: Path) -> None:
    """Without a gateway's record the newest version counts, with what its config.pbtxt says."""
    repository = tmp_path / "repository"
    for version in (1, 2):
        _publish(repository, CASES["nhwc-free"], version)
    subject = _read(repository)
    assert subject.version == 2
    assert subject.config_text == (repository / "m/config.pbtxt").read_text()
    assert subject.tensor.shape == (1, 224, 224, 3)
    assert subject.tensor.dtype == np.uint8
    assert _read(repository, version=1).version == 1
    with pytest.raises(ModelNotFound):
        _read(repository, "other")
    with pytest.raises(VersionNotFound):
        _read(repository, version=9)


def test_an_image_is_what_a_request_would_bring(tmp_path: Path) -> None:
    """The file is decoded as a request's image is; what is no image is refused as there."""
    repository = tmp_path / "repository"
    _publish(repository, CASES["nhwc-free"])
    subject = _read(repository, image=SAMPLE.read_bytes())
    assert subject.tensor.shape[0] == 1
    assert subject.tensor.shape[3] == 3
    assert subject.tensor.flags.c_contiguous
    with pytest.raises(ImageInvalid):
        _read(repository, image=b"not an image")


def test_a_model_of_several_inputs_is_refused(tmp_path: Path) -> None:
    """The gateway could not call it, so there is nothing to tune for."""
    repository = tmp_path / "repository"
    _publish(repository, CASES["scalars"])
    with pytest.raises(NotTunable, match="one input"):
        _read(repository)
