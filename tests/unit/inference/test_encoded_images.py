"""Images of one call: the parts that they are cut into, and the answer that is put together."""

import json

import pytest

from gateway.converter.signature import ModelSignature
from gateway.errors import ImageInvalid, ImageMismatch
from gateway.inference.encoded_images import ImagePart, parts_of
from gateway.inference.request import Stages
from gateway.inference.tensor_answer import TensorAnswer
from gateway.inference.tensor_joining import joined
from gateway.registry.versions import ModelVersion
from gateway.triton.connections import HttpResponse

_VERSION = ModelVersion(
    model="m",
    version=1,
    digest="",
    source_digest="",
    size_bytes=0,
    signature=ModelSignature((), (), 8),
    config="",
    changes=(),
    source="upload",
    created_at_s=0.0,
)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 16, 17, 64])
@pytest.mark.parametrize("most", [1, 3, 8])
def test_parts_hold_every_image_in_order_and_no_more_than_is_allowed(count: int, most: int) -> None:
    """As few parts as there can be, their lengths at most one apart."""
    images = [bytes([number]) for number in range(count)]
    parts = parts_of(images, most=most)
    assert [image for part in parts for image in part.encoded] == images
    assert [part.first for part in parts] == [images.index(part.encoded[0]) for part in parts]
    lengths = {len(part.encoded) for part in parts}
    assert max(lengths) <= most
    assert max(lengths) - min(lengths) <= 1
    assert len(parts) == -(-count // most)


def test_an_error_names_the_image_by_its_position_in_the_call() -> None:
    """Alone it needs no number."""
    for part, text in (
        (ImagePart([b""], 9, 10), "Image 9: broken"),
        (ImagePart([b""], 0, 1), "broken"),
    ):
        with pytest.raises(ImageInvalid) as caught, part.blaming(0):
            raise ImageInvalid("broken")
        assert caught.value.detail == text


def _answer(rows: int, *, binary: bool, columns: int = 2) -> TensorAnswer:
    values = bytes(range(rows * columns))
    output: dict[str, object] = {"name": "y", "datatype": "UINT8", "shape": [rows, columns]}
    if binary:
        output["parameters"] = {"binary_data_size": len(values)}
    else:
        output["data"] = list(values)
    written = json.dumps({"model_name": "m", "model_version": "1", "outputs": [output]}).encode()
    headers = {"inference-header-content-length": str(len(written))} if binary else {}
    body = written + (values if binary else b"")
    return TensorAnswer(HttpResponse(200, headers, body), _VERSION, "m", "r", Stages())


@pytest.mark.parametrize("binary", [True, False])
def test_rows_of_answers_stand_one_after_the_other(binary: bool) -> None:
    """In the JSON as behind it; sizes and shapes are those of the whole."""
    whole = joined([_answer(2, binary=binary), _answer(1, binary=binary)])
    ((said, values),) = whole.outputs()
    assert said["shape"] == [3, 2]
    assert (list(values) if binary else said["data"]) == [0, 1, 2, 3, 0, 1]
    assert whole.has_values is binary


def test_answers_of_different_shapes_are_not_put_together() -> None:
    """Rows of one tensor have one length."""
    with pytest.raises(ImageMismatch, match="'y' has another shape for each image"):
        joined([_answer(1, binary=True), _answer(1, binary=True, columns=3)])
