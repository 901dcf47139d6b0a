"""
Puts files into a model repository so that a crash at any moment leaves them absent or complete.

Everything is written in a staging folder of the same file system, synced, and renamed into place;
then the directory that holds it is synced. The staging folder is a hidden one beside the models and
not inside one of them: a stray entry inside a model's directory makes Triton reload every version.

A write that fails for want of space has changed nothing: what was renamed already is taken back.

Source: Triton, Model Repository (layout); rename(2), fsync(2), flock(2).
"""

import contextlib
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from gateway.converter.errors import (
    PathEscapes,
    RepositoryReadOnly,
    RepositoryUnreadable,
    StorageFull,
    VersionExists,
)

STAGING = ".staging"
_CHUNK_BYTES = 1 << 20
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_TAKEN = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR})


@contextlib.contextmanager
def staging_folder(repository: Path) -> Iterator[Path]:
    """
    Make an empty folder to prepare files in; it and what is left in it is removed at the end.

    Raises:
        StorageFull: The block, or making the folder, ran out of space.
        RepositoryReadOnly: The folder cannot be made.
    """
    folder = repository / STAGING / uuid.uuid4().hex
    with storage_errors():
        try:
            with write_errors():
                folder.mkdir(parents=True)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def synced_file(target: Path) -> Iterator[BinaryIO]:
    """Open a new file for writing, and sync it at the end."""
    with target.open("xb") as writing:
        yield writing
        writing.flush()
        os.fsync(writing.fileno())


def copy_synced(source: Path, target: Path) -> None:
    """Copy a file in pieces and sync the copy."""
    with source.open("rb") as reading, synced_file(target) as writing:
        shutil.copyfileobj(reading, writing, _CHUNK_BYTES)


def write_synced(target: Path, text: str) -> None:
    """Write a new file and sync it."""
    with synced_file(target) as writing:
        writing.write(text.encode("utf-8"))


def publish_model(staged: Path, target: Path) -> None:
    """
    Rename a whole staged model, its first version in it, into its place: one step.

    Raises:
        FileExistsError: A model was published there in the meantime; it was not touched.
    """
    _sync_tree(staged)
    _rename_new(staged, target)
    sync_directory(target.parent)


def publish_into_model(
    staged_version: Path, version: Path, *, staged_config: Path | None, config: Path
) -> None:
    """
    Rename a staged version into its place, then replace the model's configuration.

    In that order: a configuration that names a version which is not there cannot be loaded.

    Args:
        staged_version, version: The version's directory, where it was prepared and its place.
        staged_config: The new configuration; None keeps what is there.
        config: The configuration's place.

    Raises:
        VersionExists: Something is there already; it was not touched.
        OSError: Nothing was changed.
    """
    _sync_tree(staged_version)
    try:
        _rename_new(staged_version, version)
    except FileExistsError as error:
        raise VersionExists(f"Version {version.name} is published already.") from error
    try:
        if staged_config is not None:
            staged_config.replace(config)
    except OSError:
        version.rename(staged_version)
        raise
    sync_directory(version.parent)


def replace_config(text: str, config: Path) -> None:
    """
    Put a configuration into the place of a model's: the old one or the new one is there, whole,
    also after a power cut.

    Args:
        text: The new text.
        config: NAME/config.pbtxt in a repository.

    Raises:
        StorageFull: No space is left; nothing was changed.
    """
    with staging_folder(config.parent.parent) as staging:
        staged = staging / config.name
        write_synced(staged, text)
        staged.replace(config)
        sync_directory(config.parent)


@contextlib.contextmanager
def one_at_a_time(repository: Path) -> Iterator[None]:
    """
    Let one process at a time give numbers and directories their places in a repository. The kernel
    lets go of the lock when the process ends.
    """
    folder = os.open(repository / STAGING, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def refuse_escape(path: Path, repository: Path) -> None:
    """
    Check that `path`, once every symbolic link is followed, still lies in the repository.

    Raises:
        PathEscapes: It does not, or the links lead in a circle.
    """
    try:
        leads_to = path.resolve()
        # Before Python 3.13 pathlib raises where links lead in a circle, since then it stops there.
        circle = leads_to.is_symlink()
    except RuntimeError:
        circle = True
    if circle:
        raise PathEscapes(f"{path.name} is a symbolic link that leads to itself.")
    if not leads_to.is_relative_to(repository.resolve()):
        raise PathEscapes(f"{path.name} is a symbolic link that leads out of the repository.")


def sync_directory(path: Path) -> None:
    """Make renames in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """Turn a full disk or a used-up quota into StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise StorageFull("No space is left in the repository; nothing was changed.") from error
        raise


@contextlib.contextmanager
def write_errors() -> Iterator[None]:
    """Turn a refusal to make a folder of ours into RepositoryReadOnly."""
    try:
        yield
    except OSError as error:
        if error.errno in _READ_ONLY:
            raise RepositoryReadOnly(
                "The model repository cannot be written to: its mount is read-only, or this "
                "server's user has no right to it. What lies in it is served."
            ) from error
        raise


@contextlib.contextmanager
def read_errors(name: str) -> Iterator[None]:
    """Turn a failure to read a model's directory into RepositoryUnreadable."""
    try:
        yield
    except OSError as error:
        raise RepositoryUnreadable(
            f"The directory of {name} in the repository cannot be read: {error.strerror}."
        ) from error


def _rename_new(source: Path, target: Path) -> None:
    # rename(2) replaces an empty directory and nothing else; what is published is never empty.
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in _TAKEN:
            raise FileExistsError(error.errno, os.strerror(error.errno), target.name) from error
        raise


def _sync_tree(directory: Path) -> None:
    """Sync the directories of a staged tree; its files were synced as they were written."""
    for folder, _, _ in os.walk(directory):
        sync_directory(Path(folder))
