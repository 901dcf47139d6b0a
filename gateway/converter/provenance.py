"""
What a model was made of, in the model's own metadata, so that it travels with the file.

Written by `gateway optimize`: the version and digest that it was made of, how, and which images
calibrated it. It is read from files that anybody may upload: it is shown, and images that it says
calibrated are not judged on, which is a quarter of a set at most. Nothing else is believed.
"""

import onnx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

KEY = "onnx_gateway.optimized"
_MOST_BYTES = 4096
_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)


class CalibratedOn(BaseModel):
    """The set of images by its digest, and how many of them calibrated."""

    model_config = _STRICT

    digest: str
    images: int = Field(ge=0)


class Provenance(BaseModel):
    """Of which version a model was made, how, and with which images."""

    model_config = _STRICT

    from_version: int = Field(ge=1)
    from_digest: str
    recipe: str
    calibration: CalibratedOn


def write_provenance(model: onnx.ModelProto, provenance: Provenance) -> None:
    """Put it into a model, in the place of what was there."""
    kept = [each for each in model.metadata_props if each.key != KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key=KEY, value=provenance.model_dump_json())


def read_provenance(model: onnx.ModelProto) -> Provenance | None:
    """Read it; None where there is none that can be read."""
    for each in model.metadata_props:
        if each.key == KEY and len(each.value) <= _MOST_BYTES:
            try:
                return Provenance.model_validate_json(each.value)
            except ValidationError:
                return None
    return None
