"""
Publish one version: the one entry for the gateway and the command line.

    read the signature → stage a copy → generate config.pbtxt → rename the version into place

A version is immutable: its number is never used again and its directory never written to. The
config on disk names the newest version, for a bare tritonserver and for people; a gateway tells
Triton at each load which versions it wants.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tools import model_config
from tools.errors import ModelInvalid, SignatureUnsupported, VersionExists
from tools.model_config import ConfigOptions
from tools.names import check_model_name, check_version
from tools.onnx_signature import ModelSignature, read_signature
from tools.repository_writer import (
    CONFIG_FILE,
    MODEL_FILE,
    copy_synced,
    publish_directory,
    replace_text,
    staging_folder,
)

LABELS_FILE = "labels.txt"


@dataclass(frozen=True, slots=True)
class PublishedVersion:
    """
    A version as it lies in the repository.

    Attributes:
        digest, size_bytes: Of the published file; digests read "sha256:…".
        source_digest: Of the file that was given.
        config_text: The config that the version is to be loaded with.
        changes: What the converter changed in the graph; empty if the two files are the same.
    """

    name: str
    version: int
    digest: str
    source_digest: str
    size_bytes: int
    signature: ModelSignature
    config_text: str
    changes: tuple[str, ...] = ()


def publish_version(
    source: Path,
    *,
    repository: Path,
    name: str,
    version: int,
    options: ConfigOptions,
    labels: Sequence[str] | None = None,
) -> PublishedVersion:
    """
    Publish a model file as a version.

    Args:
        source: The model file.
        repository: The model repository.
        name, version: Under which to publish.
        options: How to serve it.
        labels: One class name for each score.

    Raises:
        NameInvalid, VersionInvalid: The name or the number is not allowed.
        ModelInvalid, ExternalDataForbidden, SignatureUnsupported: The model is refused.
        VersionExists: The version is published already.
        StorageFull: The disk is full; nothing was changed.
    """
    check_model_name(name)
    check_version(version)
    directory = repository / name
    if (directory / str(version)).exists():
        raise VersionExists(f"Version {version} of {name} is published already.")
    signature = read_signature(source)
    if not signature.inputs or not signature.outputs:
        raise SignatureUnsupported(f"The model takes or answers nothing. {signature}")
    if labels is not None:
        _check_labels(labels, signature)
        options = replace(options, label_filename=LABELS_FILE)
    with staging_folder(repository) as staging:
        staged = staging / str(version)
        staged.mkdir()
        digest, size_bytes = copy_synced(source, staged / MODEL_FILE)
        config = _config(directory, name, version, signature, options)
        publish_directory(staged, directory / str(version))
        # After the version: a config that names a version which is not there cannot be loaded.
        if labels is not None:
            replace_text(staging, directory / LABELS_FILE, "".join(f"{one}\n" for one in labels))
        replace_text(staging, directory / CONFIG_FILE, config)
    return PublishedVersion(name, version, digest, digest, size_bytes, signature, config)


def read_published(repository: Path, name: str, version: int) -> PublishedVersion:
    """
    Describe a version that lies in the repository already, whoever put it there. A config.pbtxt
    that somebody wrote is kept as it is.

    Raises:
        NameInvalid, VersionInvalid: The name or the number is not allowed.
        ModelInvalid, ExternalDataForbidden, SignatureUnsupported: The model cannot be served.
    """
    check_model_name(name)
    check_version(version)
    path = repository / name / str(version) / MODEL_FILE
    signature = read_signature(path)
    with path.open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    written = repository / name / CONFIG_FILE
    if written.is_file():
        text = written.read_text()
        if model_config.parse(text).name not in {"", name}:
            raise ModelInvalid(f"config.pbtxt of {name} is that of another model.")
    else:
        config = model_config.generate_config(
            name, signature, versions=[version], options=ConfigOptions()
        )
        text = model_config.render(config)
    return PublishedVersion(name, version, digest, digest, path.stat().st_size, signature, text)


def published_versions(repository: Path, name: str) -> list[int]:
    """List the versions of a model that lie in the repository, in order."""
    directory = repository / name
    if not directory.is_dir():
        return []
    return sorted(
        int(entry.name)
        for entry in directory.iterdir()
        if entry.name.isdecimal() and not entry.name.startswith("0") and entry.is_dir()
    )


def next_version(repository: Path, name: str) -> int:
    """Tell the number after the highest that lies in the repository."""
    return max(published_versions(repository, name), default=0) + 1


def _config(
    directory: Path, name: str, version: int, signature: ModelSignature, options: ConfigOptions
) -> str:
    """Keep a config whose tensors are the same (somebody may have tuned it), else a new one."""
    config = model_config.generate_config(name, signature, versions=[version], options=options)
    written = directory / CONFIG_FILE
    if written.is_file():
        kept = model_config.parse(written.read_text())
        if list(kept.input) == list(config.input) and list(kept.output) == list(config.output):
            config = model_config.with_versions(kept, [version])
    return model_config.render(config)


def _check_labels(labels: Sequence[str], signature: ModelSignature) -> None:
    if signature.classes is not None and len(labels) != signature.classes:
        raise SignatureUnsupported(
            f"There are {len(labels)} labels for {signature.classes} classes. {signature}"
        )
