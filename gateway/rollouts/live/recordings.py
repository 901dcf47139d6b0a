"""
Recorded requests, on disk: what a candidate can be asked before it meets any caller.

    FOLDER/MODEL/NAME.image    the version that answered, and the image's file
    FOLDER/MODEL/NAME.label    the true class, in that version's numbering, once feedback told it

NAME is a hash of the request's id. With a key every file is sealed by AES-256-GCM, bound to its
model and name; without one it lies open. A file that another key sealed, or that is damaged, is
left out. Everything here blocks: call it in a thread.
"""

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_IMAGE, _LABEL, _DRAFT = ".image", ".label", ".draft"
_OPEN, _SEALED = b"\x00", b"\x01"
_NONCE_BYTES = 12
# What belongs to no image after so long was left by a process that ended.
_ORPHANED_S = 60.0


@dataclass(frozen=True, slots=True)
class Recorded:
    """
    A request to a model.

    Attributes:
        model: The model.
        version: Which version answered.
        request_id: The request.
        encoded: The image file's bytes.
        label: The true class in the numbering of `version`; None as long as nobody told it.
    """

    model: str
    version: int
    request_id: str
    encoded: bytes
    label: int | None = None


class Overview(NamedTuple):
    """What is recorded of a model; times in Unix seconds, None if nothing is."""

    images: int
    labelled: int
    size_bytes: int
    oldest_s: float | None
    newest_s: float | None


class _File(NamedTuple):
    path: Path
    size_bytes: int
    at_s: float


class Recordings:
    """The folder."""

    def __init__(
        self,
        folder: Path,
        *,
        key: bytes | None,
        most_images: int,
        most_bytes: int,
        kept_s: float,
    ) -> None:
        """
        Args:
            folder: Where they lie; made when the first is written.
            key: 32 bytes that seal them; None leaves them open.
            most_images: Of each model; the oldest go first.
            most_bytes: Of all models together.
            kept_s: How long each is kept, in seconds.
        """
        self._folder = folder
        self._cipher = None if key is None else AESGCM(key)
        self._most_images = most_images
        self._most_bytes = most_bytes
        self._kept_s = kept_s

    @property
    def sealed(self) -> bool:
        """Whether what is written from now on is encrypted."""
        return self._cipher is not None

    def write(self, recorded: Recorded) -> None:
        """
        Write a request down; a later one with the same id takes its place.

        Raises:
            OSError: There is no room, or no right to.
        """
        head = json.dumps({"version": recorded.version, "request_id": recorded.request_id})
        content = head.encode() + b"\n" + recorded.encoded
        self._put(self._path(recorded.model, recorded.request_id, _IMAGE), content)

    def write_label(self, model: str, request_id: str, label: int) -> None:
        """
        Write down the true class of a request, whether or not it is recorded: another process may
        be about to.

        Raises:
            OSError: There is no room, or no right to.
        """
        if (self._folder / model).is_dir():
            self._put(self._path(model, request_id, _LABEL), str(label).encode())

    def paths(self, model: str) -> list[Path]:
        """List a model's recorded requests, the newest first."""
        images = (file for file in _files(self._folder / model) if file.path.suffix == _IMAGE)
        return [file.path for file in sorted(images, key=attrgetter("at_s"), reverse=True)]

    def read(self, path: Path) -> Recorded | None:
        """Read one of `paths`; None if it is gone, damaged or sealed by another key."""
        content = self._get(path)
        if content is None:
            return None
        head, _, encoded = content.partition(b"\n")
        try:
            said = json.loads(head)
            label = self._get(path.with_suffix(_LABEL))
            return Recorded(
                model=path.parent.name,
                version=int(said["version"]),
                request_id=str(said["request_id"]),
                encoded=encoded,
                label=None if label is None else int(label),
            )
        except (ValueError, KeyError, TypeError):
            return None

    def overview(self, model: str) -> Overview:
        """Tell how much is recorded of a model."""
        files = list(_files(self._folder / model))
        images = [file for file in files if file.path.suffix == _IMAGE]
        times = [file.at_s for file in images]
        labels = {file.path.stem for file in files if file.path.suffix == _LABEL}
        return Overview(
            len(images),
            len(labels & {file.path.stem for file in images}),
            sum(file.size_bytes for file in files),
            min(times, default=None),
            max(times, default=None),
        )

    def delete(self, model: str) -> None:
        """Delete everything recorded of a model."""
        shutil.rmtree(self._folder / model, ignore_errors=True)

    def sweep(self, models: Collection[str]) -> None:
        """
        Delete what is too old or too much, the oldest first.

        Args:
            models: Those that exist; what is recorded of others goes.
        """
        if not self._folder.is_dir():
            return
        oldest_s = time.time() - self._kept_s
        kept: list[_File] = []
        for folder in self._folder.iterdir():
            if folder.name not in models:
                self.delete(folder.name)
                continue
            files = sorted(_files(folder), key=attrgetter("at_s"), reverse=True)
            images = [file for file in files if file.path.suffix == _IMAGE]
            fresh = [file for file in images[: self._most_images] if file.at_s >= oldest_s]
            stems = {file.path.stem for file in fresh}
            for file in files:
                young = file.path.suffix != _IMAGE and time.time() - file.at_s < _ORPHANED_S
                if file.path.stem not in stems and not young:
                    file.path.unlink(missing_ok=True)
            kept += fresh
        total_bytes = 0
        for file in sorted(kept, key=attrgetter("at_s"), reverse=True):
            total_bytes += file.size_bytes
            if total_bytes > self._most_bytes:
                file.path.unlink(missing_ok=True)
                file.path.with_suffix(_LABEL).unlink(missing_ok=True)

    def _path(self, model: str, request_id: str, suffix: str) -> Path:
        # Callers choose their ids, so these name no files.
        name = hashlib.blake2b(request_id.encode("utf-8", "surrogatepass"), digest_size=16)
        return self._folder / model / f"{name.hexdigest()}{suffix}"

    def _put(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}{_DRAFT}")
        try:
            draft.touch(mode=0o600)
            draft.write_bytes(self._seal(path, content))
            draft.replace(path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise

    def _get(self, path: Path) -> bytes | None:
        try:
            content = path.read_bytes()
        except OSError:
            return None
        kind, content = content[:1], content[1:]
        if kind == _OPEN:
            return content
        if kind != _SEALED or self._cipher is None:
            return None
        nonce, content = content[:_NONCE_BYTES], content[_NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, content, _place(path))
        except (InvalidTag, ValueError):
            return None

    def _seal(self, path: Path, content: bytes) -> bytes:
        if self._cipher is None:
            return _OPEN + content
        nonce = os.urandom(_NONCE_BYTES)
        return _SEALED + nonce + self._cipher.encrypt(nonce, content, _place(path))


def _place(path: Path) -> bytes:
    """What a sealed file is bound to: its model and its name."""
    return f"{path.parent.name}/{path.name}".encode()


def _files(folder: Path) -> Iterable[_File]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    stat = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # deleted since
                yield _File(Path(entry.path), stat.st_size, stat.st_mtime)
    except (FileNotFoundError, NotADirectoryError):
        return
