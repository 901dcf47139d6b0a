"""
What lies where in a model repository.

    NAME/config.pbtxt            for people and a tritonserver of their own; serves the newest
    NAME/VERSION/model.onnx      immutable, as is the number
    NAME/VERSION/labels.txt      class names, if there are any
    NAME.signature-2/VERSION/…   versions of NAME that take or answer something else

All versions of a Triton model share one configuration, so they must have the same inputs and
outputs. What callers name NAME may change those: one class more, another size. So the versions of
each signature lie in a Triton model of their own. The first is called NAME, as a Triton user
expects; nobody else may use the names of the others. No two versions of NAME share a number,
wherever they lie.

Source: Triton, Model Repository; Triton, Model Configuration.
"""

import os
from pathlib import Path

from gateway.converter.errors import ConverterError, VersionInvalid
from gateway.converter.names import (
    check_model_name,
    check_version,
    parse_triton_model,
    parse_version,
    triton_model_name,
)
from gateway.converter.onnx_signature import read_signature
from gateway.converter.repository_writer import refuse_escape
from gateway.converter.signature import ModelSignature

MODEL_FILE = "model.onnx"
CONFIG_FILE = "config.pbtxt"


def triton_models(repository: Path, name: str) -> list[str]:
    """List the Triton models in the repository that hold versions of a model, in order."""
    check_model_name(name)
    if not repository.is_dir():
        return []
    found = (parse_triton_model(entry.name) for entry in repository.iterdir())
    return [triton_model_name(name, n) for n in sorted(n for served, n in found if served == name)]


def published_versions(repository: Path, name: str) -> list[int]:
    """List the versions of a model that lie in the repository, in order."""
    found = (versions_in(repository / each) for each in triton_models(repository, name))
    return sorted({version for versions in found for version in versions})


def versions_in(directory: Path) -> list[int]:
    """List the versions in the directory of a Triton model, in order."""
    return [number for number in _taken_numbers(directory) if (directory / str(number)).is_dir()]


def next_version(repository: Path, name: str) -> int:
    """
    Tell the number after the highest that lies in the repository. A file or a dangling link in a
    version's place takes its number too.

    Raises:
        VersionInvalid: There is none after it.
    """
    directories = triton_models(repository, name)
    taken = [number for each in directories for number in _taken_numbers(repository / each)]
    return check_version(max(taken, default=0) + 1)


def version_directory(repository: Path, name: str, version: int) -> Path:
    """Find the directory of a version; where there is none, the one that it would have in NAME."""
    places = [repository / each / str(version) for each in triton_models(repository, name)]
    fallback = repository / check_model_name(name) / str(check_version(version))
    return next((place for place in places if os.path.lexists(place)), fallback)


def choose_triton_model(repository: Path, name: str, signature: ModelSignature) -> str:
    """
    Choose the Triton model in which a new version belongs: one whose versions have the same inputs
    and outputs, else a new one.
    """
    present = triton_models(repository, name)
    for each in present:
        found = directory_signature(repository, each)
        if found is None or signature.same_tensors(found):
            return each
    taken = {parse_triton_model(each)[1] for each in present}
    ordinal = next(n for n in range(1, len(taken) + 2) if n not in taken)
    return triton_model_name(name, ordinal)


def directory_signature(repository: Path, triton_model: str) -> ModelSignature | None:
    """
    Read what the versions of a Triton model take and answer, by the newest that can be read; None
    if there is none.
    """
    for version in reversed(versions_in(repository / triton_model)):
        path = repository / triton_model / str(version) / MODEL_FILE
        if path.is_file():
            try:
                refuse_escape(path, repository)
                return read_signature(path)
            except ConverterError:
                continue  # whoever put it there is told when it is adopted
    return None


def _taken_numbers(directory: Path) -> list[int]:
    """List the numbers that something in a Triton model's directory has, in order."""
    found = []
    for entry in directory.iterdir() if directory.is_dir() else ():
        try:
            found.append(parse_version(entry.name))
        except VersionInvalid:
            continue  # Triton overlooks it too
    return sorted(found)
