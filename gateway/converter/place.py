"""
Can a model's directory be worked in? Asked before anything is written or recorded, so that what is
wrong with it is a refusal and never something half done.

What is accepted is what Triton accepts: a directory of the repository with a config.pbtxt of that
model in it, or without one. Every refusal names the model and says what cures it.

Source: Triton, Model Repository (layout).
"""

import os
from pathlib import Path

from gateway.converter.errors import NameConflict, RepositoryUnreadable, VersionExists
from gateway.converter.layout import next_version, triton_models, version_directory, versions_in
from gateway.converter.names import check_model_name, check_version
from gateway.converter.published import read_config
from gateway.converter.repository_writer import read_errors, refuse_escape


def check_model_place(repository: Path, name: str) -> None:
    """
    Check that versions of a model can be published and removed. A model that is not there yet can.

    Raises:
        NameInvalid: Not a model name.
        NameConflict: A directory is there whose name differs only in case.
        PathEscapes: The model's directory or its config.pbtxt is a link out of the repository.
        RepositoryUnreadable: The directory is none, or cannot be read.
        ConfigInvalid: The config.pbtxt cannot be read, or is that of another model.
    """
    check_model_name(name)
    with read_errors(name):
        _check_case(repository, name)
        for directory in triton_models(repository, name):
            _check_directory(repository, directory)


def free_version(repository: Path, name: str) -> int:
    """
    Tell the number that a model's next version gets.

    Raises:
        VersionInvalid: There is none after the highest.
        ConverterError: As `check_model_place`.
    """
    check_model_place(repository, name)
    return next_version(repository, name)


def check_version_place(repository: Path, name: str, version: int) -> None:
    """
    Check that a version can be published.

    Raises:
        VersionInvalid: Not a version number.
        VersionExists: Something is there already.
        ConverterError: As `check_model_place`.
    """
    check_version(version)
    check_model_place(repository, name)
    if os.path.lexists(version_directory(repository, name, version)):
        raise VersionExists(f"Version {version} of {name} is published already.")


def _check_directory(repository: Path, triton_model: str) -> None:
    directory = repository / triton_model
    refuse_escape(directory, repository)
    if not directory.is_dir():
        raise RepositoryUnreadable(
            f"{triton_model} in the repository is no directory. Remove it, or put the model's "
            "directory in its place."
        )
    versions_in(directory)
    read_config(directory)


def _check_case(repository: Path, name: str) -> None:
    if not repository.is_dir():
        return
    folded = name.casefold()
    for entry in repository.iterdir():
        if entry.name != name and entry.name.casefold() == folded:
            raise NameConflict(
                f"{name} differs from the model {entry.name} in nothing but case; on some file "
                "systems they would be one."
            )
