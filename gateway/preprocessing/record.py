"""
The preprocessing record: how an image becomes the input of one version of a model.

A record is written once, at registration, checked against the model's signature, and kept with the
version. Without one, raw pixels are sent where the signature takes them, and nothing is guessed.

    pixels → orientation → grey → resize → channel order → × scale → − mean → ÷ std → layout

Resampling is Pillow's, named as Pillow names it, so that the record says exactly which pixels come
out. `center_crop` brings the shorter side to `shorter_side` and cuts `size` from the middle,
rounded as torchvision's Resize and CenterCrop round. `letterbox` is Pillow's ImageOps.pad.

Source: Pillow, Concepts ("Filters"), ImageOps (pad, exif_transpose); torchvision, Transforms
(Resize, CenterCrop, Normalize).
"""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from gateway.converter.signature import TensorSignature
from gateway.errors import PreprocessingInvalid
from gateway.preprocessing.presets import Layout, image_axes, overridden, preset

_MAX_SIDE = 8192

Side = Annotated[int, Field(ge=1, le=_MAX_SIDE)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Preprocessing(BaseModel):
    """
    One record. `mean` and `std` stand in the order of `channel_order`, after `scale`; a model that
    takes one image without a batch axis uses the same layouts without their N.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layout: Layout = Field("NHWC", description="Order of the axes.")
    size: tuple[Side, Side] | None = Field(
        None, description="Height and width of the input; absent: the image's own."
    )
    resize: Literal["none", "stretch", "center_crop", "letterbox"] = Field(
        "none",
        description=(
            "none: an image of another size is refused. stretch: both sides are scaled. "
            "center_crop: the shorter side is scaled to `shorter_side`, the middle is cut out. "
            "letterbox: the whole image is scaled to fit, the rest is `fill`."
        ),
    )
    fill: Annotated[int, Field(ge=0, le=255)] = Field(
        114, description="For letterbox: the grey beside the image."
    )
    orientation: Literal["stored", "exif"] = Field(
        "stored", description="exif: turned as the photograph's EXIF says; stored: as its rows lie."
    )
    shorter_side: Side | None = Field(
        None, description="For center_crop; absent: the larger side of `size`."
    )
    interpolation: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = Field(
        "bilinear", description="Pillow's resampling filter."
    )
    scale: Number = Field(1.0, description="What the values 0-255 are multiplied by.")
    mean: tuple[Number, Number, Number] = Field(
        (0.0, 0.0, 0.0), description="Subtracted after scaling, one for each channel."
    )
    std: tuple[Number, Number, Number] = Field(
        (1.0, 1.0, 1.0), description="Divided by at last, one for each channel."
    )
    channel_order: Literal["RGB", "BGR", "GRAY"] = Field(
        "RGB",
        description=(
            "Order of the channels. GRAY: one channel, Pillow's luminance, taken before resizing; "
            "of `mean` and `std` the first counts."
        ),
    )

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _for_all_channels(cls, given: object) -> object:
        """One number is meant for all channels."""
        alone = given[0] if isinstance(given, (list, tuple)) and len(given) == 1 else given
        return (alone,) * 3 if isinstance(alone, (int, float)) else given

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.resize != "none" and self.size is None:
            raise ValueError(f"resize={self.resize} needs a size")
        if 0.0 in self.std or self.scale == 0.0:
            raise ValueError("scale and std must not be zero")
        if self.shorter_side is not None and (
            self.size is None or self.resize != "center_crop" or self.shorter_side < max(self.size)
        ):
            raise ValueError("shorter_side is for center_crop and at least as large as the size")
        return self

    @model_serializer(mode="wrap")
    def _as_it_was(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out later fields that say nothing: digests of records stay what they are."""
        fields: dict[str, Any] = dump(self)
        for name in ("fill", "orientation"):
            if fields[name] == type(self).model_fields[name].default:
                del fields[name]
        return fields

    @property
    def normalizes(self) -> bool:
        """Whether the values differ from the pixels'."""
        return (self.scale, self.mean, self.std) != (1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    @property
    def channels(self) -> int:
        """How many channels it makes."""
        return 1 if self.channel_order == "GRAY" else 3

    def values(self) -> list[list[float]]:
        """Give what each value 0 to 255 becomes, by channel."""
        return [
            [(value * self.scale - mean) / std for value in range(256)]
            for mean, std in zip(self.mean, self.std, strict=True)
        ][: self.channels]


RAW = Preprocessing()


def resolve_preprocessing(requested: str | None, wanted: TensorSignature) -> Preprocessing | None:
    """
    Turn what was asked for at registration into the record of a version.

    Args:
        requested: The name of a preset, or a JSON object: a record, or `{"preset": NAME, …}` whose
            other fields replace the preset's. None: no record.
        wanted: The model's input.

    Returns:
        The record; None where raw pixels are sent as they are, which needs none.

    Raises:
        PreprocessingInvalid: It is no record, or it contradicts the input.
    """
    if requested is None or not requested.strip():
        return None
    fields = _read(requested)
    if (name := fields.pop("preset", None)) is not None:
        fields = overridden(preset(name, wanted), fields)
    try:
        record = Preprocessing.model_validate(fields)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise PreprocessingInvalid(
            f"The preprocessing record is not valid: {place}: {problem['msg']}."
        ) from error
    check_preprocessing(record, wanted)
    return None if record == RAW else record


def check_preprocessing(record: Preprocessing, wanted: TensorSignature) -> None:
    """
    Check that what the record produces is what the input takes.

    Raises:
        PreprocessingInvalid: It is not; the text names both.
    """
    image = image_axes(wanted)
    if image is None:
        raise _contradiction(f"the input is {wanted}, which is not an image")
    channels = image[2] if record.layout == "NHWC" else image[0]
    sides = image[:2] if record.layout == "NHWC" else image[1:]
    if channels not in {record.channels, None}:
        raise _contradiction(
            f"the input is {wanted}, whose axis of channels by {record.layout} is {channels}, not "
            f"{record.channels}"
            + ('; for one channel: "channel_order": "GRAY"' if channels == 1 else "")
        )
    if record.size is not None and any(
        fixed not in {None, size} for fixed, size in zip(sides, record.size, strict=True)
    ):
        raise _contradiction(f"the input is {wanted}, the size {list(record.size)}")
    if not wanted.dtype.startswith("FP") and record.normalizes and not _is_whole(record):
        raise _contradiction(
            f"the input is {wanted}: whole numbers can be shifted, and not normalised"
        )


def check_pixels(wanted: TensorSignature, record: Preprocessing | None) -> None:
    """
    Check that an image can become the input: its channels are an image's, and its values fit.

    Raises:
        PreprocessingInvalid: They do not; the text says what would.
    """
    image = image_axes(wanted)
    if image is not None and not {1, 3, None} & {image[0], image[2]}:
        raise PreprocessingInvalid(
            f"The model takes {wanted}: an image has three channels, or one (grey), and no record "
            "makes others. Export the model with an input of three or one."
        )
    made = (RAW if record is None else record).values()
    if wanted.dtype == "INT8" and not all(-128 <= v <= 127 for values in made for v in values):
        raise PreprocessingInvalid(
            f"The model takes {wanted}: values of 0 to 255 do not fit into INT8 and would wrap. "
            'Shift them by a record, {"mean": [128, 128, 128]}, if the model was quantised so, or '
            "export it with a UINT8 or FP32 input."
        )


def _is_whole(record: Preprocessing) -> bool:
    """Whether every value becomes a whole number."""
    return all(value.is_integer() for values in record.values() for value in values)


def _read(requested: str) -> dict[str, Any]:
    text = requested.strip()
    if not text.startswith("{"):
        return {"preset": text}
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PreprocessingInvalid("The preprocessing record is not JSON.") from error
    return dict(fields)


def _contradiction(reason: str) -> PreprocessingInvalid:
    return PreprocessingInvalid(f"The preprocessing record contradicts the model: {reason}.")
