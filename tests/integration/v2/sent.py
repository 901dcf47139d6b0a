"""What the tests of the Open Inference Protocol send."""

import base64
import io

import numpy as np
import tritonclient.http as triton_http
from numpy.typing import NDArray
from PIL import Image

from tests.model_family import classifier_case

SIDES = (24, 17)
RNG = np.random.default_rng(11)
PIXELS = RNG.integers(0, 256, (3, *SIDES, 3), np.uint8)


def tiny_model(seed: int) -> bytes:
    case = classifier_case("m", (None, None, None, 3), seed=seed)
    content: bytes = case.make().SerializeToString()
    return content


def image_file(pixels: NDArray[np.uint8], kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def given_input(pixels: NDArray[np.uint8], *, binary: bool) -> triton_http.InferInput:
    given = triton_http.InferInput("image", list(pixels.shape), "UINT8")
    given.set_data_from_numpy(pixels, binary_data=binary)
    return given


def given_images(*files: bytes, binary: bool = True) -> triton_http.InferInput:
    given = triton_http.InferInput("image", [len(files)], "BYTES")
    if binary:
        given.set_data_from_numpy(np.array(files, np.object_), binary_data=True)
    else:
        texts = [base64.b64encode(file) for file in files]
        given.set_data_from_numpy(np.array(texts, np.object_), binary_data=False)
    return given
