"""
The files of a folder of models, and what they say.

    NAME.onnx                 the model
    NAME.onnx.data            its weights, if they are not inside
    NAME.json                 its preprocessing record, or {"preset": NAME}; {"preset": "proposed"}
                              takes what the file, or one of the next two, says
    NAME.preprocessor_config.json, NAME.config.json
                              of Transformers or timm
    NAME.txt                  its class names, one a line
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from gateway.converter.digests import digest_file
from gateway.converter.merged import data_files, in_one_file
from gateway.converter.onnx_signature import read_graph, signature_of
from gateway.errors import LabelsInvalid, PreprocessingInvalid
from gateway.preprocessing.proposals import Proposal, propose, takes_proposal
from gateway.registry.labels import read_labels

Stamp = tuple[int, ...]
"""What changes when another file, or other content, is behind a path."""

_RECORD, _LABELS = ".json", ".txt"
_SIDECARS = (".preprocessor_config.json", ".config.json")


@dataclass(frozen=True, slots=True)
class FolderModel:
    """What the folder says of a model; `proposal` is what nobody has taken."""

    path: Path
    digest: str
    preprocessing: str | None
    labels: list[str] | None
    proposal: Proposal | None = None


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
        PreprocessingInvalid: What is proposed was asked for, and nothing is.
        OSError: A file went meanwhile.
    """
    try:
        record, text = _text(path.with_suffix(_RECORD)), _text(path.with_suffix(_LABELS))
        sidecars = [_text(path.with_suffix(suffix)) for suffix in _SIDECARS]
    except UnicodeDecodeError as error:
        raise LabelsInvalid(f"{path.stem}.json or .txt is not UTF-8.") from error
    labels = read_labels(text)
    with in_one_file(path) as whole:
        digest = digest_file(whole)
        if record is not None and not takes_proposal(record):
            return FolderModel(path, digest, record, labels)
        proposal = _proposal(whole, [each for each in sidecars if each is not None])
    if not takes_proposal(record):
        return FolderModel(path, digest, record, labels, proposal)
    if proposal is None:
        raise PreprocessingInvalid(
            f"{path.stem}.json takes what is proposed, and nothing is that fits the model."
        )
    taken = proposal.preprocessing
    return FolderModel(
        path,
        digest,
        None if taken is None else json.dumps(taken.model_dump(mode="json")),
        labels or (None if proposal.labels is None else list(proposal.labels)),
    )


def _proposal(model: Path, sidecars: list[str]) -> Proposal | None:
    graph = read_graph(model)
    signature = signature_of(graph)
    if not signature.inputs:
        return None
    metadata = {each.key: each.value for each in graph.metadata_props}
    return propose(metadata, sidecars, signature.inputs[0], signature.classes)


def _stamp(path: Path) -> Stamp:
    described = [path.with_suffix(suffix) for suffix in (_RECORD, _LABELS, *_SIDECARS)]
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
