"""
What is kept beside a version's model file, so that a repository alone says how to serve it: class
names, and the record of the registration. A database that is lost is made anew from these.

    NAME/VERSION/labels.txt     one class name a line
    NAME/VERSION/gateway.json   preprocessing, digests, what validation found out
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.converter import model_config
from gateway.converter.errors import ConfigInvalid, ConverterError
from gateway.converter.repository_writer import refuse_escape

RECORD_FILE = "gateway.json"
_SHARED_LABELS = "labels.txt"
_MAX_BYTES = 16 << 20


def read_shared_labels(model: Path, config: str | None) -> tuple[str, ...] | None:
    """
    Read the class names of all versions of a model: those that its configuration names, else those
    that lie beside it; None if there are none.

    Args:
        model: The model's directory.
        config: The text of its config.pbtxt.

    Raises:
        ConfigInvalid: The file is not UTF-8, or too large.
        PathEscapes: It is a link out of the repository.
    """
    outputs = [] if config is None else model_config.parse(config).output
    named = [output.label_filename for output in outputs if output.label_filename]
    for name in (*named, _SHARED_LABELS):
        if (text := _read(model / name, model.parent)) is not None:
            # Not splitlines(): a label may hold what Unicode calls a line end.
            return tuple(text.removeprefix("\ufeff").removesuffix("\n").split("\n"))
    return None


def read_record(directory: Path) -> Mapping[str, Any] | None:
    """
    Read the record of a version; None if there is none.

    Raises:
        ConfigInvalid: It is no JSON object.
        PathEscapes: It is a link out of the repository.
    """
    text = _read(directory / RECORD_FILE, directory.parent.parent)
    if text is None:
        return None
    try:
        record = json.loads(text)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise _unreadable(directory / RECORD_FILE, "is no JSON object")
    return record


def write_record(record: Mapping[str, Any]) -> str:
    """Give the text of the file that `read_record` reads."""
    return json.dumps(record, indent=1, sort_keys=True) + "\n"


def _read(path: Path, repository: Path) -> str | None:
    if not path.is_file():
        return None
    refuse_escape(path, repository)
    if path.stat().st_size > _MAX_BYTES:
        raise _unreadable(path, "is too large")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _unreadable(path, "is not UTF-8") from error


def _unreadable(path: Path, what: str) -> ConverterError:
    place = "/".join(path.parts[-3:])
    return ConfigInvalid(f"{place} {what}. Mend it, or remove it.")
