"""First outputs that hold no scores: each is doubted, and scores are not."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gateway.converter.errors import SignatureUnsupported
from gateway.errors import PreprocessingInvalid
from gateway.registry.validation.stages import Examination
from tests.hostile_models import graph_model

_INT, _FLOAT = TensorProto.INT64, TensorProto.FLOAT


def _output(name: str, dtype: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def _mean() -> list[onnx.NodeProto]:
    return [helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2], keepdims=0)]


def _examined(model: onnx.ModelProto, folder: Path, preprocessing: str | None = None) -> list[str]:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    examination = Examination(
        path,
        name="m",
        preprocessing=preprocessing,
        labels=None,
        max_batch_size=4,
        runtime="local",
        keep_graph=None,
        beside=None,
    )
    for _, stage in examination.stages():
        stage()
    return examination.warnings


def _soft(*, first: list[onnx.NodeProto], output: onnx.ValueInfoProto) -> onnx.ModelProto:
    nodes = [*_mean(), helper.make_node("Softmax", ["mean"], ["probs"], axis=1), *first]
    return graph_model(nodes, outputs=[output, _output("probs", _FLOAT, "N", 3)])


def test_scores_are_not_doubted(tmp_path: Path) -> None:
    """Logits alone, and probabilities in front of anything, raise no doubt."""
    assert _examined(graph_model([*_mean(), _identity("mean", "scores")]), tmp_path) == []
    nodes = [
        *_mean(),
        helper.make_node("Softmax", ["mean"], ["scores"], axis=1),
        helper.make_node("ArgMax", ["mean"], ["label"], axis=1, keepdims=1),
    ]
    outputs = [_output("scores", _FLOAT, "N", 3), _output("label", _INT, "N", 1)]
    assert _examined(graph_model(nodes, outputs=outputs), tmp_path) == []


def _identity(source: str, target: str) -> onnx.NodeProto:
    return helper.make_node("Identity", [source], [target])


def test_labels_by_column_are_doubted_and_the_scores_named(tmp_path: Path) -> None:
    """`[N, 1]` of an ArgMax, with the scores behind it."""
    first = [helper.make_node("ArgMax", ["mean"], ["label"], axis=1, keepdims=1)]
    model = _soft(first=first, output=_output("label", _INT, "N", 1))
    told = " ".join(_examined(model, tmp_path))
    assert "'label' holds whole numbers" in told
    assert "'probs' looks like the scores" in told
    # What is advised does it.
    path = tmp_path / "model.onnx"
    outputs = (model := onnx.load(path)).graph.output
    outputs.sort(key=lambda o: o.name != "probs")
    assert _examined(model, tmp_path) == []


def test_the_best_in_order_are_doubted(tmp_path: Path) -> None:
    """TopK in front: every image would be category 00."""
    first = [helper.make_node("TopK", ["probs", "k"], ["best", "places"], axis=1)]
    nodes = [*_mean(), helper.make_node("Softmax", ["mean"], ["probs"], axis=1), *first]
    model = graph_model(
        nodes,
        outputs=[_output("best", _FLOAT, "N", 2), _output("places", _INT, "N", 2)],
        weights=[numpy_helper.from_array(np.array([2], np.int64), "k")],
    )
    assert "in order (TopK)" in " ".join(_examined(model, tmp_path))


def test_one_column_is_doubted(tmp_path: Path) -> None:
    """A single sigmoid."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Sigmoid", ["flat"], ["p"]),
    ]
    model = graph_model(nodes, outputs=[_output("p", _FLOAT, "N", 1)])
    assert "'p' has one column" in " ".join(_examined(model, tmp_path))


@pytest.mark.parametrize("dtype", [_INT, _FLOAT])
def test_an_axis_of_images_is_no_axis_of_classes(dtype: int, tmp_path: Path) -> None:
    """`[N]`: two images give two numbers, so that it is refused."""
    first = [
        helper.make_node("ArgMax", ["mean"], ["place"], axis=1, keepdims=0),
        helper.make_node("Cast", ["place"], ["label"], to=dtype),
    ]
    model = _soft(first=first, output=_output("label", dtype, "N"))
    with pytest.raises(SignatureUnsupported, match="one number for each image"):
        _examined(model, tmp_path)


def _taking(shape: list[int | str], dtype: int) -> onnx.ModelProto:
    axes = [1, 2] if shape[3] in {3, 1} else [2, 3]
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=_FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["mean"], axes=axes, keepdims=0),
        helper.make_node("Concat", ["mean", "mean", "mean"], ["scores"], axis=1),
    ]
    channels = shape[3] if shape[3] in {3, 1} else shape[1]
    return graph_model(
        nodes,
        inputs=[helper.make_tensor_value_info("image", dtype, shape)],
        outputs=[_output("scores", _FLOAT, "N", 3 * int(channels))],
    )


@pytest.mark.parametrize(
    ("shape", "dtype", "preprocessing", "told"),
    [
        (["N", 8, 8, 3], TensorProto.INT8, None, "do not fit into INT8"),
        (["N", 4, 8, 8], TensorProto.FLOAT, None, "three channels, or one"),
        (["N", 4, 8, 8], TensorProto.FLOAT, "unit", "channels"),
        ([4, 8, 8, 3], TensorProto.FLOAT, None, "batch is fixed at 4"),
    ],
)
def test_what_no_image_becomes_is_refused(
    shape: list[int | str], dtype: int, preprocessing: str | None, told: str, tmp_path: Path
) -> None:
    """At registration, with the cure, and not at every run."""
    with pytest.raises((PreprocessingInvalid, SignatureUnsupported), match=told):
        _examined(_taking(shape, dtype), tmp_path, preprocessing)


@pytest.mark.parametrize(
    ("shape", "dtype", "preprocessing"),
    [
        (["N", 8, 8, 3], TensorProto.INT8, '{"mean": 128}'),
        (["N", 1, 28, 28], TensorProto.FLOAT, "unit"),
        (["N", 28, 28, 1], TensorProto.FLOAT, '{"preset": "unit", "mean": 0.1307, "std": 0.3081}'),
    ],
)
def test_a_record_makes_the_input(
    shape: list[int | str], dtype: int, preprocessing: str, tmp_path: Path
) -> None:
    """Shifts for INT8; one channel, with one number for mean and std."""
    told = _examined(_taking(shape, dtype), tmp_path, preprocessing)
    assert not any("record" in warning for warning in told)


def test_what_cannot_answer_yet_is_said_at_registration(tmp_path: Path) -> None:
    """Without a record, planes of floats are no image: what to type is said at once."""
    told = _examined(_taking(["N", 3, 8, 8], TensorProto.FLOAT), tmp_path)
    assert any("preprocessing=unit" in warning for warning in told)
