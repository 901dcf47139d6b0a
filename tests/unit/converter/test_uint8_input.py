"""A uint8 input in front of a graph: exactly the same scores, and only where that is so."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gateway.converter.digests import digest_file
from gateway.converter.model_config import ConfigOptions, parse
from gateway.converter.onnx_signature import read_graph, signature_of
from gateway.converter.placement import Placement
from gateway.converter.publish import PublishedVersion, publish_version, read_published
from gateway.converter.signature import TensorSignature
from gateway.converter.uint8_input import AS_IT_IS, GraphDecision, InputPolicy, feed_bytes
from tests.model_family import FAMILY, ModelCase, classifier_case, model_of

OPTIONS = ConfigOptions(placement=Placement(1, 1))
PIXELS = InputPolicy(pixels=True)
FREE = (None, None, None, 3)


def _publish(source: Path, folder: Path, policy: InputPolicy = PIXELS) -> PublishedVersion:
    return publish_version(
        source, repository=folder / "r", name="m", version=1, options=OPTIONS, policy=policy
    )


def _session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _image(value: str = "image") -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(value, TensorProto.FLOAT, ["N", "H", "W", 3])


def _scores() -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 3])


@pytest.mark.parametrize("case", [c for c in FAMILY if c.classifier], ids=lambda case: case.id)
def test_the_published_model_answers_bit_for_bit_the_same(case: ModelCase, tmp_path: Path) -> None:
    """Every model of the family, on random pixels and on the extreme ones: equal in every bit."""
    source = case.build(tmp_path / "m.onnx")
    published = _publish(source, tmp_path)
    path = tmp_path / "r/m/1/model.onnx"
    taken = published.signature.inputs[0]
    assert (taken.name, taken.dtype) == (case.inputs[0].name, "UINT8")
    assert taken.shape == case.inputs[0].shape
    assert published.signature.outputs == case.outputs
    assert published.source_digest == digest_file(source)
    assert published.digest == digest_file(path)
    assert published.size_bytes == path.stat().st_size
    assert len(published.changes) == (case.inputs[0].dtype != "UINT8")
    before, after = _session(source), _session(path)
    for seed in range(3):
        given = case.sample(seed)
        for feeds in (
            given,
            *({n: np.full_like(t, v) for n, t in given.items()} for v in (0, 255)),
        ):
            pixels = {name: tensor.astype(np.uint8) for name, tensor in feeds.items()}
            for expected, got in zip(before.run(None, feeds), after.run(None, pixels), strict=True):
                np.testing.assert_array_equal(got, expected, strict=True)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_pixels_any_size(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever the image: the scores of FP16, FP32 and FP64 models are the source's."""
    dtype = data.draw(st.sampled_from(["FP32", "FP16"]))
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    seed = data.draw(st.integers(0, 2**32 - 1))
    case = classifier_case("m", FREE, dtype=dtype, seed=seed % 7)
    folder = tmp_path_factory.mktemp("any")
    source = case.build(folder / "m.onnx")
    _publish(source, folder)
    pixels = np.random.default_rng(seed).integers(0, 256, (1, height, width, 3)).astype(np.uint8)
    floats = pixels.astype({"FP32": np.float32, "FP16": np.float16}[dtype])
    np.testing.assert_array_equal(
        _session(folder / "r/m/1/model.onnx").run(None, {"image": pixels})[0],
        _session(source).run(None, {"image": floats})[0],
        strict=True,
    )


def test_double_precision_too(tmp_path: Path) -> None:
    """FP64 holds 0-255 as well; the sentence says what was changed."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Cast", ["mean"], ["scores"], to=TensorProto.FLOAT),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.DOUBLE, ["N", "H", "W", 3])
    model = model_of(helper.make_graph(nodes, "g", [image], [_scores()]))
    onnx.save(model, tmp_path / "m.onnx")
    published = _publish(tmp_path / "m.onnx", tmp_path)
    sentence = (
        "The input 'image' takes UINT8 instead of FP64: a Cast stands in front of the graph, exact "
        "for pixels 0-255."
    )
    assert published.changes == (sentence,)
    _same_answers(tmp_path, np.float64)


def test_uses_inside_of_nodes_are_renamed(tmp_path: Path) -> None:
    """Graphs inside of nodes see the Cast's output, except where they have a name of their own."""
    mean = helper.make_node("ReduceMean", ["image"], ["inner"], axes=[1, 2], keepdims=0)
    largest = helper.make_node("ReduceMax", ["image"], ["inner"], axes=[1, 2], keepdims=0)
    inner = helper.make_tensor_value_info("inner", TensorProto.FLOAT, ["N", 3])
    # A scan over one number, whose own input is called like the image.
    own = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["twin"])],
        "own",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [3])],
        [helper.make_tensor_value_info("twin", TensorProto.FLOAT, [3])],
    )
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["all"], keepdims=0),
        helper.make_node("Greater", ["all", "half"], ["bright"]),
        helper.make_node(
            "If",
            ["bright"],
            ["chosen"],
            then_branch=helper.make_graph([mean], "then", [], [inner]),
            else_branch=helper.make_graph([largest], "else", [], [inner]),
        ),
        helper.make_node("Scan", ["chosen"], ["scores"], body=own, num_scan_inputs=1),
    ]
    half = numpy_helper.from_array(np.array(127, np.float32), "half")
    graph = helper.make_graph(nodes, "g", [_image()], [_scores()], [half])
    graph.value_info.append(_image())
    # The fresh name is taken already.
    graph.node.insert(0, helper.make_node("Identity", ["half"], ["image_as_fp32"]))
    onnx.save(model_of(graph), tmp_path / "m.onnx")
    assert _publish(tmp_path / "m.onnx", tmp_path).changes
    changed = onnx.load(tmp_path / "r/m/1/model.onnx")
    cast = changed.graph.node[0]
    assert (cast.op_type, *cast.input, *cast.output) == ("Cast", "image", "image_as_fp32_2")
    assert [v.name for v in changed.graph.value_info] == ["image_as_fp32_2"]
    onnx.checker.check_model(changed, full_check=True)
    _same_answers(tmp_path, np.float32)


def _same_answers(folder: Path, dtype: type[np.generic]) -> None:
    before, after = _session(folder / "m.onnx"), _session(folder / "r/m/1/model.onnx")
    for low in (0, 100):
        pixels: NDArray[np.uint8] = (
            np.random.default_rng(low).integers(low, low + 156, (2, 5, 4, 3)).astype(np.uint8)
        )
        np.testing.assert_array_equal(
            after.run(None, {"image": pixels})[0],
            before.run(None, {"image": pixels.astype(dtype)})[0],
            strict=True,
        )


def _answering_the_image() -> onnx.ModelProto:
    nodes = [helper.make_node("ReduceMean", ["image"], ["scores"], axes=[1, 2], keepdims=0)]
    return model_of(helper.make_graph(nodes, "g", [_image()], [_scores(), _image()]))


def _of_old_opset() -> onnx.ModelProto:
    model = _answering_the_image()
    del model.graph.output[1]
    model.opset_import[0].version = 5
    return model


def _with_training() -> onnx.ModelProto:
    model = classifier_case("m", FREE).make()
    model.training_info.add()
    return model


@pytest.mark.parametrize(
    "make",
    [
        _answering_the_image,
        _of_old_opset,
        _with_training,
        classifier_case("m", FREE, dtype="UINT8").make,
        next(case for case in FAMILY if case.id == "scalars").make,
    ],
    ids=["input-is-an-output", "cast-by-name", "training", "uint8-already", "two-inputs"],
)
def test_what_cannot_be_changed_is_published_as_it_is(
    make: Callable[[], onnx.ModelProto], tmp_path: Path
) -> None:
    """Equal bytes, equal digests, nothing to report."""
    source = tmp_path / "m.onnx"
    source.write_bytes(make().SerializeToString())
    published = _publish(source, tmp_path)
    assert published.changes == ()
    assert published.digest == published.source_digest == digest_file(source)
    assert (tmp_path / "r/m/1/model.onnx").read_bytes() == source.read_bytes()
    assert not published.kept_graph


@pytest.mark.parametrize(
    ("policy", "shape", "decision"),
    [
        (InputPolicy(), FREE, GraphDecision.CHANGE),
        (InputPolicy(), (1, 8, 8, 3), GraphDecision.CHANGE),
        (InputPolicy(), (None, 3, 8, 8), GraphDecision.NOTHING),
        (InputPolicy(pixels=True), (None, 3, 8, 8), GraphDecision.CHANGE),
        (InputPolicy(pixels=False), FREE, GraphDecision.NOTHING),
        (InputPolicy(keep_graph=True), FREE, GraphDecision.KEEP),
        (InputPolicy(keep_graph=True, pixels=False), FREE, GraphDecision.NOTHING),
        (InputPolicy(beside=TensorSignature("image", "FP32", FREE)), FREE, GraphDecision.KEEP),
        (InputPolicy(beside=TensorSignature("image", "UINT8", FREE)), FREE, GraphDecision.CHANGE),
        (InputPolicy(beside=TensorSignature("other", "FP32", FREE)), FREE, GraphDecision.CHANGE),
        (
            InputPolicy(beside=TensorSignature("image", "FP32", FREE), keep_graph=False),
            FREE,
            GraphDecision.CHANGE,
        ),
        (AS_IT_IS, FREE, GraphDecision.NOTHING),
    ],
)
def test_the_policy_decides(policy: InputPolicy, shape: Any, decision: GraphDecision) -> None:
    """Raw pixels and nobody against it: changed. Normalised or unknown values: never."""
    model = classifier_case("m", shape).make()
    assert policy.decide(model, signature_of(model).inputs[0]) is decision


def test_a_later_version_takes_what_the_newest_takes(tmp_path: Path) -> None:
    """Beside a version with floats the graph is kept, and a tuned config.pbtxt with it."""
    source = classifier_case("m", FREE).build(tmp_path / "m.onnx")
    first = _publish(source, tmp_path, InputPolicy(keep_graph=True))
    assert first.kept_graph
    config = tmp_path / "r/m/config.pbtxt"
    config.write_text(config.read_text().replace("count: 1", "count: 3", 1))

    def publish(version: int, policy: InputPolicy | None) -> PublishedVersion:
        return publish_version(
            source,
            repository=tmp_path / "r",
            name="m",
            version=version,
            options=OPTIONS,
            policy=policy,
        )

    second = publish(2, None)
    assert (second.signature, second.kept_graph) == (first.signature, True)
    assert parse(second.config_text).instance_group[0].count == 3
    third = publish(3, InputPolicy(keep_graph=False))
    assert third.signature.inputs[0].dtype == "UINT8"
    assert publish(4, None).signature == third.signature
    assert read_published(tmp_path / "r", "m", 1).signature == first.signature


def test_weights_are_copied_byte_for_byte(tmp_path: Path) -> None:
    """Initializers of any spelling are those of the file, and what is unknown in it stays."""
    rng = np.random.default_rng(0)
    large = rng.normal(size=(3, 700)).astype(np.float32)
    model = model_of(
        helper.make_graph(
            [
                helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2], keepdims=0),
                helper.make_node("MatMul", ["mean", "large"], ["wide"]),
                helper.make_node("Add", ["wide", "spelled"], ["scores"]),
            ],
            "g",
            [_image()],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 700])],
            [
                numpy_helper.from_array(large, "large"),
                helper.make_tensor("spelled", TensorProto.FLOAT, [700], rng.normal(size=700)),
            ],
        )
    )
    model.metadata_props.add(key="author", value="somebody")
    unknown = b"\xfa\x3e\x03abc"  # field 1007, three bytes
    source = tmp_path / "m.onnx"
    source.write_bytes(model.SerializeToString() + unknown)
    _publish(source, tmp_path)
    path = tmp_path / "r/m/1/model.onnx"
    changed = onnx.load(path)
    assert list(changed.graph.initializer) == list(model.graph.initializer)
    assert changed.metadata_props == model.metadata_props
    assert unknown in path.read_bytes()
    _same_answers(tmp_path, np.float32)


def test_what_is_fed_bytes_reads_back_as_such(tmp_path: Path) -> None:
    """The weightless graph, changed in place, has the signature of the published file."""
    graph = read_graph(classifier_case("m", FREE).build(tmp_path / "m.onnx"))
    feed_bytes(graph)
    _publish(tmp_path / "m.onnx", tmp_path)
    assert signature_of(graph) == read_published(tmp_path / "r", "m", 1).signature
