"""The images that calibrate and judge: an evaluation set's, or a zip that the caller sends."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

from gateway.converter.digests import digest_file
from gateway.errors import EvaluationSetInvalid
from gateway.rollouts.control.evaluation_set import LABELS, read_set
from gateway.system.full_disk import storage_full

_MOST_FILES = 200_000


@dataclass(frozen=True, slots=True)
class ImageZip:
    """A zip of images, by name; `labels` are their true classes where they are known."""

    path: Path
    digest: str
    files: tuple[str, ...]
    labels: tuple[int, ...] | None


def store_images(path: Path, content: bytes) -> ImageZip:
    """
    Put a zip into a folder, and list its images; with a labels.csv, those that it names.

    Raises:
        EvaluationSetInvalid: It is no zip, or its labels.csv does not fit.
        StorageFull: There is no space for it.
    """
    with storage_full():
        path.write_bytes(content)
    digest, _ = digest_and_size(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise EvaluationSetInvalid(f"The images are no zip: {error}") from error
    if LABELS in names:
        found = read_set(path)
        return ImageZip(path, digest, found.files, found.labels)
    if len(names) > _MOST_FILES:
        raise EvaluationSetInvalid(f"The zip holds more than {_MOST_FILES:,} files.")
    return ImageZip(path, digest, tuple(names), None)


def digest_and_size(path: Path) -> tuple[str, int]:
    """Give a file's digest, "sha256:…", and its size in bytes."""
    with path.open("rb") as file:
        return digest_file(file), path.stat().st_size
