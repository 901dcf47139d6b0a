"""
What lies in a model repository and is not served, with the reason: nothing is passed over in
silence. Nothing is read but names and configurations.

Source: Triton, Model Repository (layout of each backend).
"""

from collections.abc import Iterator
from pathlib import Path

from gateway.converter import model_config
from gateway.converter.errors import VersionInvalid
from gateway.converter.layout import CONFIG_FILE, MODEL_FILE, triton_models
from gateway.converter.names import parse_version
from gateway.converter.published import read_config

_OTHERS = {
    "model.plan": "TensorRT",
    "model.pt": "PyTorch",
    "model.graphdef": "TensorFlow",
    "model.savedmodel": "TensorFlow",
    "model.py": "Python",
    "model.xml": "OpenVINO",
}
_OURS = frozenset({"", "onnxruntime", "onnxruntime_onnx"})


def overlooked_files(repository: Path) -> list[str]:
    """List the models that lie flat in a repository, where Triton finds none."""
    if not repository.is_dir():
        return []
    return sorted(
        f"{entry.name} is a file; a model is a directory: {entry.stem}/1/{MODEL_FILE}."
        for entry in repository.iterdir()
        if entry.suffix == ".onnx" and entry.is_file()
    )


def overlooked_in(repository: Path, name: str) -> list[str]:
    """
    Say what in a model's directories is not served, and why; a sentence each.

    Raises:
        ConfigInvalid, PathEscapes: As `read_config`.
    """
    found: list[str] = []
    for triton_model in triton_models(repository, name):
        directory = repository / triton_model
        if directory.is_dir():
            found += _in_directory(directory)
    return found


def _in_directory(directory: Path) -> Iterator[str]:
    written = read_config(directory)
    config = model_config.parse(written or "")
    backend = config.backend or config.platform
    if backend not in _OURS:
        yield f"{directory.name}/{CONFIG_FILE} names the backend {backend}: only ONNX is served."
        return
    filename = config.default_model_filename or MODEL_FILE
    versions = 0
    for entry in sorted(directory.iterdir()):
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        place = f"{directory.name}/{entry.name}"
        try:
            parse_version(entry.name)
        except VersionInvalid:
            if (entry / filename).exists() or (entry / MODEL_FILE).exists():
                yield f"{place} is no version: Triton takes numbers without leading zeros."
            continue
        versions += 1
        if not (entry / MODEL_FILE).is_file():
            yield f"{place} {_without_model(entry, filename)}"
    if not versions:
        yield f"{directory.name} holds no version: it wants {directory.name}/1/{MODEL_FILE}."


def _without_model(version: Path, filename: str) -> str:
    if filename != MODEL_FILE and (version / filename).exists():
        return f"names its model {filename} (default_model_filename): rename it to {MODEL_FILE}."
    for other, framework in _OTHERS.items():
        if (version / other).exists():
            return f"holds {other}, a model of {framework}: only ONNX is served."
    return f"holds no {MODEL_FILE}."
