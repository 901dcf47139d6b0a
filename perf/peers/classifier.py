"""The work itself, the same in every peer: base64, Pillow, float32, onnxruntime, argmax."""

import base64
import io

import numpy as np
import onnxruntime
from PIL import Image


class Classifier:
    """A session and its input's name. `threads` is onnxruntime's intra-op number, 0 its default."""

    def __init__(self, path: str, threads: int) -> None:
        self._arguments = (path, threads)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def __reduce__(self) -> tuple[type["Classifier"], tuple[str, int]]:
        """Open the model anew in a worker process: a session cannot be sent to one."""
        return Classifier, self._arguments

    def classify(self, image: str) -> dict[str, str]:
        """Answer `{"category": "07"}` for a base64 image."""
        return self.infer(self.decode(image))

    @staticmethod
    def decode(image: str) -> np.ndarray:
        """Decode to float32 [1, H, W, 3]."""
        pixels = Image.open(io.BytesIO(base64.b64decode(image)))
        return np.asarray(pixels, np.float32)[np.newaxis]

    def infer(self, pixels: np.ndarray) -> dict[str, str]:
        """Run the session and name the largest score."""
        scores = self._session.run(None, {self._input: pixels})[0]
        return {"category": f"{int(np.argmax(scores)):02d}"}
