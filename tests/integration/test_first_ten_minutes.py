"""
The paths that newcomers take, typed: each ends with the scores that onnxruntime gives for the
preprocessing that the model's documentation names.
"""

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner

from gateway.cli import app
from testbed.gateway_process import GatewayProcess, running_gateway
from tests.eventually import eventually
from tests.hostile_models import graph_model

Array = npt.NDArray[Any]

_SIDE, _CLASSES = 32, 5
# The folder is looked at twice a second; a loaded machine takes its time to load.
_SEEN_S = 60.0
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "size": {"height": _SIDE, "width": _SIDE},
    "resample": 3,
}
_NAMES = {number: f"class {number}" for number in range(_CLASSES)}
_TIMM = {
    "architecture": "tiny",
    "label_names": list(_NAMES.values()),
    "pretrained_cfg": {
        "input_size": [3, _SIDE, _SIDE],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "mean": _MEAN,
        "std": _STD,
    },
}
_ULTRALYTICS = {
    "task": "classify",
    "stride": "1",
    "imgsz": f"[{_SIDE}, {_SIDE}]",
    "names": str(_NAMES),
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("newcomer")
    (folder / "models").mkdir()
    environment = {"MODELS_DIR": str(folder / "models")}
    with running_gateway(folder, environment=environment) as process:
        yield process


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    pixels = np.random.default_rng(5).integers(0, 256, (9, 13, 3)).astype(np.uint8)
    Image.fromarray(pixels).resize((130, 90), Image.Resampling.BICUBIC).save(path)
    return path


def _torch_like(
    path: Path,
    *,
    seed: int,
    channels: int = 3,
    metadata: Mapping[str, str] | None = None,
    beside: bool = False,
) -> None:
    """Write what an export of torch looks like: channels first, floats; each pixel counts."""
    rows = channels * _SIDE * _SIDE
    matrix = np.random.default_rng(seed).normal(size=(rows, _CLASSES)).astype(np.float32)
    image = helper.make_tensor_value_info(
        "image", TensorProto.FLOAT, ["batch", channels, _SIDE, _SIDE]
    )
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", _CLASSES])
    model = graph_model(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("MatMul", ["flat", "matrix"], ["scores"]),
        ],
        inputs=[image],
        outputs=[scores],
        weights=[numpy_helper.from_array(matrix, "matrix")],
    )
    helper.set_model_props(model, dict(metadata or {}))
    onnx.save(
        model,
        path,
        save_as_external_data=beside,
        location=f"{path.name}.data",
        size_threshold=0,
    )


def _typed(gateway: GatewayProcess, *arguments: object) -> str:
    environment = {"GATEWAY_URL": gateway.url, "COLUMNS": "120"}
    done = CliRunner().invoke(app, [str(each) for each in arguments], env=environment)
    assert done.exit_code == 0, done.output
    return done.output


def _posted(gateway: GatewayProcess, name: str, photo: Path) -> httpx.Response:
    headers = {"Content-Type": "image/png"}
    return gateway.client.post(f"/api/v1/run/{name}", content=photo.read_bytes(), headers=headers)


def _expected(
    model: Path,
    photo: Path,
    *,
    shorter_side: int | None = None,
    resample: Image.Resampling = Image.Resampling.BILINEAR,
    mean: Any = 0.0,
    std: Any = 1.0,
    grey: bool = False,
) -> Array:
    """Score a photograph as the documentation says: resized, cropped, normalised by hand."""
    with Image.open(photo) as opened:
        image = opened.convert("L" if grey else "RGB")
    if shorter_side is None:
        image = image.resize((_SIDE, _SIDE), resample)
    else:
        wide = int(shorter_side * image.width / image.height)
        image = image.resize((wide, shorter_side), resample)
        left, top = round((image.width - _SIDE) / 2), round((image.height - _SIDE) / 2)
        image = image.crop((left, top, left + _SIDE, top + _SIDE))
    values = (np.asarray(image, np.float64).reshape(_SIDE, _SIDE, -1) / 255 - mean) / std
    planes = values.transpose(2, 0, 1)[np.newaxis].astype(np.float32)
    scores: Array = onnxruntime.InferenceSession(model).run(None, {"image": planes})[0][0]
    return scores


def _answers(
    gateway: GatewayProcess, name: str, photo: Path, expected: Array, *, labels: bool = False
) -> None:
    """`gateway run` gives the right category first, with its score and, if named, its name."""
    best = json.loads(_typed(gateway, "run", name, photo, "--json"))
    assert best["category"] == f"{int(expected.argmax()):02d}"
    first = best["scores"][0]
    assert first["score"] == pytest.approx(float(expected.max()), rel=1e-4)
    assert first["label"] == (_NAMES[int(expected.argmax())] if labels else None)


async def test_a_folder_of_torch_models_with_the_cure_that_is_advised(
    gateway: GatewayProcess, photo: Path
) -> None:
    """Loaded, asked, refused with a cure; the cure followed to the letter, it answers rightly."""
    folder = gateway.folder / "models"
    _torch_like(folder / "cnn.onnx", seed=1, beside=True)
    await eventually(lambda: "cnn" in gateway.client.get("/api/v1/list").text, within_s=_SEEN_S)
    assert gateway.client.post("/api/v1/load?name=cnn").status_code == 200
    refused = _posted(gateway, "cnn", photo)
    assert refused.json()["code"] == "preprocessing_required"
    assert "NAME.json" in refused.json()["detail"]
    (folder / "cnn.json").write_text('{"preset": "unit"}')
    await eventually(lambda: _posted(gateway, "cnn", photo).status_code == 200, within_s=_SEEN_S)
    _answers(gateway, "cnn", photo, _expected(folder / "cnn.onnx", photo))


async def test_a_folder_takes_what_a_file_proposes(gateway: GatewayProcess, photo: Path) -> None:
    """`{"preset": "proposed"}` beside an export of Ultralytics: its record and its names."""
    folder = gateway.folder / "models"
    (folder / "yolo-cls.json").write_text('{"preset": "proposed"}')
    _torch_like(folder / "yolo-cls.onnx", seed=2, metadata=_ULTRALYTICS)
    await eventually(
        lambda: "yolo-cls" in gateway.client.get("/api/v1/list").text, within_s=_SEEN_S
    )
    assert gateway.client.post("/api/v1/load?name=yolo-cls").status_code == 200
    expected = _expected(folder / "yolo-cls.onnx", photo, shorter_side=_SIDE)
    _answers(gateway, "yolo-cls", photo, expected, labels=True)


def test_a_record_that_comes_later_leads_to_an_answer(
    gateway: GatewayProcess, photo: Path, tmp_path: Path
) -> None:
    """Registered without a record: told at once. Again with one: it is champion, and answers."""
    model = tmp_path / "model.onnx"
    _torch_like(model, seed=3)
    said = _typed(gateway, "register", model, "--name", "later", "--load")
    assert "cannot answer an image" in said
    _typed(gateway, "register", model, "--name", "later", "--preprocessing", "imagenet", "--load")
    expected = _expected(model, photo, shorter_side=37, mean=_MEAN, std=_STD)
    _answers(gateway, "later", photo, expected)


@pytest.mark.parametrize(
    ("name", "beside", "metadata", "documented", "labels"),
    [
        (
            "transformers",
            {"preprocessor_config.json": _PROCESSOR, "config.json": {"id2label": _NAMES}},
            {},
            {"resample": Image.Resampling.BICUBIC, "mean": 0.5, "std": 0.5},
            True,
        ),
        (
            "timm",
            {"config.json": _TIMM},
            {},
            {
                "shorter_side": 35,
                "resample": Image.Resampling.BICUBIC,
                "mean": _MEAN,
                "std": _STD,
            },
            True,
        ),
        ("ultralytics", {}, _ULTRALYTICS, {"shorter_side": _SIDE}, True),
        (
            "windows-ml",
            {},
            {"Image.NominalPixelRange": "Normalized_1_1", "Image.BitmapPixelFormat": "Rgb8"},
            {"mean": 0.5, "std": 0.5},
            False,
        ),
    ],
)
def test_what_is_proposed_is_shown_and_taken_when_accepted(
    gateway: GatewayProcess,
    photo: Path,
    tmp_path: Path,
    name: str,
    beside: dict[str, Any],
    metadata: dict[str, str],
    documented: dict[str, Any],
    labels: bool,
) -> None:
    """Nothing is taken silently; `--accept` takes it, and the scores are the documented ones."""
    model = tmp_path / "model.onnx"
    _torch_like(model, seed=4, metadata=metadata, beside=True)
    for file, content in beside.items():
        (tmp_path / file).write_text(json.dumps(content))
    said = _typed(gateway, "register", model, "--name", name)
    assert "--accept" in said
    told = json.loads(_typed(gateway, "versions", name, "--json"))
    assert [version["labels"] for version in told] == [None]
    said = _typed(gateway, "register", model, "--name", name, "--accept", "--load")
    assert "Taken as proposed" in said
    again = json.loads(_typed(gateway, "register", model, "--name", name, "--accept", "--json"))
    assert again["message"] == "Model already registered"
    _answers(gateway, name, photo, _expected(model, photo, **documented), labels=labels)


def test_grey_images(gateway: GatewayProcess, photo: Path, tmp_path: Path) -> None:
    """One channel, as of MNIST: the preset sees it."""
    model = tmp_path / "model.onnx"
    _torch_like(model, seed=6, channels=1)
    _typed(gateway, "register", model, "--name", "grey", "--preprocessing", "unit", "--load")
    _answers(gateway, "grey", photo, _expected(model, photo, grey=True))


def test_scores_that_are_not_the_first_output(
    gateway: GatewayProcess, photo: Path, tmp_path: Path
) -> None:
    """The warning names the output and what to type; typed, the category is that of the scores."""
    plain, model = tmp_path / "plain.onnx", tmp_path / "model.onnx"
    _torch_like(plain, seed=10)
    graph = onnx.load(plain)
    graph.graph.node.append(helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1))
    graph.graph.output.append(
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", _CLASSES])
    )
    # Boxes and the like come first in exports of detectors.
    graph.graph.node.append(helper.make_node("Neg", ["scores"], ["boxes"]))
    graph.graph.output[0].name = "boxes"
    onnx.save(graph, model)
    arguments = ["register", model, "--name", "second", "--preprocessing", "unit", "--load"]
    said = " ".join(_typed(gateway, *arguments).split())
    assert "--output probabilities" in said
    _typed(gateway, *arguments, "--output", "probabilities")
    _typed(gateway, "alias", "second", "champion", "2")
    scores = np.exp(expected := _expected(plain, photo))
    assert np.isfinite(expected).all()
    _answers(gateway, "second", photo, scores / scores.sum())


def test_the_four_commands_of_the_front_page(
    gateway: GatewayProcess, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Typed as printed, in a folder with the files that they name: right answer, live rollout."""
    text = (Path(__file__).parents[2] / "README.md").read_text()
    block = text.split("<!-- four commands -->")[1].split("```")[1].removeprefix("sh\n")
    commands = [shlex.split(line) for line in block.splitlines()]
    assert [command[0] for command in commands] == ["gateway"] * 4
    monkeypatch.chdir(tmp_path)
    _torch_like(Path("model.onnx"), seed=8, beside=True)
    _torch_like(Path("model-v2.onnx"), seed=9, beside=True)
    Path("labels.txt").write_text("\n".join(_NAMES.values()))
    with Image.open(photo) as image:
        image.save("photo.jpg", quality=95)
    for command in commands:
        _typed(gateway, *command[1:])
    expected = _expected(
        Path("model.onnx"), Path("photo.jpg"), shorter_side=37, mean=_MEAN, std=_STD
    )
    _answers(gateway, "flowers", Path("photo.jpg"), expected, labels=True)
    (rollout,) = gateway.client.get("/api/v1/models/flowers/rollouts").json()
    assert (rollout["champion"], rollout["challenger"]) == (1, 2)


def test_nothing_is_proposed_where_nothing_is_said(gateway: GatewayProcess, tmp_path: Path) -> None:
    """`--accept` without a proposal is refused, with what to say instead."""
    model = tmp_path / "model.onnx"
    _torch_like(model, seed=7)
    arguments = ["register", str(model), "--name", "nothing", "--accept"]
    done = CliRunner().invoke(app, arguments, env={"GATEWAY_URL": gateway.url})
    assert done.exit_code == 1
    assert "preprocessing_invalid" in done.output
    assert "preprocessing=unit, imagenet" in done.output
