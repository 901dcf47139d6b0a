"""The preprocessing record: what it means to the last bit, and what contradicts a model."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gateway.converter.signature import TensorSignature
from gateway.errors import ImageMismatch, PreprocessingInvalid
from gateway.inference.images.tensors import to_tensor
from gateway.preprocessing.pixels import preprocess
from gateway.preprocessing.record import Preprocessing, resolve_preprocessing

NCHW = TensorSignature("x", "FP32", (None, 3, 224, 224))
FREE = TensorSignature("x", "FP32", (None, None, None, 3))
ROOT = Path(__file__).parents[3]
DEMO = ROOT / "tools/demo/efficientnet_lite0"
PHOTOGRAPHS = ROOT / "gateway/registry/validation/photographs"
PIXELS = np.random.default_rng(0).integers(0, 256, (90, 130, 3)).astype(np.uint8)


def _resolved(requested: str, wanted: TensorSignature = NCHW) -> Preprocessing:
    record = resolve_preprocessing(requested, wanted)
    assert record is not None
    return record


_FREE = TensorSignature("image", "FP32", (None, 3, None, None))


def test_imagenet_is_torchvisions_pipeline() -> None:
    """Resize(256), CenterCrop(224), ToTensor, Normalize, written out by hand."""
    image = Image.fromarray(PIXELS).resize((int(256 * 130 / 90), 256), Image.Resampling.BILINEAR)
    left, top = round((image.width - 224) / 2), round((image.height - 224) / 2)
    cropped = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float64) / 255
    expected = (cropped - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    got = preprocess(PIXELS, _resolved("imagenet"), NCHW)
    assert got.dtype == np.float32
    assert got.shape == (1, 3, 224, 224)
    np.testing.assert_array_equal(got[0], expected.transpose(2, 0, 1).astype(np.float32))


@pytest.mark.parametrize("name", ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"])
def test_resampling_is_pillows_bit_for_bit(name: str) -> None:
    """Each interpolation gives the pixels of Pillow's filter of that name."""
    record = Preprocessing.model_validate(
        {"layout": "NCHW", "size": (224, 224), "resize": "stretch", "interpolation": name}
    )
    expected = Image.fromarray(PIXELS).resize((224, 224), Image.Resampling[name.upper()])
    got = preprocess(PIXELS, record, NCHW)
    np.testing.assert_array_equal(got[0].transpose(1, 2, 0), np.asarray(expected, np.float32))


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_efficientnets_record_is_its_reference_pipeline(name: str) -> None:
    """EfficientNet-Lite0 on photographs: what Pillow and (value - 127) / 128 give, to the bit."""
    with Image.open(PHOTOGRAPHS / f"{name}.jpg") as opened:
        photograph = opened.convert("RGB")
    record = _resolved((DEMO / "preprocessing.json").read_text())
    got = preprocess(np.asarray(photograph), record, NCHW)

    width, height = photograph.size
    shorter = min(width, height)
    scaled = (int(256 * width / shorter), int(256 * height / shorter))
    image = photograph.resize(scaled, Image.Resampling.BICUBIC)
    left, top = round((image.width - 224) / 2), round((image.height - 224) / 2)
    values = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32)
    expected = (values.transpose(2, 0, 1) - np.float32(127)) / np.float32(128)
    np.testing.assert_array_equal(got, expected[np.newaxis], strict=True)


def test_bgr_and_means_stand_in_the_order_of_the_channels() -> None:
    """With BGR, the first mean is that of blue."""
    record = Preprocessing(channel_order="BGR", mean=(10.0, 20.0, 30.0))
    got = preprocess(PIXELS, record, FREE)
    np.testing.assert_array_equal(got[0], PIXELS[:, :, ::-1].astype(np.float32) - [10, 20, 30])


def test_unit_keeps_a_free_size_and_stretches_to_a_fixed_one() -> None:
    """Values 0 to 1; the size is the image's own where the model takes any."""
    assert preprocess(PIXELS, _resolved("unit", FREE), FREE).shape == (1, 90, 130, 3)
    fixed = preprocess(PIXELS, _resolved("unit"), NCHW)
    assert fixed.shape == (1, 3, 224, 224)
    assert 0.9 < fixed.max() <= 1.0


def test_raw_is_no_record_and_leaves_pixels_as_they_are() -> None:
    """`raw` says what would be done without a record."""
    assert resolve_preprocessing("raw", FREE) is None
    assert resolve_preprocessing(None, NCHW) is None
    np.testing.assert_array_equal(to_tensor(PIXELS, FREE)[0], PIXELS.astype(np.float32))
    one_image = TensorSignature("x", "UINT8", (None, None, 3))
    np.testing.assert_array_equal(to_tensor(PIXELS, one_image), PIXELS)


def test_an_image_of_another_size_is_refused_where_nothing_resizes() -> None:
    """422 image_mismatch that names both sizes."""
    record = Preprocessing(layout="NCHW", size=(224, 224))
    with pytest.raises(ImageMismatch, match=r"224x224.*90x130"):
        preprocess(PIXELS, record, NCHW)


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        ({"layout": "NHWC"}, NCHW),
        ({"layout": "NCHW", "size": [224, 223], "resize": "stretch"}, NCHW),
        ({"scale": 0.5}, TensorSignature("x", "UINT8", (None, None, None, 3))),
        ({}, TensorSignature("x", "FP32", (None, 10))),
        ({}, TensorSignature("x", "FP32", (None, 28, 28, 1))),
        ({"resize": "stretch"}, FREE),
        ({"std": [1, 0, 1]}, FREE),
        ({"mean": [1, 2]}, FREE),
        ({"size": [0, 5]}, FREE),
        ({"scale": "inf"}, FREE),
        ({"shorter_side": 10, "size": [20, 20], "resize": "center_crop"}, FREE),
        ({"preset": "resnet"}, FREE),
        ({"interpolate": "nearest"}, FREE),
    ],
    ids=str,
)
def test_a_record_that_cannot_be_is_refused(
    record: dict[str, object], wanted: TensorSignature
) -> None:
    """422 preprocessing_invalid, before anything is published."""
    with pytest.raises(PreprocessingInvalid):
        resolve_preprocessing(json.dumps(record), wanted)


def test_a_preset_takes_layout_and_size_from_the_model() -> None:
    """Imagenet fits NHWC, NCHW and other sizes; its crop keeps the proportion 224 of 256."""
    small = TensorSignature("x", "FP16", (1, 112, 112, 3))
    record = _resolved('{"preset": "imagenet", "interpolation": "bicubic"}', small)
    assert (record.layout, record.size, record.shorter_side) == ("NHWC", (112, 112), 128)
    assert preprocess(PIXELS, record, small).dtype == np.float16


def test_one_channel_is_pillows_luminance() -> None:
    """GRAY: what Pillow converts to L, before resizing; grey pixels stay as they are."""
    wanted = TensorSignature("image", "FP32", (None, 1, 28, 28))
    record = resolve_preprocessing('{"preset": "unit", "mean": [0.1307], "std": 0.3081}', wanted)
    assert record is not None
    image = Image.fromarray(PIXELS).convert("L").resize((28, 28), Image.Resampling.BILINEAR)
    expected = (np.asarray(image, np.float64) * (1 / 255) - 0.1307) / 0.3081
    got = preprocess(PIXELS, record, wanted)
    assert got.shape == (1, 1, 28, 28)
    np.testing.assert_array_equal(got[0, 0], expected.astype(np.float32))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"size": [299, 299]}, {"size": (299, 299), "shorter_side": 342, "resize": "center_crop"}),
        ({"resize": "stretch"}, {"size": (224, 224), "shorter_side": None, "resize": "stretch"}),
        ({"shorter_side": 232}, {"size": (224, 224), "shorter_side": 232}),
        ({"mean": 0.5}, {"mean": (0.5, 0.5, 0.5), "shorter_side": 256}),
    ],
)
def test_a_preset_may_be_changed_in_part(
    changed: dict[str, object], expected: dict[str, object]
) -> None:
    """No error speaks of a field that nobody gave: what follows from another field follows it."""
    record = resolve_preprocessing(json.dumps({"preset": "imagenet", **changed}), _FREE)
    assert record is not None
    assert {name: getattr(record, name) for name in expected} == expected
