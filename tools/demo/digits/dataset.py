"""
Split scikit-learn's digits once and for all, and draw the held-out ones to files.

    python tools/demo/digits/dataset.py     writes evaluation/ and sample-7.png again

1,797 digits become 1,297 to learn from, 200 to choose by, and 300 that are
held out: no network and no choice ever sees those. The held-out pictures lie in the
repository as real files (PNG where small or plain, JPEG where large), so that
measuring a model needs neither scikit-learn nor this module.

Needs scikit-learn, which is no dependency of the product.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from rendering import Style, render_digit
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HERE = Path(__file__).resolve().parent
DEMO = HERE.parents[2] / "gateway/demo"
EVALUATION = DEMO / "evaluation"
SAMPLE = DEMO / "sample-7.png"

SPLIT_SEED = 1797
EVALUATION_SEED = 300
SAMPLE_SEED = 7
PNG_UP_TO_PX = 32
"""Noise does not compress without loss: larger pictures are stored as JPEG."""
JPEG_QUALITY = 75


@dataclass(frozen=True, slots=True)
class Digits:
    """Ink maps [n, 8, 8] (0–16) and their classes [n] (0–9)."""

    maps: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True, slots=True)
class Split:
    """The three parts; each holds the ten classes in the same proportion."""

    training: Digits
    validation: Digits
    held_out: Digits


def load_split() -> Split:
    """The same split on every machine."""
    source = load_digits()
    maps, classes = source.images.astype(np.float32), source.target.astype(np.int64)
    rest, held_out = train_test_split(
        np.arange(len(classes)), test_size=300, stratify=classes, random_state=SPLIT_SEED
    )
    training, validation = train_test_split(
        rest, test_size=200, stratify=classes[rest], random_state=SPLIT_SEED
    )
    return Split(*(Digits(maps[i], classes[i]) for i in (training, validation, held_out)))


def write_evaluation(held_out: Digits, folder: Path) -> None:
    """Draw every held-out digit once, into folder/images, with labels.csv (file,category)."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    for old in images.iterdir():
        old.unlink()
    rng = np.random.default_rng(EVALUATION_SEED)
    with (folder / "labels.csv").open("w", newline="") as file:
        labels = csv.writer(file, lineterminator="\n")
        labels.writerow(["file", "category"])
        for number, (ink_map, category) in enumerate(
            zip(held_out.maps, held_out.classes, strict=True)
        ):
            picture = render_digit(ink_map, Style(), rng)
            path = images / f"{number:03d}{_suffix(picture)}"
            _save(picture, path)
            labels.writerow([f"images/{path.name}", f"{category:02d}"])


def write_sample(held_out: Digits, path: Path) -> None:
    """Draw one held-out 7 without noise and in few colours: small enough for a command line."""
    clean = Style(
        side_px=(24, 24), aspect=1.0, fill=(0.9, 0.9), tilt_deg=0, shear=0, sharpness=(2.5, 2.5),
        contrast=(190, 190), light=0, noise=0,
    )  # fmt: skip
    seven = held_out.maps[np.flatnonzero(held_out.classes == 7)[0]]
    picture = render_digit(seven, clean, np.random.default_rng(SAMPLE_SEED))
    picture.quantize(8, dither=Image.Dither.NONE).convert("RGB").save(path, optimize=True)


def _suffix(picture: Image.Image) -> str:
    return ".png" if max(picture.size) <= PNG_UP_TO_PX else ".jpg"


def _save(picture: Image.Image, path: Path) -> None:
    if path.suffix == ".png":
        picture.save(path, optimize=True)
    else:
        picture.save(path, quality=JPEG_QUALITY, optimize=True)


def main() -> None:
    """Write the evaluation set and the sample again."""
    held_out = load_split().held_out
    write_evaluation(held_out, EVALUATION)
    write_sample(held_out, SAMPLE)
    total = sum(path.stat().st_size for path in EVALUATION.rglob("*") if path.is_file())
    print(f"{len(held_out)} pictures, {total:,} bytes; {SAMPLE.name} {SAMPLE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
