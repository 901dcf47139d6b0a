"""The backend's way with images that travel as they are."""

import io
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gateway.triton.tensor import InputTensor
from tests.backend_source import load_backend_module


@pytest.fixture(scope="module")
def backend() -> ModuleType:
    return load_backend_module("encoded")


def _jpeg(**options: Any) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(3).integers(0, 256, (19, 31, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("rank", [3, 4])
def test_a_carried_image_is_unpacked_to_its_pixels(backend: ModuleType, rank: int) -> None:
    """What the gateway packs the backend unpacks, whatever is left over of the last pixel."""
    for quality in range(20, 40):
        encoded = _jpeg(quality=quality)
        carrier = InputTensor.carrying(encoded, (1, 19, 31, 3)[-rank:])
        assert carrier.array.ndim == rank
        assert carrier.shape == (1, 19, 31, 3)[-rank:]
        pixels = backend.decode(carrier.array, carrier.encoded_bytes, rank)
        wanted = np.asarray(Image.open(io.BytesIO(encoded)))
        np.testing.assert_array_equal(pixels, wanted[np.newaxis] if rank == 4 else wanted)


def test_what_is_damaged_is_refused(backend: ModuleType) -> None:
    """Anything but a whole JPEG is one error, and never pixels."""
    encoded = _jpeg()
    for damaged in (encoded[:-40], encoded[:50], b"\xff\xd8\xff", b"pixels"):
        carrier = InputTensor.carrying(damaged, (1, 19, 31, 3))
        with pytest.raises(backend.NotDecoded):
            backend.decode(carrier.array, carrier.encoded_bytes, 4)
