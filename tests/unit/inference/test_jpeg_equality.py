"""
The fast way with JPEGs against Pillow alone: the same pixels to the bit, or the same error.

The corpus is every kind of JPEG that Pillow and TurboJPEG can write, kinds that neither writes,
made by changing markers, and some of them cut and damaged at many places with fixed seeds.
"""

import io
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from gateway.errors import ImageInvalid, ImageTooLarge
from gateway.inference.images import decoding
from gateway.inference.images.decoding import ImageLimits, Pixels, decode_image

LIMITS = ImageLimits(pixels=250_000)
_PILLOWS = ("4:4:4", "4:2:2", "4:2:0")
_TURBOS = ("444", "422", "420", "440", "411")
_SIZES = ((1, 1), (2, 1), (7, 9), (8, 8), (16, 16), (17, 31), (33, 64))


def _picture(mode: str, width: int, height: int, seed: int = 0) -> Image.Image:
    """Noise over gradients: every coefficient is in use, and colours lie at their ends too."""
    rng = np.random.default_rng(seed)
    channels = {"L": 1, "RGB": 3, "CMYK": 4}[mode]
    ramp = np.linspace(0, 255, width * height * channels).reshape(height, width, channels)
    noisy = np.clip(ramp + rng.normal(0, 60, ramp.shape), 0, 255).astype(np.uint8)
    return Image.fromarray(noisy[:, :, 0] if channels == 1 else noisy, mode)


def _jpeg(picture: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def _turbo_jpeg(picture: Image.Image, sampling: str, quality: int = 90) -> bytes:
    encoded: bytes = simplejpeg.encode_jpeg(
        np.asarray(picture), quality, "RGB", colorsubsampling=sampling, fastdct=False
    )
    return encoded


def _segments(encoded: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, begin and end of each segment up to the start of the scan."""
    at = 2
    while encoded[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(encoded[at + 2 : at + 4])
        yield encoded[at + 1], at, end
        at = end


def _without(encoded: bytes, marker: int) -> bytes:
    kept = [encoded[begin:end] for kind, begin, end in _segments(encoded) if kind != marker]
    (*_, last) = _segments(encoded)
    return encoded[:2] + b"".join(kept) + encoded[last[2] :]


def _with(encoded: bytes, marker: int, content: bytes) -> bytes:
    size = (len(content) + 2).to_bytes(2)
    return encoded[:2] + bytes((0xFF, marker)) + size + content + encoded[2:]


def _adobe(transform: int) -> bytes:
    return b"Adobe\0\x64\0\0\0\0" + bytes((transform,))


def _hidden_short_segment(encoded: bytes) -> bytes:
    """
    Put filling and a JFIF segment that is too short in front. Whoever takes the filling for a
    segment jumps over the short one, to what looks like the scan within a comment.
    """
    short = b"\xff" + b"\xff\xe0\0\7JFIF\0"
    landing = 2 + 2 + 0xE000
    comment = bytes(landing - 2 - len(short) - 4) + b"\xff\xda\0\x0c"
    return encoded[:2] + short + _with(encoded, 0xFE, comment)[2:]


def _sampled(encoded: bytes, factors: Sequence[int]) -> bytes:
    """Write other sampling factors into the frame: the scan fits no more, or fits otherwise."""
    for kind, begin, _ in _segments(encoded):
        if kind in {0xC0, 0xC1, 0xC2}:
            changed = bytearray(encoded)
            for component, factor in enumerate(factors):
                changed[begin + 11 + 3 * component] = factor
            return bytes(changed)
    raise AssertionError("no frame")


def _corpus() -> dict[str, bytes]:
    made: dict[str, bytes] = {}
    for width, height in _SIZES:
        picture = _picture("RGB", width, height)
        for sampling, progressive in itertools.product(_PILLOWS, (True, False)):
            name = f"{width}x{height} {sampling} {'progressive' if progressive else 'baseline'}"
            made[name] = _jpeg(picture, subsampling=sampling, progressive=progressive)
        for sampling in _TURBOS:
            made[f"{width}x{height} {sampling}"] = _turbo_jpeg(picture, sampling)
    picture = _picture("RGB", 37, 29)
    for quality in (1, 2, 10, 50, 75, 95, 100):
        made[f"quality {quality}"] = _jpeg(picture, quality=quality)
    plain = made["plain"] = _jpeg(picture)
    made["optimised"] = _jpeg(picture, optimize=True)
    made["restart by block"] = _jpeg(picture, restart_marker_blocks=1)
    made["restart by row"] = _jpeg(picture, restart_marker_rows=1, progressive=True)
    made["own tables"] = _jpeg(picture, qtables=[list(range(1, 65)), [99] * 64])
    made["kept as RGB"] = _jpeg(picture, keep_rgb=True)
    made["kept as RGB, progressive"] = _jpeg(picture, keep_rgb=True, progressive=True)
    made["greyscale"] = _jpeg(_picture("L", 37, 29))
    made["greyscale, progressive"] = _jpeg(_picture("L", 17, 31), progressive=True)
    made["CMYK"] = cmyk = _jpeg(_picture("CMYK", 37, 29))
    made["CMYK without Adobe"] = _without(cmyk, 0xEE)
    made["YCCK"] = _with(_without(cmyk, 0xEE), 0xEE, _adobe(2))
    for transform in (0, 1, 2, 7):
        made[f"Adobe {transform}"] = _with(_without(plain, 0xE0), 0xEE, _adobe(transform))
        made[f"JFIF and Adobe {transform}"] = _with(plain, 0xEE, _adobe(transform))
    made["neither JFIF nor Adobe"] = _without(plain, 0xE0)
    exif = Image.Exif()
    exif[0x0112] = 6
    made["turned"] = _jpeg(picture, exif=exif)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    made["with a profile"] = _jpeg(picture, icc_profile=profile)
    made["with a comment"] = _jpeg(picture, comment=b"\xff\xd9 hello")
    made["with resolution"] = _jpeg(picture, dpi=(300, 299))
    made["garbage behind"] = plain + bytes(range(256)) * 8
    made["another behind"] = plain + plain
    made["zeros behind"] = plain + bytes(70_000)
    made["no end"] = plain.removesuffix(b"\xff\xd9")
    made["filled up"] = plain[:2] + b"\xff" * 9 + plain[2:]
    made["filled up, short JFIF"] = _hidden_short_segment(plain)
    made["empty scan"] = plain[: plain.index(b"\xff\xda") + 14] + b"\xff\xd9"
    made["broken Exif"] = _with(plain, 0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff")
    made["short Exif"] = _with(plain, 0xE1, b"Exif\0\0")
    made["broken Photoshop"] = _with(plain, 0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\xff\xff")
    made["short Photoshop"] = _with(plain, 0xED, b"Photoshop 3.0\x008BIM\x03")
    made["broken profile"] = _with(plain, 0xE2, b"ICC_PROFILE\0\1")
    made["broken multi-picture"] = _with(plain, 0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff")
    made["broken JFIF"] = _with(plain, 0xE0, b"JFIF\0")
    made["short JFIF"] = _with(plain, 0xE0, b"JFIF\0\1\1")
    made["short profile"] = _with(plain, 0xE2, b"ICC_PROFILE\0")
    made["empty profile"] = _with(plain, 0xE2, b"ICC_PROFILE\0\1\1")
    made["short Adobe"] = _with(plain, 0xEE, b"Adobe\0\x64")
    for factors in itertools.product((0x11, 0x12, 0x21, 0x22, 0x14, 0x41), repeat=3):
        made[f"sampling {factors}"] = _sampled(_jpeg(_picture("RGB", 33, 17)), factors)
    made["too many pixels"] = _jpeg(Image.new("RGB", (501, 500)))
    buffer = io.BytesIO()
    picture.save(buffer, "MPO", save_all=True, append_images=[_picture("RGB", 37, 29, 1)])
    made["multi-picture"] = buffer.getvalue()
    return made


CORPUS = _corpus()
_DAMAGED = (
    "plain",
    "17x31 4:2:0 progressive",
    "kept as RGB",
    "with a comment",
    "turned",
    "Adobe 0",
)


def _pillow_alone(encoded: bytes) -> Pixels | type[Exception]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "_JPEG_START", b"no file begins with this")
        return _outcome(encoded)


def _outcome(encoded: bytes) -> Pixels | type[Exception]:
    try:
        return decode_image(encoded, LIMITS)
    except (ImageInvalid, ImageTooLarge) as error:
        return type(error)


def _difference(encoded: bytes) -> str | None:
    """Say how the two ways differ; None if they do not."""
    expected, got = _pillow_alone(encoded), _outcome(encoded)
    if isinstance(expected, type) or isinstance(got, type):
        return None if expected is got else f"Pillow alone {expected!r:.60}, both {got!r:.60}"
    if expected.shape != got.shape or expected.dtype != got.dtype:
        return f"Pillow alone {expected.shape}, both {got.shape}"
    most = int(np.abs(expected.astype(int) - got).max())
    return f"by up to {most}" if most else None


def _differences(made: dict[str, bytes]) -> dict[str, str]:
    return {name: how for name, encoded in made.items() if (how := _difference(encoded))}


def test_every_kind_is_decoded_alike() -> None:
    """Every kind of JPEG: Pillow's own pixels, or the error that Pillow's way gives."""
    assert _differences(CORPUS) == {}


def test_the_fast_way_is_taken() -> None:
    """What phones and browsers write is not left to Pillow: else the test above says nothing."""
    for name in ("plain", "optimised", "17x31 4:2:0 progressive", "kept as RGB", "with a profile"):
        fast = decoding._decode_jpeg(CORPUS[name], LIMITS, decoding._allocate)
        assert fast is not None, name
    for name in ("CMYK", "YCCK", "greyscale", "no end"):
        assert decoding._decode_jpeg(CORPUS[name], LIMITS, decoding._allocate) is None, name


@pytest.mark.parametrize("name", _DAMAGED)
def test_a_cut_file_is_refused_alike(name: str) -> None:
    """Cut at each of many places, from the first byte to the last."""
    encoded = CORPUS[name]
    cuts = {*range(0, len(encoded), 11), *range(len(encoded) - 12, len(encoded))}
    assert _differences({f"cut at {cut}": encoded[:cut] for cut in sorted(cuts)}) == {}


@pytest.mark.parametrize("name", _DAMAGED)
def test_flipped_bytes_are_taken_alike(name: str) -> None:
    """One byte changed at every place of the header, and at many of the scan."""
    encoded, rng = CORPUS[name], np.random.default_rng(len(name))
    scan = encoded.index(b"\xff\xda")
    header = range(2, scan + 14)
    within = rng.choice(np.arange(scan + 14, len(encoded)), 60, replace=False)
    made = {}
    for place in (*header, *within.tolist()):
        changed = bytearray(encoded)
        changed[place] ^= int(rng.integers(1, 256))
        made[f"{place} {changed[place]:#x} (was {encoded[place]:#x})"] = bytes(changed)
    assert _differences(made) == {}


@settings(max_examples=100, deadline=None)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    quality=st.integers(1, 100),
    sampling=st.sampled_from(_PILLOWS),
    progressive=st.booleans(),
    optimize=st.booleans(),
    restart=st.integers(0, 5),
    mode=st.sampled_from(["RGB", "RGB", "L", "CMYK"]),
    seed=st.integers(0, 99),
)
def test_any_jpeg_is_decoded_alike(
    width: int,
    height: int,
    quality: int,
    sampling: str,
    progressive: bool,
    optimize: bool,
    restart: int,
    mode: str,
    seed: int,
) -> None:
    """Whatever is chosen of what an encoder may choose: Pillow's own pixels."""
    encoded = _jpeg(
        _picture(mode, width, height, seed),
        quality=quality,
        subsampling=sampling if mode == "RGB" else "4:4:4",
        progressive=progressive,
        optimize=optimize,
        restart_marker_blocks=restart,
    )
    assert _difference(encoded) is None


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    quality=st.integers(1, 100),
    sampling=st.sampled_from(_TURBOS),
    seed=st.integers(0, 99),
)
def test_any_subsampling_is_decoded_alike(
    width: int, height: int, quality: int, sampling: str, seed: int
) -> None:
    """Every subsampling that there is a name for, at every quality and size."""
    encoded = _turbo_jpeg(_picture("RGB", width, height, seed), sampling, quality)
    assert _difference(encoded) is None
