"""
Put the file of a published version back where it is missing or was changed, from the file that the
version was made of. What is put back is what was published, to the bit, or nothing.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.converter.beside import RECORD_FILE, write_record
from gateway.converter.digests import digest_file
from gateway.converter.layout import CONFIG_FILE, MODEL_FILE
from gateway.converter.model_writer import write_model
from gateway.converter.onnx_signature import read_graph
from gateway.converter.place import check_model_place
from gateway.converter.plan import LABELS_FILE
from gateway.converter.repository_writer import (
    copy_synced,
    one_at_a_time,
    publish_into_model,
    publish_model,
    staging_folder,
    synced_file,
    write_synced,
)
from gateway.converter.uint8_input import feed_bytes


def mend_version(
    source: Path,
    *,
    repository: Path,
    name: str,
    triton_model: str,
    version: int,
    digest: str,
    config_text: str,
    labels: Sequence[str] | None,
    record: Mapping[str, Any] | None = None,
) -> bool:
    """
    Put a version's file back.

    Args:
        source: The file that the version was made of.
        repository, name, triton_model, version: Where it belongs.
        digest: Of what was published, "sha256:…".
        config_text: What it is loaded with; written if the model's directory has no config.pbtxt.
        labels: Its class names, if it has any.
        record: What is kept beside the file.

    Returns:
        Whether it is back; False: this release makes another file of `source`.

    Raises:
        ConverterError: The model's directory cannot be worked in; as `check_model_place`.
        StorageFull: No space is left; nothing was changed.
    """
    with staging_folder(repository) as staging:
        staged = staging / triton_model / str(version)
        staged.mkdir(parents=True)
        if not _made_again(source, staging, staged / MODEL_FILE, digest):
            return False
        if labels is not None:
            write_synced(staged / LABELS_FILE, "".join(f"{label}\n" for label in labels))
        if record is not None:
            write_synced(staged / RECORD_FILE, write_record(record))
        model = repository / triton_model
        with one_at_a_time(repository):
            check_model_place(repository, name)
            config = staging / triton_model / CONFIG_FILE
            write_synced(config, config_text)
            if not model.exists():
                publish_model(staging / triton_model, model)
                return True
            place = model / str(version)
            if os.path.lexists(place):
                place.rename(staging / "damaged")
            written = os.path.lexists(model / CONFIG_FILE)
            publish_into_model(
                staged,
                place,
                staged_config=None if written else config,
                config=model / CONFIG_FILE,
            )
        return True


def _made_again(source: Path, staging: Path, target: Path, digest: str) -> bool:
    """Make the published file: the source itself, or with a Cast in front of its graph."""
    copy = staging / MODEL_FILE
    copy_synced(source, copy)
    if digest_file(copy) == digest:
        copy.rename(target)
        return True
    graph = read_graph(copy)
    feed_bytes(graph)
    with synced_file(target) as writing:
        write_model(graph, copy, writing)
    return digest_file(target) == digest
