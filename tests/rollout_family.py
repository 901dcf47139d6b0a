"""
Versions for rollouts whose truth is known: which of three colours is an image?

Every version is the same tiny graph with other weights or with something that makes it slow or
broken, so that what differs between two versions is known.
"""

import base64
import io
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

COLOURS = ((200, 20, 30), (30, 190, 25), (20, 35, 210))


def colour_model(
    path: Path, *, flipped: bool = False, seed: int = 0, fails: bool = False, hangs: bool = False
) -> Path:
    """
    Write a classifier of red, green and blue over float32 [N, H, W, 3].

    Args:
        path: Where to.
        flipped: It names the wrong class, always.
        seed: Another seed is another file with the same answers.
        fails: It fails on the blue image: an index out of range.
        hangs: It counts to some millions on the blue image, far beyond any deadline.
    """
    matrix = np.eye(3, dtype=np.float32) * (0.05 + seed * 1e-4)
    if flipped:
        matrix = np.roll(matrix, 1, axis=1)
    initializers = [
        numpy_helper.from_array(matrix[np.newaxis], "matrices"),
        numpy_helper.from_array(np.array(2, np.int64), "blue_channel"),
        numpy_helper.from_array(np.array(0, np.int64), "zero"),
        numpy_helper.from_array(np.array(205, np.float32), "blue_level"),
    ]
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Gather", ["mean", "blue_channel"], ["blues"], axis=1),
        helper.make_node("ReduceMax", ["blues"], ["blue"], keepdims=0),
        helper.make_node("Div", ["blue", "blue_level"], ["share"]),
        helper.make_node("Floor", ["share"], ["level"]),
        helper.make_node("Cast", ["level"], ["is_blue"], to=TensorProto.INT64),
        helper.make_node("Gather", ["matrices", "is_blue" if fails else "zero"], ["matrix"]),
        helper.make_node("MatMul", ["mean", "matrix"], ["logits"]),
        *(_counting(initializers) if hangs else []),
        helper.make_node("Softmax", ["slow" if hangs else "logits"], ["scores"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", "h", "w", 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3])],
        initializers,
    )
    model: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    path.write_bytes(model.SerializeToString())
    return path


def _counting(initializers: list[onnx.TensorProto]) -> list[onnx.NodeProto]:
    """Make nodes that add nothing to the logits, some million times if the image is blue."""
    initializers += [
        numpy_helper.from_array(np.array(2_000_000, np.int64), "many"),
        numpy_helper.from_array(np.array(True), "go_on"),
        numpy_helper.from_array(np.array(0, np.float32), "nothing"),
    ]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["still_on"]),
            helper.make_node("Add", ["before", "nothing"], ["after"]),
        ],
        "count",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    return [
        helper.make_node("Mul", ["is_blue", "many"], ["turns"]),
        helper.make_node("Loop", ["turns", "go_on", "logits"], ["slow"], body=body),
    ]


def image_of(category: int, *, side: int = 20) -> dict[str, str]:
    """Make the body of a `run` whose true class is `category`."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), COLOURS[category]).save(buffer, "PNG")
    return {"image": base64.b64encode(buffer.getvalue()).decode()}


class Load:
    """Clients that ask all the time. What they got, by version and status; latencies in seconds."""

    def __init__(self, url: str, model: str, *, clients: int, keys: bool = False) -> None:
        self.statuses: Counter[int] = Counter()
        self.versions: Counter[str] = Counter()
        self.categories: Counter[bool] = Counter()
        self.log: list[tuple[float, float, str]] = []
        self.by_key: dict[str, list[str]] = {}
        self.errors: list[str] = []
        self._url, self._model, self._keys = url, model, keys
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(clients)]

    def _ask(self, number: int) -> None:
        bodies = [image_of(category) for category in range(3)]
        chance = random.Random(number)
        headers = {"X-Rollout-Key": f"client-{number}"} if self._keys else {}
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as client:
            while not self._stop.is_set():
                category = chance.randrange(3)
                began_s = time.time()
                try:
                    answer = client.post(
                        f"/api/v1/run/{self._model}", json=bodies[category], headers=headers
                    )
                except httpx.TransportError as error:
                    self.errors.append(repr(error))
                    continue
                self.statuses[answer.status_code] += 1
                version = answer.headers.get("x-model-version", "")
                self.versions[version] += 1
                self.log.append((began_s, time.time(), version))
                self.by_key.setdefault(f"client-{number}", []).append(version)
                if answer.status_code == 200:
                    self.categories[answer.json()["category"] == f"{category:02d}"] += 1

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@contextmanager
def load(url: str, model: str, *, clients: int = 4, keys: bool = False) -> Iterator[Load]:
    """Ask from several clients for the length of the block."""
    with Load(url, model, clients=clients, keys=keys) as running:
        yield running


EASY: dict[str, Any] = {
    # Small machines are noisy and tests are short: the tolerances are wide, the rules the same.
    "error_rate": {"tolerated": 0.2},
    "latency": {"tolerated": 0.95, "required": False},
    "agreement": {"tolerated": 0.3},
}
