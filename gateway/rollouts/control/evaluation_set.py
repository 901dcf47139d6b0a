"""
An evaluation set: a zip of images and a labels.csv with one line `file,category` for each.

Nothing is unpacked to the disk: names in the zip are only compared with names in labels.csv.
"""

import csv
import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import EvaluationSetInvalid

LABELS = "labels.csv"
_MAX_IMAGES = 200_000
_MAX_LABELS_BYTES = 32 << 20
_MAX_IMAGE_BYTES = 64 << 20
_LARGEST_CATEGORY = 1_000_000


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Names of images and their true classes, in the order of labels.csv."""

    files: tuple[str, ...]
    labels: tuple[int, ...]

    @property
    def classes(self) -> int:
        """One more than the largest class."""
        return max(self.labels) + 1


def read_set(path: Path) -> EvaluationSet:
    """
    Read what is in a zip.

    Raises:
        EvaluationSetInvalid: It is no zip, or labels.csv and the images do not fit together.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, csv.Error) as error:
        raise EvaluationSetInvalid(f"The set cannot be read: {error}") from error


def images(path: Path, found: EvaluationSet) -> Iterator[bytes]:
    """Read the images one after the other, in the order of the set."""
    with zipfile.ZipFile(path) as archive:
        for name in found.files:
            yield archive.read(name)


def _read(archive: zipfile.ZipFile) -> EvaluationSet:
    entries = {info.filename: info for info in archive.infolist()}
    if LABELS not in entries:
        raise EvaluationSetInvalid(f"The zip has no {LABELS} at its top.")
    if entries[LABELS].file_size > _MAX_LABELS_BYTES:
        raise EvaluationSetInvalid(f"{LABELS} is too large.")
    files, labels = [], []
    text = archive.read(LABELS).decode("utf-8-sig")
    for number, row in enumerate(csv.reader(io.StringIO(text)), start=1):
        if not row or (number == 1 and len(row) == 2 and not row[1].strip().isdecimal()):
            continue  # an empty line, or a heading
        if len(row) != 2 or not (category := row[1].strip()).isdecimal():
            raise EvaluationSetInvalid(f"Line {number} of {LABELS} is not `file,category`.")
        if (entry := entries.get(row[0].strip())) is None:
            raise EvaluationSetInvalid(f"Line {number} of {LABELS}: {row[0]} is not in the zip.")
        if entry.file_size > _MAX_IMAGE_BYTES or int(category) > _LARGEST_CATEGORY:
            raise EvaluationSetInvalid(f"Line {number} of {LABELS} is out of bounds.")
        files.append(entry.filename)
        labels.append(int(category))
    if not files or len(files) > _MAX_IMAGES or len(set(files)) < len(files):
        raise EvaluationSetInvalid(f"{LABELS} names no image, too many, or one twice.")
    return EvaluationSet(tuple(files), tuple(labels))


def store_file(path: Path, content: bytes) -> EvaluationSet:
    """Check a zip and put it in its place, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        found = read_set(part)
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
    return found
