"""What a model says of itself, and what is believed of it."""

import json

import onnx
import pytest

from gateway.converter.provenance import (
    CalibratedOn,
    Provenance,
    read_provenance,
    write_provenance,
)

_GOOD = Provenance(
    from_version=3,
    from_digest="sha256:00",
    recipe="u8s8",
    calibration=CalibratedOn(digest="sha256:11", images=75),
)


def test_it_is_read_back() -> None:
    """The last that was written counts; other metadata stays."""
    model = onnx.ModelProto()
    model.metadata_props.add(key="author", value="somebody")
    write_provenance(model, _GOOD.model_copy(update={"from_version": 1}))
    write_provenance(model, _GOOD)
    assert read_provenance(model) == _GOOD
    assert [each.key for each in model.metadata_props] == ["author", "onnx_gateway.optimized"]


@pytest.mark.parametrize(
    "stored",
    [
        *("", "[]", "no json", '"x"', "{" * 5000, "{}", "null"),
        json.dumps(_GOOD.model_dump() | {"from_version": 0}),
        json.dumps(_GOOD.model_dump() | {"more": 1}),
        json.dumps(_GOOD.model_dump() | {"calibration": None}),
        json.dumps(_GOOD.model_dump() | {"calibration": {"digest": "d", "images": -1}}),
        json.dumps(_GOOD.model_dump() | {"calibration": {"digest": "d", "images": "75"}}),
        json.dumps(_GOOD.model_dump() | {"recipe": "x" * 5000}),
    ],
)
def test_what_is_not_of_the_form_is_nothing(stored: str) -> None:
    """Whatever somebody writes under the key: none, and no error."""
    model = onnx.ModelProto()
    write_provenance(model, _GOOD)
    model.metadata_props[0].value = stored
    assert read_provenance(model) is None
