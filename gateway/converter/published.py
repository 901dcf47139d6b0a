"""
Read what lies in a model repository, whoever put it there.

Source: Triton, Model Repository.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from gateway.converter import model_config
from gateway.converter.beside import read_record, read_shared_labels
from gateway.converter.digests import digest_file
from gateway.converter.errors import ConfigInvalid, ConverterError, VersionMissing
from gateway.converter.existing_config import complete, fits, with_labels
from gateway.converter.layout import (
    CONFIG_FILE,
    MODEL_FILE,
    published_versions,
    version_directory,
)
from gateway.converter.model_config import ConfigOptions
from gateway.converter.names import check_model_name, check_version
from gateway.converter.onnx_signature import read_signature
from gateway.converter.plan import LABELS_FILE, plan_version
from gateway.converter.repository_writer import read_errors, refuse_escape
from gateway.converter.signature import ModelSignature, TensorSignature
from gateway.converter.uint8_input import AS_IT_IS


@dataclass(frozen=True, slots=True)
class PublishedVersion:
    """
    A version as it lies in the repository.

    Attributes:
        name, version: Which one.
        digest: "sha256:…" of its model.onnx.
        source_digest: "sha256:…" of the file that was given.
        size_bytes: Of its model.onnx.
        signature: What it takes and answers.
        config_text: The text of the config.pbtxt to load it with.
        changes: What the converter changed in the graph, a sentence each; empty if the two files
            are the same.
        kept_graph: Whether it would have changed something, but was asked not to.
        scores: "probabilities" if the graph says that it answers those; None if it does not tell.
        trial_shape: A shape of the input that is known to work; None if none is.
        labels: Its class names, if it has any.
        record: What its registration wrote beside it; None if nothing.
    """

    name: str
    version: int
    digest: str
    source_digest: str
    size_bytes: int
    signature: ModelSignature
    config_text: str
    changes: tuple[str, ...] = ()
    kept_graph: bool = False
    scores: str | None = None
    trial_shape: tuple[int, ...] | None = None
    labels: tuple[str, ...] | None = None
    record: Mapping[str, Any] | None = None


def read_published(repository: Path, name: str, version: int) -> PublishedVersion:
    """
    Describe a version that lies in the repository already, whoever put it there.

    A config.pbtxt that fits the version is kept as it is, completed if it relies on Triton for
    that; otherwise the text is what would be generated. Nothing is written.

    Raises:
        NameInvalid, VersionInvalid: The name or the number is not allowed.
        VersionMissing: There is no such version.
        PathEscapes: A link leads out of the repository.
        RepositoryUnreadable: The file system does not let it be read.
        ConfigInvalid: The config.pbtxt cannot be read, or is that of another model.
        ModelInvalid, ExternalDataForbidden, SignatureUnsupported: The model cannot be served.
    """
    check_model_name(name)
    check_version(version)
    with read_errors(name):
        return _describe(repository, name, version)


def _describe(repository: Path, name: str, version: int) -> PublishedVersion:
    directory = version_directory(repository, name, version)
    model, path = directory.parent, directory / MODEL_FILE
    if not path.is_file():
        raise VersionMissing(f"There is no version {version} of {name} in the repository.")
    refuse_escape(path, repository)
    written, labels = read_config(model), read_labels(repository, name, version)
    plan = plan_version(
        path,
        name=name,
        version=version,
        options=ConfigOptions(),
        policy=AS_IT_IS,
        labels=labels,
    )
    plan.config.name = model.name
    text = _text_to_load_with(written, plan.config, plan.signature)
    if labels is None:
        shared = read_shared_labels(model, written)
        labels = shared if shared and plan.signature.classes in {None, len(shared)} else None
    digest = digest_file(path)
    return PublishedVersion(
        name,
        version,
        digest,
        digest,
        path.stat().st_size,
        plan.signature,
        text,
        scores=plan.scores,
        trial_shape=plan.trial_shape,
        labels=labels,
        record=read_record(directory),
    )


def newest_input(repository: Path, name: str) -> TensorSignature | None:
    """Tell what the newest version of a model takes; None if there is none that can be read."""
    for version in reversed(published_versions(repository, name)):
        path = version_directory(repository, name, version) / MODEL_FILE
        if path.is_file():
            try:
                refuse_escape(path, repository)
                return next(iter(read_signature(path).inputs), None)
            except ConverterError:
                return None  # whoever put it there is told when it is adopted
    return None


def read_labels(repository: Path, name: str, version: int) -> tuple[str, ...] | None:
    """
    Read the class names that were published with a version; None if there were none.

    Raises:
        ConfigInvalid: The file is not UTF-8.
        PathEscapes: It is a link out of the repository.
    """
    path = version_directory(repository, name, version) / LABELS_FILE
    if not path.is_file():
        return None
    refuse_escape(path, repository)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigInvalid(
            f"The {LABELS_FILE} of version {version} of {name} is not UTF-8. Mend it, or remove it."
        ) from error
    # Not splitlines(): a label may hold what Unicode calls a line end.
    return tuple(text.removesuffix("\n").split("\n"))


def read_config(model: Path) -> str | None:
    """
    Read the config.pbtxt in a model's directory, to the letter; None if there is none.

    Raises:
        ConfigInvalid: It cannot be read, or is that of another model.
        PathEscapes: It is a link out of the repository.
    """
    path = model / CONFIG_FILE
    if not os.path.lexists(path):
        return None
    refuse_escape(path, model.parent)
    if not path.is_file():
        raise _config_invalid(model, "is no file")
    try:
        text = path.read_text(encoding="utf-8")
        parsed = model_config.parse(text)
    except UnicodeDecodeError as error:
        raise _config_invalid(model, "is not UTF-8") from error
    except ConfigInvalid as error:
        raise _config_invalid(model, f"cannot be read ({error.__cause__})") from error
    if parsed.name not in {"", model.name}:
        raise _config_invalid(model, f"says that it is that of {parsed.name[:128]!r}")
    return text


def _config_invalid(model: Path, what: str) -> ConfigInvalid:
    return ConfigInvalid(
        f"The config.pbtxt of {model.name} {what}. Mend it, or remove it: the next version that "
        "is published brings a new one."
    )


def _text_to_load_with(
    written: str | None, config: pb.ModelConfig, signature: ModelSignature
) -> str:
    """Keep what is written to the letter where it is complete and fits."""
    if written is None:
        return model_config.render(config)
    parsed = model_config.parse(written)
    first = config.output[0]
    completed = with_labels(complete(parsed, config), first.label_filename, output=first.name)
    if not fits(completed, signature):
        # It is that of another version: of the newest, where the signature has changed since.
        return model_config.render(config)
    return written if completed == parsed else model_config.render(completed)
