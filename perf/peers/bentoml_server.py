"""
BentoML, as its documentation writes a service: https://docs.bentoml.com/en/latest. A synchronous
method, so that it runs off the event loop, in BentoML's one thread; one worker for each core.

    python perf/peers/bentoml_server.py PORT MODEL.onnx WORKERS THREADS
"""

import sys
from pathlib import Path

import bentoml
from bentoml_cli.cli import cli
from classifier import Classifier
from pydantic import BaseModel


class Arguments(BaseModel):
    """What `bentoml serve --arg` hands to the workers; they see no command line."""

    path: str = ""
    workers: int = 1
    threads: int = 1


arguments = bentoml.use_arguments(Arguments)


@bentoml.service(workers=arguments.workers)
class ClassifierService:
    """Base64 in, a category out."""

    def __init__(self) -> None:
        self.classifier = Classifier(arguments.path, arguments.threads)

    @bentoml.api
    def predict(self, image: str) -> dict[str, str]:
        """Answer `{"category": "07"}`."""
        return self.classifier.classify(image)


if __name__ == "__main__":
    port, *values = sys.argv[1:]
    command = ["serve", "bentoml_server:ClassifierService", "--do-not-track"]
    command += ["--working-dir", str(Path(__file__).parent), "--host", "127.0.0.1", "--port", port]
    for name, value in zip(Arguments.model_fields, values, strict=True):
        command += ["--arg", f"{name}={value}"]
    cli(command)
