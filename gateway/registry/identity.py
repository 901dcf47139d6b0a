"""
When is an upload a version that is there already? When its bytes are the same, its preprocessing
record and its labels are, and its graph is wished as that version's graph is.

A graph that takes raw pixels is published with a uint8 input, unless it is to be kept. A version
that was kept says so in its record's digest; one where there was nothing to change is the same
either way.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from gateway.converter.signature import TensorSignature
from gateway.errors import PreprocessingInvalid
from gateway.preprocessing.record import resolve_preprocessing
from gateway.registry.versions import CHAMPION, Model, ModelVersion


def record_digest(
    preprocessing: dict[str, Any] | None,
    labels: Sequence[str] | None,
    *,
    kept_graph: bool = False,
) -> str:
    """
    Digest what a version carries beside its file, "sha256:…"; "" if there is nothing.

    Args:
        preprocessing, labels: Its record and its class names.
        kept_graph: Whether its graph would have been changed, but was kept.
    """
    if preprocessing is None and labels is None and not kept_graph:
        return ""
    described: dict[str, Any] = {
        "preprocessing": preprocessing,
        "labels": None if labels is None else list(labels),
    }
    if kept_graph:
        described["kept_graph"] = True
    canonical = json.dumps(described, sort_keys=True)
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def record_of(
    preprocessing: dict[str, Any] | None,
    *,
    kept_graph: bool,
    scores: str | None,
    trial_shape: Sequence[int] | None,
) -> dict[str, Any]:
    """Describe what is kept beside a version's file, for whoever adopts it later."""
    return {
        "preprocessing": preprocessing,
        "kept_graph": kept_graph,
        "scores": scores,
        "trial_shape": None if trial_shape is None else list(trial_shape),
    }


def find_version(
    model: Model | None,
    source_digest: str,
    *,
    preprocessing: str | None = None,
    labels: Sequence[str] | None = None,
    keep_graph: bool | None = None,
) -> ModelVersion | None:
    """
    Find the version that an upload is already.

    Args:
        model: The model; None: there is none.
        source_digest: Of the upload.
        preprocessing, labels: A preset or a JSON record; class names.
        keep_graph: As at registration: None leaves it to what the champion takes.
    """
    if model is None:
        return None
    for number in sorted(model.versions):
        version = model.versions[number]
        if version.source_digest == source_digest and _carries(
            version, preprocessing, labels, _is_kept(model, version, keep_graph)
        ):
            return version
    return None


def champion_input(model: Model | None) -> TensorSignature | None:
    """Tell what a model's champion takes, which a new version should be able to stand beside."""
    if model is None or CHAMPION not in model.aliases:
        return None
    return model.champion.signature.inputs[0]


def _is_kept(model: Model, version: ModelVersion, keep_graph: bool | None) -> bool:
    """Whether the upload's graph would be kept, if the upload was this version."""
    if keep_graph is not None:
        return keep_graph
    champion, image = champion_input(model), version.signature.inputs[0]
    return (
        champion is not None
        and champion.dtype.startswith("FP")
        and (champion.name, champion.shape) == (image.name, image.shape)
    )


def _carries(
    version: ModelVersion,
    preprocessing: str | None,
    labels: Sequence[str] | None,
    kept_graph: bool,
) -> bool:
    try:
        record = resolve_preprocessing(preprocessing, version.signature.inputs[0])
    except PreprocessingInvalid:
        return False  # another version might take it; if none does, validation says why
    dumped = None if record is None else record.model_dump(mode="json")
    wanted = {record_digest(dumped, labels, kept_graph=kept_graph)}
    if kept_graph and not version.changes:
        wanted.add(record_digest(dumped, labels))
    return version.record_digest in wanted
