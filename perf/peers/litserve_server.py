"""
LitServe, as its documentation writes a server for the CPU: https://lightning.ai/docs/litserve.
Decoding is in `decode_request`, so that it runs in the worker; one worker for each core.

    python perf/peers/litserve_server.py PORT MODEL.onnx WORKERS THREADS
"""

import sys

import litserve
import numpy as np
from classifier import Classifier


class ClassifierAPI(litserve.LitAPI):
    """Base64 in, a category out."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        """Load the model, once in each worker."""
        self.classifier = Classifier(sys.argv[2], int(sys.argv[4]))

    def decode_request(self, request: dict[str, str]) -> np.ndarray:
        """Decode the image."""
        return self.classifier.decode(request["image"])

    def predict(self, x: np.ndarray) -> dict[str, str]:
        """Run the model."""
        return self.classifier.infer(x)

    def encode_response(self, output: dict[str, str]) -> dict[str, str]:
        """Answer as it is."""
        return output


if __name__ == "__main__":
    server = litserve.LitServer(
        ClassifierAPI(), accelerator="cpu", workers_per_device=int(sys.argv[3])
    )
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
