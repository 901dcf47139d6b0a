"""Candidates of a CNN, made and asked."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from gateway.demo import EVALUATION, FIRST_VERSION
from gateway.optimize.measuring import Session, latencies_s
from gateway.optimize.quantization import Tensor, Workshop
from gateway.optimize.recipes import Kind, Recipe


@pytest.fixture(scope="module")
def images() -> list[Tensor]:
    files = sorted((EVALUATION / "images").glob("*.jpg"))[:60]
    return [np.asarray(Image.open(file).convert("RGB"), np.float32)[np.newaxis] for file in files]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, images: list[Tensor]) -> Workshop:
    made = Workshop(FIRST_VERSION, tmp_path_factory.mktemp("workshop"))
    made.calibrate(onnx.load(FIRST_VERSION).graph.input[0].name, images)
    return made


@pytest.mark.parametrize("kind", list(Kind))
def test_a_candidate_is_plain_onnx_and_answers_nearly_the_same(
    tmp_path: Path, workshop: Workshop, images: list[Tensor], kind: Kind
) -> None:
    """Same input and output, smaller, valid, and the same answer on most images."""
    path = tmp_path / "candidate.onnx"
    workshop.make(Recipe(kind), path)
    onnx.checker.check_model(onnx.load(path))
    assert {each.domain for each in onnx.load(path).opset_import} <= {"", "ai.onnx.ml"}
    assert path.stat().st_size < FIRST_VERSION.stat().st_size
    answers = Session(FIRST_VERSION).answers(images)
    assert float(np.mean(Session(path).answers(images) == answers)) >= 0.9


def test_what_is_left_in_float_is_not_quantized(tmp_path: Path, workshop: Workshop) -> None:
    """With all nodes left in float the answers are the model's own to the last bit."""
    path = tmp_path / "candidate.onnx"
    nodes = frozenset(workshop.nodes)
    workshop.make(Recipe(Kind.U8S8, left_in_float=nodes), path)
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert "QLinearConv" not in kinds
    graph = onnx.load(path).graph
    produced = {name: node.op_type for node in graph.node for name in node.output}
    for node in graph.node:
        if node.name in nodes:
            assert produced.get(node.input[1]) != "DequantizeLinear"


def test_both_are_measured_in_turns(images: list[Tensor]) -> None:
    """As many medians of each as there were rounds, all above nothing."""
    sessions = {"a": Session(FIRST_VERSION), "b": Session(FIRST_VERSION)}
    found = latencies_s(sessions, images, rounds=2)
    assert {name: len(medians) for name, medians in found.items()} == {"a": 2, "b": 2}
    assert min(min(medians) for medians in found.values()) > 0


def test_calibrate_comes_first(tmp_path: Path) -> None:
    """Without ranges nothing can be made."""
    with pytest.raises(ValueError, match="calibrate"):
        Workshop(FIRST_VERSION, tmp_path).make(Recipe(Kind.U8S8), tmp_path / "c.onnx")
