"""
How Transformers, timm, Ultralytics and ONNX itself describe what a model takes, in the words of a
preprocessing record. What a record cannot say exactly has no fields. Pure.

Source: as `proposals`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Pillow's resampling filters by their numbers, as image processors write them."""

# ONNX's nominal ranges of a pixel, as what 0-255 is multiplied by and what is taken away.
_RANGES = {
    "NominalRange_0_255": (1.0, 0.0),
    "NominalRange_16_235": (219 / 255, -16.0),
    "Normalized_0_1": (1 / 255, 0.0),
    "Normalized_1_1": (2 / 255, 1.0),
}
_FORMATS = {"Gray8": "GRAY", "Rgb8": "RGB", "Bgr8": "BGR"}
_LEAST_SHARE = 0.01
_MOST_SIDE = 8192
# Below it, ConvNeXt's processor scales up and crops; from it on, it stretches.
_CONVNEXT_SIDE = 384


@dataclass(frozen=True, slots=True)
class Described:
    """
    What one source says.

    Attributes:
        source: It, for people.
        fields: Of a record; None: it says none.
        labels: Class names by their number; None: it says none.
    """

    source: str
    fields: dict[str, Any] | None
    labels: Mapping[int, object] | None


def by_json(config: Mapping[str, Any]) -> list[Described]:
    """Read a JSON file that lies beside a model, whichever it is."""
    found = []
    if {"image_mean", "do_resize", "do_rescale", "image_processor_type"} & config.keys():
        found.append(Described("preprocessor_config.json (Transformers)", _processor(config), None))
    timm = config.get("pretrained_cfg", config)
    names = _by_number(config.get("label_names", _in(timm, "label_names")))
    words = config.get("label_descriptions", _in(timm, "label_descriptions"))
    if names is not None and isinstance(words, Mapping):
        names = {number: words.get(str(name), name) for number, name in names.items()}
    if isinstance(timm, Mapping) and {"input_size", "mean", "std"} <= timm.keys():
        found.append(Described("config.json (timm)", _timm(timm), names))
    elif names is not None:
        found.append(Described("config.json (timm)", None, names))
    if (names := _by_number(config.get("id2label"))) is not None:
        found.append(Described("config.json (Transformers)", None, names))
    return found


def by_ultralytics(metadata: Mapping[str, str], literals: Mapping[str, object]) -> list[Described]:
    """Read the metadata of an export by Ultralytics: `literals` are `names` and `imgsz`."""
    if not {"task", "names", "stride"} <= metadata.keys():
        return []
    names, fields = _by_number(literals["names"]), None
    size = _sides(literals["imgsz"])
    if metadata["task"] == "classify" and size is not None:
        square = size[0] == size[1]
        fields = {
            "size": size,
            "resize": "center_crop" if square else "stretch",
            "interpolation": "bilinear",
            "scale": 1 / 255,
        } | ({"shorter_side": size[0]} if square else {})
    return [Described("metadata of the file (Ultralytics)", fields, names)]


def by_onnx(metadata: Mapping[str, str]) -> list[Described]:
    """Read ONNX's own description of an image input."""
    nominal, pixels = (
        metadata.get("Image.NominalPixelRange"),
        metadata.get("Image.BitmapPixelFormat"),
    )
    if nominal not in _RANGES or pixels not in {None, *_FORMATS}:
        return []
    scale, mean = _RANGES[nominal]
    fields: dict[str, Any] = {"scale": scale, "mean": mean}
    if pixels is not None:
        fields["channel_order"] = _FORMATS[pixels]
    return [Described("metadata of the file (ONNX Image.*)", fields, None)]


def _processor(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Say what an image processor of Transformers does."""
    resized = _resized(config) if config.get("do_resize", "size" in config) else {}
    if resized is None:
        return None
    fields: dict[str, Any] = {**resized, "scale": 1.0}
    if config.get("do_rescale", True):
        fields["scale"] = config.get("rescale_factor", 1 / 255)
    if config.get("do_normalize", "image_mean" in config):
        fields |= {"mean": config.get("image_mean"), "std": config.get("image_std")}
    return fields


def _resized(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Say how an image processor resizes and crops; None where a record cannot."""
    size, crops = config.get("size"), bool(config.get("do_center_crop"))
    resample = config.get("resample", 2)
    if type(resample) is not int or not 0 <= resample < len(_FILTERS):
        return None
    fields = {"interpolation": _FILTERS[resample]}
    shorter = _in(size, "shortest_edge") if isinstance(size, Mapping) else size if crops else None
    if _sides(shorter) is None:
        shorter = None
    if isinstance(shorter, int) and _is_share(config.get("crop_pct")):
        # ConvNeXt's: the size is that of the crop.
        if shorter >= _CONVNEXT_SIDE:
            return fields | {"size": (shorter, shorter), "resize": "stretch"}
        return fields | _cropped((shorter, shorter), int(shorter / config["crop_pct"]))
    crop = _sides(config.get("crop_size")) if crops else None
    if isinstance(shorter, int):
        return None if crop is None else fields | _cropped(crop, shorter)
    sides = _sides(size)
    # Stretched, and then cropped to something else: no record does that.
    if sides is None or crop not in {None, sides}:
        return None
    return fields | {"size": sides, "resize": "stretch"}


def _timm(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Say what `timm.data.create_transform` does for evaluation."""
    size, share = config["input_size"], config.get("crop_pct", 0.875)
    sides = _sides(size[1:] if isinstance(size, list) and len(size) == 3 else None)
    name, mode = config.get("interpolation", "bilinear"), config.get("crop_mode", "center")
    if sides is None or name not in _FILTERS or not _is_share(share):
        return None
    scaled = [math.floor(side / share) for side in sides]
    fields: dict[str, Any] = {
        "interpolation": name,
        "scale": 1 / 255,
        "mean": config["mean"],
        "std": config["std"],
    }
    if mode == "squash" and tuple(scaled) == sides:
        return fields | {"size": sides, "resize": "stretch"}
    # Sides that differ, and borders, are scaled in ways of its own.
    if mode not in ("center", None, "") or sides[0] != sides[1]:
        return None
    return fields | _cropped(sides, scaled[0])


def _cropped(size: tuple[int, int], shorter_side: int) -> dict[str, Any]:
    return {"size": size, "resize": "center_crop", "shorter_side": shorter_side}


def _sides(size: object) -> tuple[int, int] | None:
    """Read height and width: a number, two of them, or an object that names them."""
    match size:
        case int():
            sides = size, size
        case [int(height), int(width)] | {"height": int(height), "width": int(width)}:
            sides = height, width
        case _:
            return None
    return sides if all(1 <= side <= _MOST_SIDE for side in sides) else None


def _by_number(names: object) -> dict[int, object] | None:
    """Read class names: a list, or an object or dict by their numbers."""
    if isinstance(names, list):
        return dict(enumerate(names))
    if not isinstance(names, dict):
        return None
    numbers = [str(key) for key in names]
    if not all(number.isdecimal() and len(number) <= 6 for number in numbers):
        return None
    return dict(zip(map(int, numbers), names.values(), strict=True))


def _is_share(value: object) -> bool:
    return isinstance(value, (int, float)) and _LEAST_SHARE <= value <= 1


def _in(holder: object, name: str) -> Any:
    return holder.get(name) if isinstance(holder, Mapping) else None
