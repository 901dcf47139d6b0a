"""
Measure an ONNX file on the held-out pictures, through onnxruntime as a server would.

    python tools/demo/digits/evaluate.py MODEL.onnx

Each picture goes the way of the raw preprocessing: Pillow, RGB, float32
[1, H, W, 3], 0–255, nothing scaled. A published copy that takes uint8 is given
uint8. Needs only what the product itself needs.
"""

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

EVALUATION = Path(__file__).resolve().parents[3] / "gateway/demo/evaluation"
TENSOR_TYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model said about the held-out pictures, in the order of labels.csv."""

    files: tuple[Path, ...]
    labels: npt.NDArray[np.int64]
    """The true classes, [n]."""
    scores: npt.NDArray[np.float32]
    """[n, 10], each row adds up to 1."""

    @property
    def predictions(self) -> npt.NDArray[np.int64]:
        """The class of the largest score, [n]."""
        return self.scores.argmax(axis=1)

    @property
    def correct(self) -> int:
        """How many predictions equal the label."""
        return int((self.predictions == self.labels).sum())


def open_session(model: Path | bytes) -> onnxruntime.InferenceSession:
    """One thread on the CPU: the demo's models are too small to gain from more."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def read_pixels(path: Path) -> npt.NDArray[np.uint8]:
    """Decode a picture to [1, H, W, 3], RGB, 0–255."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), dtype=np.uint8)[None]


def answer(session: onnxruntime.InferenceSession, folder: Path = EVALUATION) -> Answers:
    """Ask for every picture that folder/labels.csv names, one at a time."""
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    files = tuple(folder / row["file"] for row in rows)
    taken = session.get_inputs()[0]
    dtype = TENSOR_TYPES[taken.type]
    scores = [
        session.run(None, {taken.name: read_pixels(path).astype(dtype)})[0][0] for path in files
    ]
    return Answers(files, np.array([int(row["category"]) for row in rows]), np.stack(scores))


def main() -> None:
    """Print the accuracy of the models named on the command line."""
    if len(sys.argv) < 2:
        sys.exit("usage: python tools/demo/digits/evaluate.py MODEL.onnx ...")
    for argument in sys.argv[1:]:
        answers = answer(open_session(Path(argument)))
        total = len(answers.labels)
        print(f"{argument}: {answers.correct}/{total} = {answers.correct / total:.1%}")


if __name__ == "__main__":
    main()
