"""Base64 as the standard library reads it, by whichever way it goes."""

import base64
import io
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from gateway.api.rest.base64_image import decode_base64
from gateway.errors import ImageInvalid

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
# Pieces that texts are made of: clean, padded in odd places, broken into lines, url-safe, no ASCII.
_PIECE = st.one_of(
    st.binary(max_size=24).map(lambda data: base64.b64encode(data).decode()),
    st.binary(max_size=24).map(lambda data: base64.urlsafe_b64encode(data).decode()),
    st.text(_ALPHABET, max_size=6),
    st.sampled_from(
        ["=", "==", "===", "\n", "\r\n", " ", "\t", '"', "'", "-", "_", "\0", "ä", "画"]
    ),
    st.text(max_size=3),
)
_TEXT = st.lists(_PIECE, max_size=8).map("".join)


def _outcome(read: object, text: str | bytes) -> bytes | type[Exception]:
    assert callable(read)
    try:
        data = read(text)
    except ValueError:
        return ValueError
    assert isinstance(data, bytes)
    return data


def _is_prefixed(text: str) -> bool:
    return re.match(r"[ \t\r\n\"']*data:", text) is not None


@settings(max_examples=300, deadline=None)
@given(text=_TEXT)
@example("")
@example("=")
@example("====")
@example("QUJD====")
@example("QQ==QUJD")
@example("QQ==\nQUJD")
@example("QR==")
@example("Q Q = =")
@example("QQ=")
@example("QQ")
@example("Q")
@example("QUJ\ud800D")
@example('"QUJD"')
@example("-_-_")
@example("QUJD\n" * 100)
def test_every_text_is_read_as_the_standard_library_reads_it(text: str) -> None:
    """Value or ValueError: that of base64.b64decode for the text's UTF-8, as text and as bytes."""
    if _is_prefixed(text):
        return
    try:
        data = text.encode()
    except UnicodeEncodeError:
        assert _outcome(decode_base64, text) is ValueError
        return
    expected = _outcome(base64.b64decode, data)
    assert _outcome(decode_base64, text) == expected
    assert _outcome(decode_base64, data) == expected


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=400), width=st.integers(1, 80))
def test_what_was_encoded_comes_back(data: bytes, width: int) -> None:
    """Encoded, and broken into lines of any width: the same bytes."""
    text = base64.b64encode(data).decode()
    assert decode_base64(text) == data
    lines = [text[start : start + width] for start in range(0, len(text), width)]
    assert decode_base64("\r\n".join(lines)) == data


@pytest.mark.parametrize("before", ["", " ", "\n", '"', " '"])
@pytest.mark.parametrize("kind", ["image/png;base64", "", ";base64"])
def test_a_data_prefix_is_refused(before: str, kind: str) -> None:
    """`data:` in front, whatever follows: refused with what to do, never read as image data."""
    with pytest.raises(ImageInvalid, match="drop the prefix"):
        decode_base64(f"{before}data:{kind},QUJD")


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_an_image_in_the_url_safe_alphabet_is_named_as_such(file_format: str) -> None:
    """Skipping - and _ would leave a damaged image: the alphabet is named instead."""
    file = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, file_format)
    text = base64.urlsafe_b64encode(file.getvalue()).decode()
    assert {"-", "_"} & set(text)
    with pytest.raises(ImageInvalid, match="URL-safe"):
        decode_base64(text)
    assert decode_base64(base64.b64encode(file.getvalue())) == file.getvalue()


def test_the_letters_data_alone_are_data() -> None:
    """Without the colon, `data` is base64 like any other."""
    assert decode_base64("data") == base64.b64decode("data")
