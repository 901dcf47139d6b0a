"""External data: found wherever it hides, and no file is opened to find it."""

import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from gateway.converter.errors import ExternalDataForbidden
from gateway.converter.onnx_signature import read_graph
from tests.model_family import FAMILY, original_model

ONE_MODEL = FAMILY[0]


def _elsewhere(name: str = "weights", location: str = "weights.bin") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def _constant(tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], value=tensor)


def _branch(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(nodes, "branch", [], [])


def _initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(_elsewhere())


def _attribute(model: onnx.ModelProto) -> None:
    model.graph.node.append(_constant(_elsewhere()))


def _list_attribute(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("X", [], ["x"], tensors=[_elsewhere()]))


def _subgraph(model: onnx.ModelProto) -> None:
    inner = _branch(
        helper.make_node("If", ["b"], ["i"], then_branch=_branch(_constant(_elsewhere())))
    )
    model.graph.node.append(helper.make_node("If", ["a"], ["o"], else_branch=inner))


def _subgraph_initializer(model: onnx.ModelProto) -> None:
    inner = _branch()
    inner.initializer.append(_elsewhere())
    model.graph.node.append(helper.make_node("Loop", ["a"], ["o"], body=inner))


def _function(model: onnx.ModelProto) -> None:
    opset = [helper.make_opsetid("", 13)]
    model.functions.append(
        helper.make_function("own", "F", [], ["c"], [_constant(_elsewhere())], opset)
    )


def _function_default(model: onnx.ModelProto) -> None:
    function = model.functions.add(name="F", domain="own")
    function.attribute_proto.append(helper.make_attribute("value", _elsewhere()))


def _sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().values.CopyFrom(_elsewhere())


def _sparse_indices(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().indices.CopyFrom(_elsewhere())


def _sparse_attribute(model: onnx.ModelProto) -> None:
    sparse = onnx.SparseTensorProto(values=_elsewhere(), dims=[1])
    model.graph.node.append(helper.make_node("Constant", [], ["c"], sparse_value=sparse))


def _training(model: onnx.ModelProto) -> None:
    model.training_info.add().initialization.initializer.append(_elsewhere())


def _entries_without_the_flag(model: onnx.ModelProto) -> None:
    tensor = _elsewhere()
    tensor.data_location = TensorProto.DEFAULT
    model.graph.initializer.append(tensor)


def _flag_without_entries(model: onnx.ModelProto) -> None:
    tensor = _elsewhere()
    del tensor.external_data[:]
    model.graph.initializer.append(tensor)


HIDING_PLACES = [
    _initializer,
    _attribute,
    _list_attribute,
    _subgraph,
    _subgraph_initializer,
    _function,
    _function_default,
    _sparse,
    _sparse_indices,
    _sparse_attribute,
    _training,
    _entries_without_the_flag,
    _flag_without_entries,
]


@pytest.mark.parametrize("hide", HIDING_PLACES, ids=lambda hide: hide.__name__.strip("_"))
def test_external_data_is_found_everywhere(
    hide: Callable[[onnx.ModelProto], None], tmp_path: Path
) -> None:
    """No place in a model may refer to another file; the text names the tensor."""
    model = ONE_MODEL.make()
    hide(model)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ExternalDataForbidden, match="'weights'"):
        read_graph(path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("relative", [True, False], ids=["relative", "absolute"])
def test_the_other_file_is_not_opened(relative: bool, tmp_path: Path) -> None:
    """The other file is a pipe that nobody writes to: opening it would wait for ever."""
    pipe = tmp_path / "weights.bin"
    os.mkfifo(pipe)
    model = ONE_MODEL.make()
    model.graph.initializer.append(_elsewhere(location=pipe.name if relative else str(pipe)))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ExternalDataForbidden):
        read_graph(path)


def test_weights_inside_are_accepted(tmp_path: Path) -> None:
    """The check does not fire on an ordinary model."""
    original_model(tmp_path / "model.onnx", 5)
    assert read_graph(tmp_path / "model.onnx").graph.node
