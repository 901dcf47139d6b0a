"""
Puts files into a model repository so that a crash at any moment leaves them absent or complete.

Everything is written in a staging folder of the same file system, synced, and renamed into place;
then the parent is synced. The staging folder is a hidden one beside the models and not inside one
of them: a stray entry inside a model's directory makes Triton reload every version.

Source: Triton, Model Repository (layout); rename(2), fsync(2).
"""

import contextlib
import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from tools.errors import StorageFull, VersionExists

STAGING = ".staging"
MODEL_FILE = "model.onnx"
CONFIG_FILE = "config.pbtxt"
_CHUNK_BYTES = 1 << 20


@contextlib.contextmanager
def staging_folder(repository: Path) -> Iterator[Path]:
    """
    Make an empty folder to prepare files in; it and what is left in it is removed at the end.

    Raises:
        StorageFull: The disk is full.
    """
    folder = repository / STAGING / uuid.uuid4().hex
    with storage_errors():
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep_staging(repository: Path) -> None:
    """Remove what an earlier process left half done. Call it before anything is published."""
    shutil.rmtree(repository / STAGING, ignore_errors=True)


def copy_synced(source: Path, target: Path) -> tuple[str, int]:
    """
    Copy a file and sync it.

    Returns:
        The digest "sha256:…" of what was copied, and its size in bytes.

    Raises:
        StorageFull: The disk is full.
    """
    digest, size = hashlib.sha256(), 0
    with storage_errors(), source.open("rb") as reading, target.open("xb") as writing:
        while chunk := reading.read(_CHUNK_BYTES):
            digest.update(chunk)
            writing.write(chunk)
            size += len(chunk)
        writing.flush()
        os.fsync(writing.fileno())
    return f"sha256:{digest.hexdigest()}", size


def publish_directory(staged: Path, target: Path) -> None:
    """
    Rename a staged directory into its place and make that last.

    Raises:
        VersionExists: Something is there already; it was not touched.
        StorageFull: The disk is full.
    """
    with storage_errors():
        target.parent.mkdir(exist_ok=True)
        sync_directory(target.parent.parent)
        sync_directory(staged)
        try:
            # rename(2) replaces an empty directory silently; a version has a file in it.
            staged.rename(target)
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                raise VersionExists(f"Version {target.name} is published already.") from error
            raise
        sync_directory(target.parent)


def replace_text(staging: Path, target: Path, text: str) -> None:
    """
    Give a file a new content in one step; one that has it already is not touched.

    Raises:
        StorageFull: The disk is full.
    """
    with storage_errors():
        if target.exists() and target.read_text() == text:
            return
        prepared = staging / target.name
        with prepared.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        prepared.replace(target)
        sync_directory(target.parent)


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
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise StorageFull("The disk is full; nothing was changed.") from error
        raise
