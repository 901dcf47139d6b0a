"""What is asked: three workloads, each a model, a request, and the answer that is right."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import orjson
from PIL import Image

from perf.bench import images, models


@dataclass(frozen=True)
class Workload:
    """One row of the comparison. `body` is the request's JSON, `category` the right answer."""

    name: str
    what: str
    model: Path
    body: Path
    category: str


def make_workloads(folder: Path) -> dict[str, Workload]:
    """Write the models and the requests into `folder` and ask onnxruntime for the answers."""
    large, small = images.request_bodies()
    plans = (
        ("W1", "815×803 JPEG, tiny model", "tiny", models.tiny(), large),
        ("W2", "224×224 JPEG, tiny model", "tiny", models.tiny(), small),
        ("W3", "815×803 JPEG, EfficientNet-Lite0", "lite0", models.lite0(), large),
    )
    made = {}
    for name, what, model, content, body in plans:
        # A folder for each, so that a server finds the one model that it serves.
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        (target / f"{model}.onnx").write_bytes(content)
        request = folder / f"{name}.json"
        request.write_bytes(body)
        made[name] = Workload(
            name, what, target / f"{model}.onnx", request, _category(content, body)
        )
    return made


def _category(model: bytes, body: bytes) -> str:
    """Give the answer of the plain way: Pillow, float32, onnxruntime, argmax."""
    image = Image.open(io.BytesIO(base64.b64decode(orjson.loads(body)["image"])))
    pixels = np.asarray(image, np.float32)[np.newaxis]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    scores = session.run(None, {session.get_inputs()[0].name: pixels})[0]
    return f"{int(np.argmax(scores)):02d}"
