"""
KServe's Python server with a custom model, as its documentation writes one:
https://kserve.github.io/website/docs/model-serving/predictive-inference/frameworks/custom-predictor.
The V1 protocol, one worker for each core.

    python perf/peers/kserve_server.py PORT MODEL.onnx WORKERS THREADS
"""

import sys
from typing import Any

import uvicorn
from classifier import Classifier
from kserve import Model, ModelServer


class LoopbackConfig(uvicorn.Config):
    """KServe listens on every address and has no option for it."""

    def __init__(self, app: str, **options: Any) -> None:
        super().__init__(app, **{**options, "host": "127.0.0.1"})


class ClassifierModel(Model):
    """Base64 in, a category out."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.load()

    def load(self) -> bool:
        """Load the model."""
        self.classifier = Classifier(sys.argv[2], int(sys.argv[4]))
        self.ready = True
        return self.ready

    def predict(self, payload, headers=None, response_headers=None):  # noqa: ARG002 - KServe calls it so
        """Answer `{"category": "07"}`."""
        return self.classifier.classify(payload["image"])


if __name__ == "__main__":
    uvicorn.Config = LoopbackConfig
    ModelServer(http_port=int(sys.argv[1]), workers=int(sys.argv[3]), enable_grpc=False).start(
        [ClassifierModel("classifier")]
    )
