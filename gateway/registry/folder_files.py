"""
The files of a folder of models, and what they say.

    NAME.onnx                 the model
    NAME.onnx.data            its weights, if they are not inside
    NAME.json                 its preprocessing record, or {"preset": NAME}
    NAME.txt                  its class names, one a line
"""

import os
from dataclasses import dataclass
from pathlib import Path

from gateway.converter.digests import digest_file
from gateway.converter.merged import data_files, in_one_file
from gateway.errors import LabelsInvalid
from gateway.registry.labels import read_labels

Stamp = tuple[int, ...]
"""What changes when another file, or other content, is behind a path."""

_RECORD, _LABELS = ".json", ".txt"


@dataclass(frozen=True, slots=True)
class FolderModel:
    """What the folder says of a model."""

    path: Path
    digest: str
    preprocessing: str | None
    labels: list[str] | None


def read_folder(folder: Path) -> dict[str, Stamp]:
    """
    Read the names of the models in a folder, each with the stamp of its files.

    Raises:
        OSError: There is no such folder, or it cannot be read.
    """
    with os.scandir(folder) as entries:
        models = [
            Path(entry.path)
            for entry in entries
            if entry.name.endswith(".onnx") and entry.is_file()
        ]
    return {path.stem: _stamp(path) for path in models}


def read_model(path: Path) -> FolderModel:
    """
    Read what the folder says of a model.

    Raises:
        ExternalDataForbidden, ModelInvalid: Its weights cannot be brought in.
        LabelsInvalid: The class names cannot be read.
        OSError: A file went meanwhile.
    """
    with in_one_file(path) as whole:
        digest = digest_file(whole)
    try:
        record, labels = _text(path.with_suffix(_RECORD)), _text(path.with_suffix(_LABELS))
    except UnicodeDecodeError as error:
        raise LabelsInvalid(f"{path.stem}.json or .txt is not UTF-8.") from error
    return FolderModel(path, digest, record, read_labels(labels))


def _stamp(path: Path) -> Stamp:
    described = (path.with_suffix(_RECORD), path.with_suffix(_LABELS))
    stamp: list[int] = []
    for file in (path, *described, *data_files(path)):
        try:
            stat = file.stat()  # of what a link leads to
        except FileNotFoundError:
            stamp.append(0)
        else:
            stamp += [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    return tuple(stamp)


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8-sig") if path.is_file() else None
