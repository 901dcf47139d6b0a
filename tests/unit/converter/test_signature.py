"""Signatures: what makes a classifier, how many classes, JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.converter.errors import SignatureUnsupported
from gateway.converter.signature import ModelSignature, Shape, TensorSignature, check_classifier

IMAGE: Shape = (None, None, None, 3)


def _signature(
    image: Shape = IMAGE, scores: Shape = (None, 10), *, dtype: str = "FP32", answer: str = "FP32"
) -> ModelSignature:
    return ModelSignature(
        inputs=(TensorSignature("image", dtype, image),),
        outputs=(TensorSignature("scores", answer, scores),),
        ir_version=8,
        opsets={"ai.onnx": 13},
    )


@pytest.mark.parametrize(
    ("image", "scores", "classes"),
    [
        (IMAGE, (None, 10), 10),
        (IMAGE, (1, 10), 10),
        ((1, 3, 224, 224), (1, 1000), 1000),
        ((None, 3, 8, 8), (None, 1000, 1, 1), 1000),
        ((None, None, 3), (10,), 10),
        ((None, None, 1), (1, 10), 10),
        (IMAGE, (10,), 10),
        (IMAGE, (None, None), None),
    ],
)
def test_classifiers_are_accepted(image: Shape, scores: Shape, classes: int | None) -> None:
    """One image in, [N, C], [C] or [N, C, 1, 1] out; C is the number of classes."""
    signature = _signature(image, scores)
    check_classifier(signature)
    assert signature.classes == classes


@pytest.mark.parametrize(
    "signature",
    [
        _signature((None, 10)),
        _signature((None, 3, 4, 8, 8)),
        _signature((2, 8, 8, 3)),
        _signature(scores=()),
        _signature(scores=(2, 10)),
        _signature(scores=(1, 4420, 2)),
        _signature(scores=(None, 10, 7, 7)),
        _signature(scores=(None, 10, None, 1)),
        _signature(dtype="BYTES"),
        _signature(dtype="BOOL"),
        _signature(answer="BYTES"),
        ModelSignature((), _signature().outputs, 8),
        ModelSignature(_signature().inputs * 2, _signature().outputs, 8),
        ModelSignature(_signature().inputs, (), 8),
    ],
    ids=str,
)
def test_everything_else_is_refused_and_shown(signature: ModelSignature) -> None:
    """The text shows the whole signature."""
    with pytest.raises(SignatureUnsupported) as refused:
        check_classifier(signature)
    assert str(signature) in str(refused.value)


@pytest.mark.parametrize(
    ("image", "scores", "batchable"),
    [
        (IMAGE, (None, 10), True),
        (IMAGE, (1, 10), False),
        ((1, 8, 8, 3), (None, 10), False),
        (IMAGE, (), False),
        ((), (None,), False),
    ],
)
def test_only_a_free_first_axis_everywhere_is_batched(
    image: Shape, scores: Shape, batchable: bool
) -> None:
    """One tensor with a fixed first axis, or none, rules batching out."""
    assert _signature(image, scores).batchable is batchable


_shapes = st.lists(st.one_of(st.none(), st.integers(1, 2**40)), max_size=5).map(tuple)
_tensors = st.builds(TensorSignature, st.text(), st.sampled_from(["FP32", "BYTES"]), _shapes)


@given(
    st.builds(
        ModelSignature,
        st.lists(_tensors).map(tuple),
        st.lists(_tensors).map(tuple),
        st.integers(1, 20),
        st.dictionaries(st.text(), st.integers(1, 99)),
    )
)
def test_json_reads_back_the_same(signature: ModelSignature) -> None:
    """What the store keeps is what was read."""
    assert ModelSignature.from_json(json.loads(json.dumps(signature.to_json()))) == signature


def test_same_tensors_overlooks_versions_of_onnx() -> None:
    """A re-export with a newer opset takes the same requests."""
    one = _signature()
    newer = ModelSignature(one.inputs, one.outputs, 10, {"ai.onnx": 21})
    assert one.same_tensors(newer)
    assert not one.same_tensors(_signature(scores=(None, 11)))
