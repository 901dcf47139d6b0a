"""
Versions of the demo model whose truth is known: what a bad training or a bad export makes of it.

All are real graphs, made of `gateway/demo/digits-v2.onnx` and its 300 held-out pictures.
"""

import base64
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from gateway.demo import EVALUATION, SECOND_VERSION
from testbed.rollout_load import Picture

# Products of matrices: seconds for one picture, with a core at work for as long.
HANGING_PRODUCTS = 500_000
_CLASSES = 10
_CONV_SIDE, _CONV_CHANNELS = 32, 32
_SIDE = 64  # of the matrices that a slow version multiplies


def pictures() -> list[Picture]:
    """The held-out pictures with their true classes."""
    with (EVALUATION / "labels.csv").open(newline="") as file:
        return [
            Picture(
                json.dumps(
                    {"image": base64.b64encode((EVALUATION / row["file"]).read_bytes()).decode()}
                ).encode(),
                int(row["category"]),
            )
            for row in csv.DictReader(file)
        ]


def flipped(path: Path) -> Path:
    """Its classes in another order: every answer names the class beside the right one."""
    model = onnx.load(SECOND_VERSION)
    order = numpy_helper.from_array(np.roll(np.arange(_CLASSES), 1), "another_order")
    model.graph.initializer.append(order)
    _between(model, [helper.make_node("Gather", ["in", "another_order"], ["out"], axis=1)])
    return _write(model, path)


def again(path: Path, *, seed: int) -> Path:
    """The same graph; another seed is another file."""
    model = onnx.load(SECOND_VERSION)
    model.doc_string = f"seed {seed}"
    return _write(model, path)


def losing(path: Path, *, category: int) -> Path:
    """It never names one class: the next likely one instead."""
    model = onnx.load(SECOND_VERSION)
    kept = np.ones((1, _CLASSES), np.float32)
    kept[0, category] = 0
    model.graph.initializer.append(numpy_helper.from_array(kept, "kept_classes"))
    _between(model, [helper.make_node("Mul", ["in", "kept_classes"], ["out"])])
    return _write(model, path)


def convolving(path: Path, *, layers: int, seed: int = 0) -> Path:
    """The same answers after so many convolutions, 32 × 32 with 32 channels, of the picture."""
    model = onnx.load(SECOND_VERSION)
    weights, nodes, rng = model.graph.initializer, [], np.random.default_rng(seed)
    for name, value in (
        ("conv_side", np.array([_CONV_SIDE, _CONV_SIDE], np.int64)),
        ("conv_scale", np.array(1 / 255, np.float32)),
        ("conv_from", np.array([0], np.int64)),
        ("conv_to", np.array([2], np.int64)),
        ("no_share", np.array(0, np.float32)),
    ):
        weights.append(numpy_helper.from_array(value, name))
    image = model.graph.input[0].name
    nodes += [
        helper.make_node("Transpose", [image], ["conv_image"], perm=[0, 3, 1, 2]),
        helper.make_node("Shape", ["conv_image"], ["conv_shape"]),
        helper.make_node("Slice", ["conv_shape", "conv_from", "conv_to"], ["conv_outer"]),
        helper.make_node("Concat", ["conv_outer", "conv_side"], ["conv_size"], axis=0),
        helper.make_node(
            "Resize", ["conv_image", "", "", "conv_size"], ["conv_resized"], mode="linear"
        ),
        helper.make_node("Mul", ["conv_resized", "conv_scale"], ["conv_0"]),
    ]
    channels = 3
    for layer in range(layers):
        deviation = (2 / (9 * channels)) ** 0.5
        kernel = rng.normal(0, deviation, (_CONV_CHANNELS, channels, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"kernel_{layer}"))
        nodes += [
            helper.make_node(
                "Conv", [f"conv_{layer}", f"kernel_{layer}"], [f"sums_{layer}"], pads=[1] * 4
            ),
            helper.make_node("Relu", [f"sums_{layer}"], [f"conv_{layer + 1}"]),
        ]
        channels = _CONV_CHANNELS
    nodes += [
        helper.make_node("ReduceMax", [f"conv_{layers}"], ["conv_largest"], keepdims=0),
        helper.make_node("Mul", ["conv_largest", "no_share"], ["nothing"]),
        helper.make_node("Add", ["in", "nothing"], ["out"]),
    ]
    _between(model, nodes)
    return _write(model, path)


def worse(path: Path, *, lost: float) -> Path:
    """Noise on its weights, as much as costs it so much accuracy (0 to 1) or a little more."""
    images = _images()
    accuracy = _accuracy(onnx.load(SECOND_VERSION), images) - lost
    for scale in np.arange(0.02, 2.0, 0.02):
        model, rng = onnx.load(SECOND_VERSION), np.random.default_rng(7)
        for tensor in model.graph.initializer:
            if tensor.name.endswith(".weight"):
                weights = numpy_helper.to_array(tensor)
                noisy = weights + scale * weights.std() * rng.normal(size=weights.shape)
                tensor.CopyFrom(numpy_helper.from_array(noisy.astype(np.float32), tensor.name))
        if _accuracy(model, images) <= accuracy:
            return _write(model, path)
    raise AssertionError(f"no noise brings it to {accuracy}")


def failing(path: Path, *, share: float) -> Path:
    """It fails, an index out of range, on that share of the pictures: on the brightest."""
    model = onnx.load(SECOND_VERSION)
    one_row = numpy_helper.from_array(np.zeros((1, _CLASSES), np.float32), "one_row")
    model.graph.initializer.append(one_row)
    _between(
        model,
        [
            *_is_brightest(model, share),
            helper.make_node("Gather", ["one_row", "is_brightest"], ["nothing"], axis=0),
            helper.make_node("Add", ["in", "nothing"], ["out"]),
        ],
    )
    return _write(model, path)


def _is_brightest(model: onnx.ModelProto, share: float) -> list[onnx.NodeProto]:
    """Make nodes whose `is_brightest` is 1 for that share of the pictures and 0 for the others."""
    brightness = [float(pixels.mean()) for pixels, _ in _images()]
    limit = np.array(np.quantile(brightness, 1 - share), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(limit, "brightest"))
    return [
        helper.make_node("ReduceMean", [model.graph.input[0].name], ["level"], axes=[1, 2, 3]),
        helper.make_node("ReduceMax", ["level"], ["highest"], keepdims=0),
        helper.make_node("Greater", ["highest", "brightest"], ["too_bright"]),
        helper.make_node("Cast", ["too_bright"], ["is_brightest"], to=TensorProto.INT64),
    ]


def slow(path: Path, *, products: int, share: float = 1.0) -> Path:
    """
    The same answers after so many products of two matrices, 64 × 64, one after the other; with a
    share, for the brightest pictures only.
    """
    model = onnx.load(SECOND_VERSION)
    matrix = np.linalg.qr(np.random.default_rng(3).normal(size=(_SIDE, _SIDE)))[0]
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(matrix.astype(np.float32), "turn"),
            numpy_helper.from_array(np.array(products, np.int64), "products"),
            numpy_helper.from_array(np.array(True), "go_on"),
            numpy_helper.from_array(np.array(0, np.float32), "no_share"),
        ]
    )
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["still_on"]),
            helper.make_node("MatMul", ["before", "turn"], ["after"]),
        ],
        "turns",
        [
            helper.make_tensor_value_info("turn_number", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    _between(
        model,
        [
            helper.make_node("ReduceMax", ["in"], ["largest"], keepdims=0),
            helper.make_node("Mul", ["turn", "largest"], ["start"]),
            *(_is_brightest(model, share) if share < 1 else [_always(model)]),
            helper.make_node("Mul", ["products", "is_brightest"], ["rounds"]),
            helper.make_node("Loop", ["rounds", "go_on", "start"], ["turned"], body=body),
            helper.make_node("ReduceMean", ["turned"], ["turned_mean"], keepdims=0),
            helper.make_node("Mul", ["turned_mean", "no_share"], ["nothing"]),
            helper.make_node("Add", ["in", "nothing"], ["out"]),
        ],
    )
    return _write(model, path)


def _always(model: onnx.ModelProto) -> onnx.NodeProto:
    model.graph.initializer.append(numpy_helper.from_array(np.array(1, np.int64), "yes"))
    return helper.make_node("Identity", ["yes"], ["is_brightest"])


def _between(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Put nodes from `in` to `out` between the graph's last node and its output."""
    output = model.graph.output[0].name
    names = {"in": f"{output}_before", "out": output}
    model.graph.node[-1].output[0] = names["in"]
    for node in nodes:
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)
        for place, name in enumerate(node.output):
            node.output[place] = names.get(name, name)
    model.graph.node.extend(nodes)


def _write(model: onnx.ModelProto, path: Path) -> Path:
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def _images() -> list[tuple[np.ndarray, int]]:
    found = []
    for picture in pictures():
        encoded = base64.b64decode(json.loads(picture.body)["image"])
        with Image.open(io.BytesIO(encoded)) as image:
            found.append((np.asarray(image.convert("RGB")), picture.category))
    return found


def _accuracy(model: onnx.ModelProto, images: Sequence[tuple[np.ndarray, int]]) -> float:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    right = [
        int(session.run(None, {name: pixels[None].astype(np.float32)})[0].argmax()) == category
        for pixels, category in images
    ]
    return sum(right) / len(right)
