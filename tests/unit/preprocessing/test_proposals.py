"""What files say of their preprocessing is proposed, exactly as those who wrote them mean it."""

import json
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gateway.converter.signature import TensorSignature
from gateway.preprocessing.pixels import preprocess
from gateway.preprocessing.proposals import Proposal, propose, takes_proposal
from gateway.preprocessing.record import Preprocessing

_SIDE = 32
_INPUT = TensorSignature("x", "FP32", (None, 3, _SIDE, _SIDE))
_ANY = TensorSignature("x", "FP32", (None, 3, None, None))
_PIXELS = np.random.default_rng(2).integers(0, 256, (45, 70, 3)).astype(np.uint8)
_MEAN, _STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.5]
_NUMBERS = {"image_mean": _MEAN, "image_std": _STD, "do_normalize": True, "do_rescale": True}
_ULTRALYTICS = {
    "description": "Ultralytics YOLO11n-cls model",
    "task": "classify",
    "stride": "1",
    "imgsz": f"[{_SIDE}, {_SIDE}]",
    "names": "{0: 'cat', 1: 'dog'}",
}


def _proposed(
    *sidecars: Any, wanted: TensorSignature = _INPUT, metadata: dict[str, str] | None = None
) -> Proposal | None:
    return propose(metadata or {}, [json.dumps(each) for each in sidecars], wanted, 2)


def _record(
    *sidecars: Any, wanted: TensorSignature = _INPUT, metadata: dict[str, str] | None = None
) -> Preprocessing:
    proposal = _proposed(*sidecars, wanted=wanted, metadata=metadata)
    assert proposal is not None
    assert proposal.preprocessing is not None
    return proposal.preprocessing


def _by_hand(
    shorter_side: int | None, resample: Image.Resampling, mean: Any, std: Any
) -> np.ndarray:
    """Torchvision's Resize and CenterCrop (None: a plain resize), ToTensor, Normalize."""
    image = Image.fromarray(_PIXELS)
    if shorter_side is None:
        image = image.resize((_SIDE, _SIDE), resample)
    else:
        image = image.resize((int(shorter_side * 70 / 45), shorter_side), resample)
        left, top = round((image.width - _SIDE) / 2), round((image.height - _SIDE) / 2)
        image = image.crop((left, top, left + _SIDE, top + _SIDE))
    values = (np.asarray(image, np.float64) * (1 / 255) - mean) / std
    planes: np.ndarray = values.transpose(2, 0, 1).astype(np.float32)
    return planes


@pytest.mark.parametrize(
    ("config", "shorter_side", "resample"),
    [
        ({"do_resize": True, "size": {"height": _SIDE, "width": _SIDE}, "resample": 3}, None, 3),
        ({"do_resize": True, "size": _SIDE, "resample": 2}, None, 2),
        (
            {
                "do_resize": True,
                "size": {"shortest_edge": 40},
                "resample": 3,
                "do_center_crop": True,
                "crop_size": {"height": _SIDE, "width": _SIDE},
            },
            40,
            3,
        ),
        (
            {"do_resize": True, "size": 36, "do_center_crop": True, "crop_size": _SIDE},
            36,
            2,
        ),
        ({"do_resize": True, "size": {"shortest_edge": _SIDE}, "crop_pct": 0.875}, 36, 2),
    ],
    ids=["ViT", "size-as-a-number", "CLIP", "older-CLIP", "ConvNeXt"],
)
def test_an_image_processor_of_transformers(
    config: dict[str, Any], shorter_side: int | None, resample: int
) -> None:
    """Each way of sizing gives the pixels that the processor gives, and its mean and deviation."""
    record = _record({"image_processor_type": "X", **_NUMBERS, **config})
    expected = _by_hand(shorter_side, Image.Resampling(resample), _MEAN, _STD)
    np.testing.assert_array_equal(preprocess(_PIXELS, record, _INPUT)[0], expected)


@pytest.mark.parametrize("share", [0.875, 0.95, 1.0])
@pytest.mark.parametrize("nested", [True, False])
def test_the_configuration_of_timm(share: float, nested: bool) -> None:
    """`crop_pct` is how much of the scaled image is left: its side is rounded down."""
    config = {
        "input_size": [3, _SIDE, _SIDE],
        "interpolation": "bicubic",
        "crop_pct": share,
        "crop_mode": "center",
        "mean": _MEAN,
        "std": _STD,
    }
    record = _record({"architecture": "x", "pretrained_cfg": config} if nested else config)
    expected = _by_hand(math.floor(_SIDE / share), Image.Resampling.BICUBIC, _MEAN, _STD)
    np.testing.assert_array_equal(preprocess(_PIXELS, record, _INPUT)[0], expected)


def test_the_metadata_of_ultralytics() -> None:
    """A classifier's: the shorter side is the image's, the middle cut out, values 0 to 1."""
    proposal = _proposed(metadata=_ULTRALYTICS)
    assert proposal is not None
    assert proposal.labels == ("cat", "dog")
    assert proposal.preprocessing is not None
    expected = _by_hand(_SIDE, Image.Resampling.BILINEAR, 0, 1)
    got = preprocess(_PIXELS, proposal.preprocessing, _INPUT)[0]
    np.testing.assert_array_equal(got, expected)
    assert all("Ultralytics" in source for source in proposal.sources)


@pytest.mark.parametrize(
    ("nominal", "low", "high"),
    [
        ("NominalRange_0_255", 0, 255),
        ("NominalRange_16_235", 16, 235),
        ("Normalized_0_1", 0, 1),
        ("Normalized_1_1", -1, 1),
    ],
)
@pytest.mark.parametrize("pixels", ["Rgb8", "Bgr8"])
def test_onnx_own_metadata(nominal: str, low: float, high: float, pixels: str) -> None:
    """Black and white become the ends of the range; the order of the channels is as said."""
    metadata = {"Image.NominalPixelRange": nominal, "Image.BitmapPixelFormat": pixels}
    proposal = propose(metadata, [], _INPUT, 2)
    assert proposal is not None
    record = proposal.preprocessing
    assert record is not None
    assert record.channel_order == pixels[:3].upper()
    values = record.values()[0]
    assert [values[0], values[255]] == pytest.approx([low, high])


def test_one_channel_is_proposed_as_one() -> None:
    """A model of grey images gets the record of one, whoever describes it."""
    grey = TensorSignature("x", "FP32", (None, 1, _SIDE, _SIDE))
    config = {**_NUMBERS, "image_mean": [0.5], "image_std": [0.5], "size": _SIDE}
    record = _record(config, wanted=grey)
    assert record.channel_order == "GRAY"
    assert preprocess(_PIXELS, record, grey).shape == (1, 1, _SIDE, _SIDE)


@pytest.mark.parametrize(
    "config",
    [
        {**_NUMBERS, "do_resize": True, "size": {"shortest_edge": _SIDE}},
        {**_NUMBERS, "do_resize": True, "size": {"longest_edge": _SIDE}},
        {**_NUMBERS, "do_resize": True, "size": {"height": 48, "width": 48}},
        {
            **_NUMBERS,
            "do_resize": True,
            "size": {"height": 48, "width": 48},
            "do_center_crop": True,
            "crop_size": _SIDE,
        },
        {**_NUMBERS, "size": _SIDE, "resample": 17},
        {**_NUMBERS, "size": _SIDE, "image_mean": [1, 2, 3, 4]},
        {**_NUMBERS, "size": _SIDE, "image_std": [0, 0, 0]},
        {**_NUMBERS, "size": _SIDE, "rescale_factor": float("nan")},
        {**_NUMBERS, "size": 10**400},
        {"input_size": [3, _SIDE, _SIDE], "mean": _MEAN, "std": _STD, "crop_pct": 1e-320},
        {"input_size": [3, _SIDE, _SIDE], "mean": _MEAN, "std": _STD, "crop_mode": ["center"]},
        {"input_size": [3, _SIDE, 48], "mean": _MEAN, "std": _STD},
        {"input_size": {}, "mean": _MEAN, "std": _STD},
        {"pretrained_cfg": 7},
        {"id2label": {"0": "a", "2": "b"}},
        {"id2label": {"0": "a", "1": ""}},
        {"id2label": {"0": "a", "1": "\ud800"}},
        {"id2label": {"0": "a"}},
        {"id2label": 5},
        ["id2label"],
    ],
    ids=str,
)
def test_what_cannot_be_said_exactly_is_not_proposed(config: Any) -> None:
    """What fits no record, or not the model, or is damaged: nothing, and no error."""
    assert _proposed(config) is None


@pytest.mark.parametrize(
    "names",
    [
        "__import__('os').getcwd()",
        "{0: 'a', 1: open('/etc/passwd').read()}",
        "{0: 'a'",
        "[" * 5000,
        "{" * 100_000,
        "9" * 10_000,
    ],
    ids=lambda names: names[:20],
)
def test_metadata_are_read_and_never_evaluated(names: str) -> None:
    """Names that are no literal are no names; the rest of the metadata counts."""
    proposal = _proposed(metadata={**_ULTRALYTICS, "names": names})
    assert proposal is not None
    assert proposal.labels is None
    assert proposal.preprocessing is not None


def test_a_detector_proposes_no_record() -> None:
    """Another task of Ultralytics is none of a classifier's."""
    proposal = _proposed(metadata={**_ULTRALYTICS, "task": "detect"})
    assert proposal is not None
    assert proposal.preprocessing is None


def test_class_names_come_from_either() -> None:
    """`id2label` of Transformers, `label_names` of timm with their descriptions."""
    transformers = _proposed({"id2label": {"1": "dog", "0": "cat"}})
    timm = _proposed(
        {"label_names": ["n1", "n2"], "label_descriptions": {"n1": "cat", "n2": "dog"}}
    )
    assert transformers is not None
    assert timm is not None
    assert transformers.labels == timm.labels == ("cat", "dog")


def test_a_file_beside_counts_before_the_file_itself() -> None:
    """What lies beside the model was put there last."""
    record = _record({**_NUMBERS, "size": _SIDE}, metadata=_ULTRALYTICS)
    assert record.mean == tuple(_MEAN)


def test_a_free_input_takes_the_size_that_is_said() -> None:
    """The size of a record need not be the input's where that is free."""
    assert _record({**_NUMBERS, "size": 48}, wanted=_ANY).size == (48, 48)


@pytest.mark.parametrize(
    ("requested", "taken"),
    [
        ("proposed", True),
        (' {"preset": "proposed"} ', True),
        ('{"preset": "proposed", "size": [1, 1]}', False),
        ("unit", False),
        ("", False),
        (None, False),
        ("{", False),
    ],
)
def test_a_proposal_is_taken_by_name(requested: str | None, taken: bool) -> None:
    """By the word, or in a record's place; whatever else is said is a record."""
    assert takes_proposal(requested) is taken
