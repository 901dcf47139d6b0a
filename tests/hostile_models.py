"""
Models that must be refused, and the code that each must be refused with. Every one is a file that
does what it says: it names other files, loops, crashes, allocates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.model_family import FAMILY

_FREE: list[int | str] = ["N", "H", "W", 3]


@dataclass(frozen=True)
class HostileCase:
    """One file, and the code of its refusal."""

    id: str
    code: str
    make: Callable[[], bytes]


def graph_model(
    nodes: Sequence[onnx.NodeProto],
    *,
    inputs: Sequence[onnx.ValueInfoProto] | None = None,
    outputs: Sequence[onnx.ValueInfoProto] | None = None,
    weights: Sequence[onnx.TensorProto] = (),
    opset: int = 13,
    ir_version: int = 8,
    domains: Sequence[onnx.OperatorSetIdProto] = (),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """Make a model of an image `image` and scores `scores` around nodes."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [_tensor("image", _FREE)] if inputs is None else inputs,
        [_tensor("scores", ["N", 3])] if outputs is None else outputs,
        list(weights),
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset), *domains],
        ir_version=ir_version,
        functions=list(functions),
    )


def _tensor(
    name: str, shape: Sequence[int | str], dtype: int = TensorProto.FLOAT
) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def _mean(source: str = "image", target: str = "scores") -> onnx.NodeProto:
    return helper.make_node("ReduceMean", [source], [target], axes=[1, 2], keepdims=0)


def _constant(name: str, values: Any, dtype: type[np.generic]) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype), name)


def _external(location: str) -> onnx.TensorProto:
    tensor = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[3])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def _external_weight(location: str) -> bytes:
    nodes = [_mean(target="mean"), helper.make_node("Add", ["mean", "weights"], ["scores"])]
    model = graph_model(nodes)
    model.graph.initializer.append(_external(location))
    return bytes(model.SerializeToString())


def _external_in_subgraph() -> bytes:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["mean"], ["inner"])], "branch", [], [_tensor("inner", [3])]
    )
    branch.initializer.append(_external("weights.bin"))
    nodes = [
        _mean(target="mean"),
        helper.make_node("If", ["yes"], ["scores"], then_branch=branch, else_branch=branch),
    ]
    return bytes(graph_model(nodes, weights=[_constant("yes", True, np.bool_)]).SerializeToString())


def _external_in_function() -> bytes:
    constant = helper.make_node("Constant", [], ["w"], value=_external("/etc/passwd"))
    function = helper.make_function(
        "own",
        "Shift",
        ["x"],
        ["y"],
        [constant, helper.make_node("Add", ["x", "w"], ["y"])],
        [helper.make_opsetid("", 13)],
    )
    nodes = [_mean(target="mean"), helper.make_node("Shift", ["mean"], ["scores"], domain="own")]
    own = [helper.make_opsetid("own", 1)]
    return bytes(graph_model(nodes, functions=[function], domains=own).SerializeToString())


def _external_sparse() -> bytes:
    model = graph_model([_mean()])
    sparse = model.graph.sparse_initializer.add(dims=[3])
    sparse.values.CopyFrom(_external("weights.bin"))
    sparse.indices.CopyFrom(_constant("indices", [0], np.int64))
    return bytes(model.SerializeToString())


def _model(nodes: Sequence[onnx.NodeProto], **options: Any) -> Callable[[], bytes]:
    return lambda: bytes(graph_model(nodes, **options).SerializeToString())


def _looping() -> bytes:
    """A loop that ends after nine quintillion rounds."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["before", "before"], ["after"]),
        ],
        "body",
        [
            _tensor("round", [], TensorProto.INT64),
            _tensor("go", [], TensorProto.BOOL),
            _tensor("before", ["N", 3]),
        ],
        [_tensor("go_on", [], TensorProto.BOOL), _tensor("after", ["N", 3])],
    )
    nodes = [
        _mean(target="mean"),
        helper.make_node("Loop", ["rounds", "yes", "mean"], ["scores"], body=body),
    ]
    weights = [_constant("rounds", 2**62, np.int64), _constant("yes", True, np.bool_)]
    return bytes(graph_model(nodes, weights=weights).SerializeToString())


def _allocating() -> bytes:
    """Four terabytes of zeros, their sum added to the scores. Nothing can be folded beforehand."""
    nodes = [
        _mean(target="mean"),
        helper.make_node("Shape", ["mean"], ["sizes"]),
        helper.make_node("Mul", ["sizes", "million"], ["huge"]),
        helper.make_node("ConstantOfShape", ["huge"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        helper.make_node("Add", ["mean", "sum"], ["scores"]),
    ]
    weights = [_constant("million", [1_000_000, 333_334], np.int64)]
    return bytes(graph_model(nodes, weights=weights).SerializeToString())


def _crashing() -> bytes:
    """The smallest integer divided by minus one, which the processor answers with a signal."""
    nodes = [
        _mean(target="mean"),
        helper.make_node("Cast", ["mean"], ["whole"], to=TensorProto.INT32),
        helper.make_node("Mul", ["whole", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "smallest"], ["dividend"]),
        helper.make_node("Div", ["dividend", "minus_one"], ["quotient"]),
        helper.make_node("Cast", ["quotient"], ["scores"], to=TensorProto.FLOAT),
    ]
    weights = [
        _constant("zero", 0, np.int32),
        _constant("smallest", -(2**31), np.int32),
        _constant("minus_one", -1, np.int32),
    ]
    return bytes(graph_model(nodes, weights=weights).SerializeToString())


def _dividing_by_zero() -> bytes:
    nodes = [
        _mean(target="mean"),
        helper.make_node("Sub", ["mean", "mean"], ["zero"]),
        helper.make_node("Div", ["mean", "zero"], ["scores"]),
    ]
    return bytes(graph_model(nodes).SerializeToString())


def _whole() -> bytes:
    return bytes(FAMILY[0].make().SerializeToString())


CASES = (
    HostileCase("empty", "model_invalid", lambda: b""),
    HostileCase("random", "model_invalid", lambda: np.random.default_rng(0).bytes(10_000)),
    HostileCase("truncated", "model_invalid", lambda: _whole()[:-20]),
    HostileCase("text", "model_invalid", lambda: b"<html>not found</html>"),
    HostileCase("no-node-for-output", "model_invalid", _model([])),
    HostileCase("external-relative", "external_data_forbidden", lambda: _external_weight("w.bin")),
    HostileCase(
        "external-absolute", "external_data_forbidden", lambda: _external_weight("/etc/passwd")
    ),
    HostileCase(
        "external-climbing",
        "external_data_forbidden",
        lambda: _external_weight("../../../../etc/passwd"),
    ),
    HostileCase("external-in-subgraph", "external_data_forbidden", _external_in_subgraph),
    HostileCase("external-in-function", "external_data_forbidden", _external_in_function),
    HostileCase("external-in-sparse-tensor", "external_data_forbidden", _external_sparse),
    HostileCase(
        "unknown-operator",
        "operator_unsupported",
        _model([helper.make_node("Classify", ["image"], ["scores"])]),
    ),
    HostileCase(
        "unknown-domain",
        "operator_unsupported",
        _model(
            [helper.make_node("Classify", ["image"], ["scores"], domain="example.org")],
            domains=[helper.make_opsetid("example.org", 1)],
        ),
    ),
    HostileCase("newer-opset", "opset_unsupported", _model([_mean()], opset=99)),
    HostileCase("newer-ir", "opset_unsupported", _model([_mean()], ir_version=99)),
    HostileCase(
        "string-input",
        "signature_unsupported",
        _model(
            [
                helper.make_node("Cast", ["text"], ["image"], to=TensorProto.FLOAT),
                _mean(),
            ],
            inputs=[_tensor("text", _FREE, TensorProto.STRING)],
        ),
    ),
    HostileCase(
        "two-inputs",
        "signature_unsupported",
        _model(
            [helper.make_node("Add", ["image", "other"], ["sum"]), _mean("sum")],
            inputs=[_tensor("image", _FREE), _tensor("other", _FREE)],
        ),
    ),
    HostileCase("no-outputs", "signature_unsupported", _model([_mean()], outputs=[])),
    HostileCase(
        "output-is-an-image",
        "signature_unsupported",
        _model(
            [helper.make_node("Relu", ["image"], ["scores"])],
            outputs=[_tensor("scores", _FREE)],
        ),
    ),
    HostileCase(
        "sequence-output",
        "signature_unsupported",
        _model(
            [helper.make_node("SequenceConstruct", ["image"], ["scores"])],
            outputs=[
                helper.make_tensor_sequence_value_info("scores", TensorProto.FLOAT, None),
            ],
        ),
    ),
    HostileCase("crashes", "validation_crashed", _crashing),
    HostileCase("allocates-terabytes", "validation_out_of_memory", _allocating),
    HostileCase("answers-nan", "model_output_invalid", _dividing_by_zero),
)

LOOPING = HostileCase("loops-for-ever", "validation_timeout", _looping)
