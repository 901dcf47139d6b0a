"""Letterbox and EXIF orientation: opt-in, and Pillow's to the bit."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from gateway.converter.signature import TensorSignature
from gateway.errors import ImageMismatch, PreprocessingInvalid
from gateway.inference.images.decoding import ImageLimits, decode_image
from gateway.inference.images.orientation import upright
from gateway.preprocessing.pixels import preprocess
from gateway.preprocessing.record import Preprocessing, resolve_preprocessing

_ANY = TensorSignature("x", "UINT8", (None, None, None, 3))
_GREY = TensorSignature("x", "UINT8", (None, None, None, 1))
_LIMITS = ImageLimits(1 << 20)
_RANDOM = np.random.default_rng(17)


def _pixels(height: int, width: int) -> np.ndarray:
    return _RANDOM.integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("sides", [(90, 130), (130, 90), (64, 64), (64, 31), (1, 64), (7, 5)])
@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
@pytest.mark.parametrize("fill", [0, 114, 255])
def test_letterbox_is_pillows_pad(sides: tuple[int, int], size: tuple[int, int], fill: int) -> None:
    """Every image of every form comes out as of ImageOps.pad, in colour and in grey."""
    pixels = _pixels(*sides)
    record = Preprocessing(size=size, resize="letterbox", fill=fill, interpolation="bicubic")
    image, bicubic = Image.fromarray(pixels), Image.Resampling.BICUBIC
    expected = ImageOps.pad(image, size[::-1], bicubic, (fill, fill, fill))
    np.testing.assert_array_equal(preprocess(pixels, record, _ANY)[0], np.asarray(expected))
    grey = record.model_copy(update={"channel_order": "GRAY"})
    expected = ImageOps.pad(image.convert("L"), size[::-1], bicubic, fill)
    np.testing.assert_array_equal(preprocess(pixels, grey, _GREY)[0, :, :, 0], np.asarray(expected))


def test_an_image_of_which_nothing_would_be_left_is_refused() -> None:
    """A line of pixels cannot be letterboxed into a square; it is the image's fault."""
    record = Preprocessing(size=(8, 8), resize="letterbox")
    with pytest.raises(ImageMismatch, match="too long and thin"):
        preprocess(_pixels(1, 999), record, _ANY)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_that_of_pillow(file_format: str, orientation: int) -> None:
    """Each of the eight orientations, in each format that carries them: ImageOps.exif_transpose."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(_pixels(24, 40)).save(file, file_format, exif=exif)
    encoded = file.getvalue()
    with Image.open(io.BytesIO(encoded)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    turned = upright(decode_image(encoded, _LIMITS), encoded)
    np.testing.assert_array_equal(turned, expected)
    assert turned.flags.c_contiguous


@pytest.mark.parametrize("damage", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM"])
def test_metadata_that_cannot_be_read_turn_nothing(damage: bytes) -> None:
    """Damaged EXIF leaves the pixels as they lie."""
    file = io.BytesIO()
    Image.fromarray(_pixels(24, 40)).save(file, "JPEG", exif=damage)
    pixels = decode_image(file.getvalue(), _LIMITS)
    assert upright(pixels, file.getvalue()) is pixels


def test_a_record_without_them_is_written_as_before() -> None:
    """Fields that say nothing are not written: digests of older records do not change."""
    plain = Preprocessing(size=(8, 8), resize="stretch").model_dump(mode="json")
    assert {"fill", "orientation"} & plain.keys() == set()
    told = Preprocessing(size=(8, 8), resize="letterbox", fill=0, orientation="exif")
    dumped = told.model_dump(mode="json")
    assert (dumped["fill"], dumped["orientation"]) == (0, "exif")
    assert Preprocessing.model_validate(dumped) == told


@pytest.mark.parametrize(
    "record", ['{"resize": "letterbox"}', '{"fill": 256}', '{"orientation": "portrait"}']
)
def test_what_they_cannot_be_is_refused(record: str) -> None:
    """Letterbox needs a size, the fill is a pixel's value, orientation is one of two."""
    with pytest.raises(PreprocessingInvalid):
        resolve_preprocessing(record, _ANY)
