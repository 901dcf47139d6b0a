"""
The request's image: made, not taken, so that it is the same everywhere and nobody's. It looks like
a photograph to a JPEG codec: broad colours, edges, and the noise of a sensor.
"""

import base64
import io

import numpy as np
import orjson
from PIL import Image

WIDTH, HEIGHT = 815, 803
QUALITY = 90  # with this noise, a file of 146 kB
SMALL_SIDE = 224
_SEED = 20
_NOISE = 4.7


def _field(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Draw a smooth random field: [HEIGHT, WIDTH, 3], about -1 to 1."""
    coarse = rng.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
    channels = [
        np.asarray(
            Image.fromarray(coarse[..., channel]).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        )
        for channel in range(3)
    ]
    return np.stack(channels, axis=-1)


def photograph() -> Image.Image:
    """Make the image, 815 wide and 803 high, RGB."""
    rng = np.random.default_rng(_SEED)
    pixels = np.full((HEIGHT, WIDTH, 3), 128.0, np.float32)
    for cells, amplitude in ((3, 70.0), (9, 40.0), (30, 20.0), (90, 12.0)):
        pixels += amplitude * _field(rng, cells)
    # Edges, as objects have: where a smooth field changes its sign, the light changes.
    pixels += 35.0 * np.sign(_field(rng, 7)[..., :1])
    pixels += rng.normal(0.0, _NOISE, pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def jpeg(image: Image.Image) -> bytes:
    """Encode as most cameras and tools do: baseline, 4:2:0."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def jpegs() -> tuple[bytes, bytes]:
    """Give the large image and the small one, encoded."""
    large = photograph()
    small = large.resize((SMALL_SIDE, SMALL_SIDE), Image.Resampling.BICUBIC)
    return jpeg(large), jpeg(small)


def request_bodies() -> tuple[bytes, bytes]:
    """Give the JSON of a request for the large image and for the small one."""
    large, small = jpegs()
    return request_body(large), request_body(small)


def request_body(image: bytes) -> bytes:
    """Give the JSON that every server of the comparison takes."""
    return orjson.dumps({"image": base64.b64encode(image).decode()})
