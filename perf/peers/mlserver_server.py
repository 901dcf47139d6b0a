"""
MLServer with a custom runtime and a REST endpoint of its own, as its documentation writes them:
https://docs.seldon.ai/mlserver/user-guide/custom. One inference worker for each core: better than
none (`parallel_workers=0`) where the work is large, W1 and W3, and there are four clients or more;
worse for one client and small images, where the way to a worker costs more than the work.

    python perf/peers/mlserver_server.py PORT MODEL.onnx WORKERS THREADS
"""

import asyncio
import sys

from classifier import Classifier
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.handlers import custom_handler
from mlserver.settings import ModelParameters
from pydantic import BaseModel


class Request(BaseModel):
    """An image file, in base64."""

    image: str


class ClassifierRuntime(MLModel):
    """Base64 in, a category out."""

    async def load(self) -> bool:
        """Load the model, once in each worker."""
        parameters = self.settings.parameters
        self.classifier = Classifier(parameters.uri, parameters.extra["threads"])
        return True

    @custom_handler(rest_path="/classify")
    async def classify(self, request: Request) -> dict[str, str]:
        """Answer `{"category": "07"}`."""
        return self.classifier.classify(request.image)


async def main(port: int, path: str, workers: int, threads: int) -> None:
    """Serve the one model. Its other two ports are any that are free."""
    settings = Settings(
        host="127.0.0.1",
        http_port=port,
        grpc_port=0,
        metrics_port=0,
        parallel_workers=workers,
        debug=False,
    )
    model = ModelSettings(
        name="classifier",
        # Named by its module, not __main__: the workers import it.
        implementation="mlserver_server.ClassifierRuntime",
        parameters=ModelParameters(uri=path, extra={"threads": threads}),
    )
    await MLServer(settings).start([model])


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
