"""Publish what a folder of models holds: the model with the record and labels beside it."""

from dataclasses import replace
from pathlib import Path

from gateway.converter.merged import in_one_file
from gateway.converter.model_config import ConfigOptions, placement_for_machine
from gateway.converter.onnx_signature import read_signature
from gateway.converter.publish import publish_version
from gateway.converter.signature import check_classifier
from gateway.converter.uint8_input import InputPolicy
from gateway.preprocessing.record import check_pixels, resolve_preprocessing
from gateway.registry.adoption import new_version
from gateway.registry.folder_files import FolderModel
from gateway.registry.identity import record_of
from gateway.registry.versions import FOLDER
from gateway.store.versions import NewVersion


def publish_found(
    found: FolderModel, repository: Path, name: str, version: int, policy: InputPolicy
) -> NewVersion:
    """
    Publish a model of the folder as a version, and describe that as it is recorded.

    Raises:
        ConverterError: The model or its place is refused.
        PreprocessingInvalid: Its record does not fit it.
    """
    with in_one_file(found.path) as whole:
        signature = read_signature(whole)
        check_classifier(signature)
        record = resolve_preprocessing(found.preprocessing, signature.inputs[0])
        check_pixels(signature.inputs[0], record)
        pixels = None if record is None else not record.normalizes
        published = publish_version(
            whole,
            repository=repository,
            name=name,
            version=version,
            options=ConfigOptions(placement=placement_for_machine()),
            policy=replace(policy, pixels=pixels),
            labels=found.labels,
            record=record_of(
                None if record is None else record.model_dump(mode="json"),
                kept_graph=False,
                scores=None,
                trial_shape=None,
            ),
        )
    return new_version(published, FOLDER)
