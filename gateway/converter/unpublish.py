"""
Take a version out of a model repository. It is the way back of `publish.py`: what is renamed into
staging is gone from Triton's sight in one step, and a crash leaves nothing half removed in its
place.

Source: Triton, Model Repository.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from gateway.converter import model_config
from gateway.converter.layout import CONFIG_FILE, version_directory, versions_in
from gateway.converter.place import check_model_place
from gateway.converter.published import read_config
from gateway.converter.repository_writer import (
    staging_folder,
    sync_directory,
    write_synced,
)


def remove_version(
    repository: Path, name: str, version: int, *, configs: Mapping[int, str] | None = None
) -> None:
    """
    Remove a version's files; with the last version of a Triton model its whole directory. If there
    are none, nothing happens.

    Args:
        repository, name, version: Which one.
        configs: By version, the configuration that it is served with. Once the newest of a Triton
            model is gone, that of the one before is put in its place; where there is none, the one
            that is there stays and is pointed to it.

    Raises:
        NameInvalid, VersionInvalid: The name or the number is not allowed.
        PathEscapes: A link leads out of the repository.
        RepositoryUnreadable: The model's directory is none, or cannot be read.
        ConfigInvalid: The config.pbtxt cannot be read.
        StorageFull: The disk is so full that nothing can be prepared.
    """
    check_model_place(repository, name)
    place = version_directory(repository, name, version)
    model = place.parent
    if not model.is_dir():
        return
    remaining = [number for number in versions_in(model) if number != version]
    with staging_folder(repository) as staging:
        if not remaining:
            model.rename(staging / model.name)
            sync_directory(repository)
            return
        # First the configuration: one that names a version which is not there cannot be loaded.
        text = _config_without(model, version, remaining[-1], (configs or {}).get(remaining[-1]))
        if text is not None:
            write_synced(staging / CONFIG_FILE, text)
            (staging / CONFIG_FILE).replace(model / CONFIG_FILE)
        if os.path.lexists(place):
            place.rename(staging / str(version))
        sync_directory(model)


def _config_without(model: Path, version: int, newest: int, config_text: str | None) -> str | None:
    """Give the configuration to write, if the one that is there serves the removed version."""
    written = read_config(model)
    if written is None:
        return None
    config = model_config.parse(written)
    if version not in config.version_policy.specific.versions:
        return None
    base = model_config.parse(config_text) if config_text is not None else config
    return model_config.render(model_config.with_versions(base, [newest]))
