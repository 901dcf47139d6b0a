"""
An evaluation set: a zip of images and a labels.csv with one line `file,category` for each.

Nothing is unpacked to the disk: names in the zip are only compared with names in labels.csv. All of
it is read once, when the set is given, so that what is encrypted, damaged or out of bounds is
refused with the line that names it, and not found out later.
"""

import csv
import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import EvaluationSetInvalid
from gateway.system.full_disk import storage_full

LABELS = "labels.csv"
_MAX_IMAGES = 200_000
_MAX_LABELS_BYTES = 32 << 20
_MAX_IMAGE_BYTES = 64 << 20
_MAX_UNPACKED_BYTES = 16 << 30
_CHUNK_BYTES = 1 << 20
_ENCRYPTED = 1
MOST_CLASSES = 1_000_000
"""The bound of categories for a model that does not say how many classes it has."""
_MAX_DIGITS = len(str(MOST_CLASSES))

# What zipfile raises for a damaged archive, an unknown compression, a password.
_UNREADABLE = (
    *(zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error),
    *(UnicodeDecodeError, csv.Error, ValueError),
)


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
    Read what a zip lists, which was checked when it was stored.

    Raises:
        EvaluationSetInvalid: It is no zip, or labels.csv and the images do not fit together.
    """
    return _read(path, classes=MOST_CLASSES, whole=False)


def images(path: Path, found: EvaluationSet) -> Iterator[bytes]:
    """
    Read the images one after the other, in the order of the set.

    Raises:
        EvaluationSetInvalid: The stored zip was damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for name in found.files:
                yield archive.read(name)
    except _UNREADABLE as error:
        raise EvaluationSetInvalid(f"The set cannot be read: {error}") from error


def store_file(folder: Path, content: bytes, *, classes: int) -> tuple[str, EvaluationSet]:
    """
    Check a zip and put it into the folder of sets, whole or not at all.

    Args:
        folder: Where sets lie.
        content: The zip.
        classes: Categories lie below this.

    Returns:
        Its digest, "sha256:…", and what it lists.

    Raises:
        EvaluationSetInvalid: It is no such set; the text names file and line.
        StorageFull: There is no space for it.
    """
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    path = path_of(folder, digest)
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        with storage_full():
            folder.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        found = _read(part, classes=classes, whole=True)
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
    return digest, found


def path_of(folder: Path, digest: str) -> Path:
    """Tell where the set of a digest lies."""
    return folder / f"{digest.removeprefix('sha256:')}.zip"


def _read(path: Path, *, classes: int, whole: bool) -> EvaluationSet:
    try:
        with zipfile.ZipFile(path) as archive:
            found, lines = _read_labels(archive, classes)
            if whole:
                _read_images(archive, found, lines)
            return found
    except _UNREADABLE as error:
        raise EvaluationSetInvalid(f"The set cannot be read: {error}") from error


def _read_labels(archive: zipfile.ZipFile, classes: int) -> tuple[EvaluationSet, list[int]]:
    """Read labels.csv; return the set, and the line of each image."""
    entries = {info.filename: info for info in archive.infolist()}
    if LABELS not in entries:
        raise EvaluationSetInvalid(f"The zip has no {LABELS} at its top.")
    if entries[LABELS].flag_bits & _ENCRYPTED:
        raise EvaluationSetInvalid(f"{LABELS} is encrypted: send a zip without a password.")
    if entries[LABELS].file_size > _MAX_LABELS_BYTES:
        raise EvaluationSetInvalid(f"{LABELS} is larger than {_MAX_LABELS_BYTES >> 20} MiB.")
    found: dict[str, tuple[int, int]] = {}
    text = archive.read(LABELS).decode("utf-8-sig")
    for line, row in enumerate(csv.reader(io.StringIO(text)), start=1):
        if not row or (line == 1 and len(row) == 2 and not row[1].strip().isdecimal()):
            continue  # an empty line, or a heading
        name, category = _read_row(row, line, classes)
        if name in found:
            raise _wrong(line, f"{name[:200]} stands in line {found[name][1]} already")
        _check_entry(entries.get(name), name, line)
        if len(found) == _MAX_IMAGES:
            raise _wrong(line, f"more than {_MAX_IMAGES:,} images")
        found[name] = category, line
    if not found:
        raise EvaluationSetInvalid(f"{LABELS} names no image.")
    if sum(entries[name].file_size for name in found) > _MAX_UNPACKED_BYTES:
        raise EvaluationSetInvalid(f"The images are larger than {_MAX_UNPACKED_BYTES >> 30} GiB.")
    labels = tuple(category for category, _ in found.values())
    return EvaluationSet(tuple(found), labels), [line for _, line in found.values()]


def _read_row(row: list[str], line: int, classes: int) -> tuple[str, int]:
    if len(row) != 2 or not (category := row[1].strip()).isdecimal():
        raise _wrong(line, "not `file,category`")
    name = row[0].strip()
    if len(category) > _MAX_DIGITS or int(category) >= classes:
        raise _wrong(
            line,
            f"category {category[:20]} of {name[:200]} is no class: they are 0 to {classes - 1}",
        )
    return name, int(category)


def _check_entry(entry: zipfile.ZipInfo | None, name: str, line: int) -> None:
    if entry is None:
        raise _wrong(line, f"{name[:200]} is not in the zip")
    if entry.flag_bits & _ENCRYPTED:
        raise _wrong(line, f"{name[:200]} is encrypted: send a zip without a password")
    if entry.file_size > _MAX_IMAGE_BYTES:
        raise _wrong(line, f"{name[:200]} is larger than {_MAX_IMAGE_BYTES >> 20} MiB")


def _read_images(archive: zipfile.ZipFile, found: EvaluationSet, lines: list[int]) -> None:
    """Read every image to its end: only then its check sum is compared."""
    for name, line in zip(found.files, lines, strict=True):
        try:
            with archive.open(name) as image:
                while image.read(_CHUNK_BYTES):
                    pass
        except _UNREADABLE as error:
            raise _wrong(line, f"{name[:200]} cannot be unpacked: {error}") from error


def _wrong(line: int, what: str) -> EvaluationSetInvalid:
    return EvaluationSetInvalid(f"{LABELS}, line {line}: {what}.")
