"""What a preset means for one input: layout and, where it is fixed, size are the input's. Pure."""

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeGuard

from gateway.converter.signature import Shape, TensorSignature
from gateway.errors import PreprocessingInvalid

PRESETS = ("raw", "imagenet", "unit")
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_IMAGENET_SIDE, _IMAGENET_SHORTER_SIDE = 224, 256

Layout = Literal["NHWC", "NCHW"]


def image_axes(wanted: TensorSignature) -> Shape | None:
    """Give the three axes of one image, the batch axis left out; None if it is not an image."""
    match wanted.shape:
        case (_, *image) if len(image) == 3:
            return tuple(image)
        case (_, _, _):
            return wanted.shape
        case _:
            return None


def laid_out(wanted: TensorSignature) -> tuple[Layout, bool, tuple[int, int] | None]:
    """Tell an input's layout, whether it has one channel, and its height and width if fixed."""
    image = image_axes(wanted) or (None, None, 3)
    layout: Layout = "NCHW" if image[0] in {1, 3} and image[2] not in {1, 3} else "NHWC"
    gray = image[0 if layout == "NCHW" else 2] == 1
    height, width = image[1:] if layout == "NCHW" else image[:2]
    return layout, gray, (height, width) if height is not None and width is not None else None


def preset(name: object, wanted: TensorSignature) -> dict[str, Any]:
    """Lay a preset out for an input: layout and, where it is fixed, size are the input's."""
    if name not in PRESETS:
        raise PreprocessingInvalid(
            f"There is no preprocessing preset {str(name)[:40]!r}; there are "
            f"{', '.join(PRESETS)}, and records of your own as JSON."
        )
    layout, gray, fixed = laid_out(wanted)
    order = {"channel_order": "GRAY"} if gray else {}
    if name == "raw":
        return order and {"layout": layout, **order}
    if name == "unit":
        resize = {"size": fixed, "resize": "stretch"} if fixed else {}
        return {"layout": layout, "scale": 1 / 255, **resize, **order}
    size = fixed or (_IMAGENET_SIDE, _IMAGENET_SIDE)
    return {
        "layout": layout,
        "size": size,
        "resize": "center_crop",
        "shorter_side": _imagenet_shorter_side(size),
        "scale": 1 / 255,
        "mean": _IMAGENET_MEAN,
        "std": _IMAGENET_STD,
        **order,
    }


def overridden(named: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Replace fields of a preset; what follows from the replaced ones follows from the new ones."""
    fields = named | given
    if "shorter_side" not in given:
        fields.pop("shorter_side", None)
        size = fields.get("size")
        if fields.get("resize") == "center_crop" and named.get("shorter_side") and _is_size(size):
            fields["shorter_side"] = _imagenet_shorter_side(size)
    return fields


def _imagenet_shorter_side(size: Sequence[int]) -> int:
    return math.ceil(max(size) * _IMAGENET_SHORTER_SIDE / _IMAGENET_SIDE)


def _is_size(size: object) -> TypeGuard[Sequence[int]]:
    return (
        isinstance(size, (list, tuple))
        and len(size) == 2
        and all(isinstance(side, int) for side in size)
    )
