"""Decoding: where the original answered, its pixels; where it failed, RGB; else a clear refusal."""

import io
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gateway.errors import ImageInvalid, ImageTooLarge, ImageTruncated
from gateway.inference.images.decoding import FORMATS, ImageLimits, decode_image

LIMITS = ImageLimits(pixels=1_000_000)


def _encode(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _noise(mode: str, width: int, height: int, seed: int = 0) -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    data = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(data.squeeze(-1) if channels == 1 else data, mode)


@settings(max_examples=60, deadline=None)
@given(
    mode=st.sampled_from(["RGB", "RGBA"]),
    form=st.sampled_from(["PNG", "WEBP", "TIFF", "JPEG", "BMP"]),
    width=st.integers(1, 65),
    height=st.integers(1, 65),
    seed=st.integers(0, 1000),
)
def test_rgb_and_rgba_are_as_pillow_decodes_them(
    mode: str, form: str, width: int, height: int, seed: int
) -> None:
    """Every RGB or RGBA image gives Pillow's own array, cut to three channels."""
    if form in {"JPEG", "BMP"}:
        mode = "RGB"
    encoded = _encode(_noise(mode, width, height, seed), form)
    expected = np.array(Image.open(io.BytesIO(encoded)))[:, :, :3]
    pixels = decode_image(encoded, LIMITS)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, expected)


@settings(max_examples=40, deadline=None)
@given(
    subsampling=st.sampled_from([0, 1, 2]),
    progressive=st.booleans(),
    quality=st.integers(5, 100),
    width=st.integers(1, 70),
    height=st.integers(1, 70),
)
def test_every_kind_of_jpeg_is_as_pillow_decodes_it(
    subsampling: int, progressive: bool, quality: int, width: int, height: int
) -> None:
    """Baseline and progressive, each subsampling, odd sizes: Pillow's own pixels."""
    encoded = _encode(
        _noise("RGB", width, height),
        "JPEG",
        subsampling=subsampling,
        progressive=progressive,
        quality=quality,
    )
    np.testing.assert_array_equal(
        decode_image(encoded, LIMITS), np.array(Image.open(io.BytesIO(encoded)))
    )


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK"])
def test_what_the_original_could_not_take_is_converted(mode: str) -> None:
    """Greyscale with or without alpha, palette, 1-bit and CMYK become RGB as Pillow converts."""
    form = "JPEG" if mode == "CMYK" else "PNG"
    encoded = _encode(_noise("RGB", 20, 10).convert(mode), form)
    decoded = Image.open(io.BytesIO(encoded))
    assert decoded.mode == mode
    np.testing.assert_array_equal(decode_image(encoded, LIMITS), np.array(decoded.convert("RGB")))


def test_alpha_is_cut_off_and_not_blended() -> None:
    """A transparent pixel keeps its colour."""
    encoded = _encode(Image.new("RGBA", (1, 1), (10, 20, 30, 0)), "PNG")
    assert decode_image(encoded, LIMITS).tolist() == [[[10, 20, 30]]]


def test_sixteen_bit_grey_is_scaled_to_eight() -> None:
    """0 stays 0, 65535 becomes 255, and the rest is rounded to the nearest of the 256 steps."""
    grey = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    pixels = decode_image(_encode(Image.fromarray(grey), "PNG"), LIMITS)
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    assert (pixels[:, :, 0] == pixels[:, :, 2]).all()


def test_the_first_frame_of_an_animation_counts() -> None:
    """An animated GIF is its first frame."""
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    encoded = _encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(encoded, LIMITS)[0, 0].tolist() == [255, 0, 0]


def test_exif_orientation_is_not_applied() -> None:
    """A photograph that its camera marked as turned is taken as it is stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = _encode(_noise("RGB", 8, 4), "JPEG", exif=exif)
    assert decode_image(encoded, LIMITS).shape == (4, 8, 3)


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"\0",
        b"not an image at all",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>',
        b"%PDF-1.7\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n",
        b"SIMPLE  =                    T" + b" " * 50,
        _encode(Image.new("RGB", (2, 2)), "ICO"),
        _encode(Image.new("RGB", (2, 2)), "PPM"),
    ],
)
def test_only_the_accepted_formats_are_decoded(encoded: bytes) -> None:
    """Empty, no image, or an image of another format: ImageInvalid."""
    with pytest.raises(ImageInvalid) as caught:
        decode_image(encoded, LIMITS)
    assert caught.value.code == "image_invalid"


_WHOLE = {
    **{form: _encode(_noise("RGB", 40, 30), form) for form in FORMATS},
    "PNG palette": _encode(_noise("RGB", 40, 30).convert("P"), "PNG"),
    "JPEG progressive": _encode(_noise("RGB", 40, 30), "JPEG", progressive=True),
    "JPEG grey": _encode(_noise("L", 40, 30), "JPEG"),
    "WEBP lossless": _encode(_noise("RGB", 40, 30), "WEBP", lossless=True),
    **{
        f"TIFF {how}": _encode(_noise("RGB", 40, 30), "TIFF", compression=how)
        for how in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")
    },
}
# By the format, how long a beginning must be to be told by, and what stands behind the pixels.
_TOLD_BY = {"JPEG": 3, "PNG": 8, "WEBP": 4, "BMP": 2, "GIF": 6, "TIFF": 4}
_BEHIND = {"PNG": 24, "BMP": 4, "GIF": 5}


@pytest.mark.parametrize("kind", _WHOLE)
def test_a_file_that_ends_early_is_told_as_that(kind: str) -> None:
    """Wherever a file of any format and compression is cut: truncated, and never padded."""
    encoded, form = _WHOLE[kind], kind.partition(" ")[0]
    end = len(encoded) - _BEHIND.get(form, 0)
    for cut in {*range(_TOLD_BY[form], end, 41), _TOLD_BY[form], end - 1}:
        with pytest.raises(ImageTruncated):
            decode_image(encoded[:cut], LIMITS)


@pytest.mark.parametrize(
    ("kind", "damaged"),
    [("PNG", slice(100, 300)), ("WEBP", slice(12, 16)), ("TIFF tiff_deflate", slice(100, 300))],
)
def test_a_damaged_file_is_not_called_truncated(kind: str, damaged: slice) -> None:
    """A file that is whole and damaged is damaged: nothing of it is missing."""
    encoded = bytearray(_WHOLE[kind])
    encoded[damaged] = bytes(len(encoded[damaged]))
    with pytest.raises(ImageInvalid) as caught:
        decode_image(bytes(encoded), LIMITS)
    assert caught.value.code == "image_invalid"


@settings(max_examples=300, deadline=None)
@given(data=st.data(), form=st.sampled_from(FORMATS))
def test_damaged_bytes_give_pixels_or_a_refusal(data: st.DataObject, form: str) -> None:
    """Whatever bytes are flipped or cut: pixels or one of our errors, nothing else."""
    encoded = bytearray(_encode(_noise("RGB", 12, 9), form))
    for position in data.draw(st.lists(st.integers(0, len(encoded) - 1), max_size=4)):
        encoded[position] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(encoded)))
    try:
        pixels = decode_image(bytes(encoded[:cut]), LIMITS)
    except (ImageInvalid, ImageTooLarge):
        return
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    """A header of a hundred gigapixels costs no memory: ImageTooLarge from the header alone."""
    header = struct.pack(">IIBBBBB", 316_227, 316_227, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9))
    tracemalloc.start()
    with pytest.raises(ImageTooLarge, match="316227x316227"):
        decode_image(bomb, LIMITS)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1_000_000
