"""A model is held against the runtime that will serve it, which may be older than ours."""

from typing import get_args

import onnx
import pytest

from gateway.converter.errors import OperatorUnsupported, OpsetUnsupported
from gateway.registry.validation.runtime import LIMITS, LOCAL, Runtime
from gateway.settings import Settings
from tests.model_family import NEWEST_IR, NEWEST_OPSET, classifier_case


def _model(opset: int, ir_version: int) -> onnx.ModelProto:
    shape = (None, None, None, 3)
    return classifier_case("m", shape, opset=opset, ir_version=ir_version).make()


def test_every_runtime_can_be_chosen() -> None:
    """The setting's choices are the runtimes whose limits are known, and ours."""
    choices = get_args(Settings.model_fields["validation_runtime"].annotation)
    assert set(choices) == {LOCAL, *LIMITS}


@pytest.mark.parametrize("name", [*LIMITS])
def test_what_is_newer_than_the_runtime_is_refused(name: str) -> None:
    """Its newest opset and IR version pass; the next ones are refused, naming both."""
    opset, ir_version = (
        min(limit, ours)
        for limit, ours in zip(LIMITS[name], (NEWEST_OPSET, NEWEST_IR), strict=True)
    )
    runtime = Runtime(name)
    runtime.check(_model(opset, ir_version))
    for model, text in (
        (
            _model(opset + 1, ir_version),
            f"opset is {opset + 1}; onnxruntime {name} supports {opset}",
        ),
        (
            _model(opset, ir_version + 1),
            f"{ir_version + 1}; onnxruntime {name} supports {ir_version}",
        ),
    ):
        with pytest.raises(OpsetUnsupported, match=text):
            runtime.check(model)


def test_all_unknown_operators_are_named() -> None:
    """Those in graphs inside of nodes, too."""
    model = _model(13, 8)
    for name in ("Nope", "NotThere"):
        model.graph.node.add(op_type=name, output=[name])
    with pytest.raises(OperatorUnsupported, match="Nope, NotThere in opset 13"):
        Runtime(LOCAL).check(model)
