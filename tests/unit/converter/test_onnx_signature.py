"""Signatures read from files: the family, damaged files, and onnxruntime's opinion."""

import contextlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from gateway.converter.errors import ConverterError, ModelInvalid, SignatureUnsupported
from gateway.converter.onnx_signature import accepts_inputs, read_graph, read_signature
from gateway.converter.signature import check_classifier
from tests.model_family import FAMILY, ModelCase, classifier_case, model_of

ONE_MODEL = FAMILY[0]


@pytest.mark.parametrize("case", FAMILY, ids=lambda case: case.id)
def test_family_reads_as_declared(case: ModelCase, tmp_path: Path) -> None:
    """Names, datatypes and shapes are the graph's; initializers are no inputs."""
    signature = read_signature(case.build(tmp_path / "model.onnx"))
    assert signature.inputs == case.inputs
    assert signature.outputs == case.outputs
    assert signature.batchable == case.batchable
    if case.classifier:
        check_classifier(signature)
    else:
        with pytest.raises(SignatureUnsupported):
            check_classifier(signature)


@pytest.mark.parametrize("case", FAMILY, ids=lambda case: case.id)
def test_shapes_are_those_that_onnxruntime_tells(case: ModelCase, tmp_path: Path) -> None:
    """Triton compares its configuration with onnxruntime's shapes, so ours must be the same."""
    path = case.build(tmp_path / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options)
    signature = read_signature(path)
    for ours, theirs in (
        (signature.inputs, session.get_inputs()),
        (signature.outputs, session.get_outputs()),
    ):
        assert {tensor.name: tensor.dims for tensor in ours} == {
            node.name: tuple(dim if isinstance(dim, int) else -1 for dim in node.shape)
            for node in theirs
        }


def test_opsets_and_ir_version_are_read(tmp_path: Path) -> None:
    """The default domain is spelt ai.onnx, others as they are."""
    model = ONE_MODEL.make()
    model.opset_import.add(domain="com.microsoft", version=1)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    signature = read_signature(path)
    assert signature.ir_version == 8
    assert signature.opsets == {"ai.onnx": 13, "com.microsoft": 1}


def test_sparse_initializer_listed_as_input_is_no_input(tmp_path: Path) -> None:
    """A sparse default is a default too."""
    model = ONE_MODEL.make()
    values = numpy_helper.from_array(np.ones(1, np.float32), "sparse")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "at")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    model.graph.input.append(helper.make_tensor_value_info("sparse", TensorProto.FLOAT, [4]))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert [tensor.name for tensor in read_signature(path).inputs] == ["image"]


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"garbage", b"PK\x03\x04" * 50, b"\x08\x08", bytes(range(256)) * 64]
)
def test_other_files_are_invalid(content: bytes, tmp_path: Path) -> None:
    """Empty files and other formats are refused as no model."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelInvalid):
        read_signature(path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    """A file that was cut short anywhere is never taken for a model."""
    path = tmp_path / "model.onnx"
    whole = ONE_MODEL.build(path).read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelInvalid):
            read_signature(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_never_gives_another_kind_of_error(data: st.DataObject, tmp_path: Path) -> None:
    """Flipped bytes give a signature or an error of our tree, nothing else."""
    content = bytearray(ONE_MODEL.make().SerializeToString())
    places = st.integers(0, len(content) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1)):
        content[place] = value
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with contextlib.suppress(ConverterError):
        assert read_signature(path).inputs is not None


def test_file_beyond_protobufs_limit_is_refused_unread(tmp_path: Path) -> None:
    """Two gibibytes are refused by their size; the file is sparse and never read."""
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(ModelInvalid, match="2 GiB"):
        read_signature(path)


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (
            helper.make_tensor_sequence_value_info("zipmap", TensorProto.FLOAT, ["N"]),
            "'zipmap' sequence",
        ),
        (
            helper.make_value_info(
                "zipmap",
                helper.make_map_type_proto(
                    TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
                ),
            ),
            "'zipmap' map",
        ),
        (
            helper.make_value_info(
                "maybe",
                helper.make_optional_type_proto(
                    helper.make_tensor_type_proto(TensorProto.FLOAT, ["N"])
                ),
            ),
            "'maybe' optional",
        ),
        (helper.make_tensor_value_info("b", TensorProto.BFLOAT16, ["N", 3]), "'b' BFLOAT16 [?, 3]"),
        (helper.make_tensor_value_info("c", TensorProto.COMPLEX64, [1]), "'c' COMPLEX64 [1]"),
        (helper.make_tensor_value_info("e", TensorProto.FLOAT, ["N", 0]), "'e' FP32 [?, 0]"),
        (helper.make_tensor_value_info("r", TensorProto.FLOAT, None), "'r' FP32 of unknown rank"),
        (helper.make_tensor_value_info("", TensorProto.FLOAT, [1]), "'' FP32 [1]"),
        (helper.make_tensor_value_info("z\0", TensorProto.FLOAT, [1]), r"'z\x00' FP32 [1]"),
        (onnx.ValueInfoProto(name="n"), "'n' of no type"),
    ],
    ids=lambda value: value.name or "empty" if isinstance(value, onnx.ValueInfoProto) else "",
)
def test_what_triton_cannot_carry_is_refused_and_shown(
    output: onnx.ValueInfoProto, shown: str, tmp_path: Path
) -> None:
    """Sequences, maps, optionals and foreign datatypes fail a load, listed or not."""
    model = ONE_MODEL.make()
    model.graph.output.append(output)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(SignatureUnsupported) as refused:
        read_signature(path)
    text = str(refused.value)
    assert "inputs: 'image' FP32 [?, ?, ?, 3]; outputs: 'scores' FP32 [?, 5], " in text
    assert text.endswith(shown)


def test_name_that_is_not_utf8_is_invalid(tmp_path: Path) -> None:
    """Protobuf lets such a name pass; nothing after it would."""
    model = classifier_case("c", (1, 4, 4, 3), output_name="replaceme").make()
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString().replace(b"replaceme", b"\xff\xferaceme"))
    with pytest.raises(ModelInvalid):
        read_signature(path)


def test_weights_are_dropped_and_shape_constants_kept(tmp_path: Path) -> None:
    """A Reshape's target decides the output's shape; a megabyte of weights does not."""
    weights = numpy_helper.from_array(np.zeros((3 * 64, 1000), np.float32), "weights")
    target = numpy_helper.from_array(np.array([-1, 10, 100]), "target")
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["wide"]),
            helper.make_node("Reshape", ["wide", "target"], ["scores"]),
        ],
        "reshape",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)],
        [weights, target],
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(model_of(graph).SerializeToString())
    assert path.stat().st_size > 700_000
    assert read_graph(path).ByteSize() < 1000
    assert read_signature(path).outputs[0].dims[1:] == (10, 100)


def test_shapes_that_cannot_pass_are_told_from_those_that_can(tmp_path: Path) -> None:
    """A graph that flattens into a matrix takes one size, whatever it declares."""
    case = next(case for case in FAMILY if case.id == "one-size-declared-free")
    graph = read_graph(case.build(tmp_path / "model.onnx"))
    before = graph.SerializeToString()
    assert accepts_inputs(graph, {"image": (1, 6, 6, 3)})
    assert not accepts_inputs(graph, {"image": (1, 224, 224, 3)})
    assert graph.SerializeToString() == before
