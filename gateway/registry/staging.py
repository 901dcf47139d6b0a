"""
Where uploads lie before they are published, and how one gateway tells another's from those that a
crash left behind.

Each gateway has a folder under the repository's staging folder and holds a lock on a file in it for
as long as it lives; the kernel lets go of the lock when the process ends, however it ends. What
nobody holds a lock for is swept.

Source: flock(2): the lock belongs to the open file and is shared with children that inherit it.
"""

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import structlog

from gateway.converter.repository_writer import STAGING, write_errors
from gateway.errors import RepositoryReadOnly
from gateway.registry.refusals import as_refusals
from gateway.system.full_disk import storage_full

log = structlog.get_logger(__name__)

_PREFIX = "gateway-"
_LOCK_FILE = "alive.lock"


class Staging:
    """One gateway's folder. `owner` names it in the database, `lock` is the lock's descriptor."""

    def __init__(self, root: Path, owner: str, lock: int) -> None:
        self.owner = owner
        self.lock = lock
        self._root = root
        self._own = root / owner

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """
        Make a folder; it is removed with all that is in it at the end.

        Raises:
            StorageFull: There is no space for it.
            RepositoryReadOnly: The repository cannot be written to.
        """
        path = self._own / uuid.uuid4().hex
        with storage_full():
            path.mkdir()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def require(self) -> None:
        """
        Check that the repository can be written to.

        Raises:
            RepositoryReadOnly: It cannot.
        """

    def alive(self, owner: str) -> bool:
        """Whether a gateway that owns something still runs."""
        return owner == self.owner or _is_locked(self._root / owner / _LOCK_FILE)

    def close(self) -> None:
        """Remove the folder and let go of the lock."""
        shutil.rmtree(self._own, ignore_errors=True)
        os.close(self.lock)


class NoStaging(Staging):
    """The staging of a repository that cannot be written to: whatever needs it is refused."""

    def __init__(self, root: Path, refusal: RepositoryReadOnly) -> None:
        super().__init__(root, f"{_PREFIX}{uuid.uuid4().hex}", -1)
        self._refusal = refusal

    def require(self) -> None:
        """Raise RepositoryReadOnly."""
        raise self._refusal

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """Raise RepositoryReadOnly."""
        self.require()
        yield Path()

    def close(self) -> None:
        """There is nothing to let go of."""


def open_staging(repository: Path) -> Staging:
    """
    Make this gateway's folder, and remove what gateways that are gone have left. Where the
    repository cannot be written to, what is staged later is refused.
    """
    try:
        with as_refusals(), write_errors():
            return _open_staging(repository)
    except RepositoryReadOnly as error:
        log.warning("repository_read_only", reason=error.detail)
        return NoStaging(repository / STAGING, error)


def _open_staging(repository: Path) -> Staging:
    root = repository / STAGING
    root.mkdir(parents=True, exist_ok=True)
    # One at a time: a folder whose lock is not taken yet must not be swept.
    with (root / "sweep.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        _sweep(root)
        owner = f"{_PREFIX}{uuid.uuid4().hex}"
        (root / owner).mkdir()
        lock = os.open(root / owner / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return Staging(root, owner, lock)


def _sweep(root: Path) -> None:
    entries = [entry for entry in root.iterdir() if entry.is_dir()]
    owners = [entry for entry in entries if entry.name.startswith(_PREFIX)]
    alive = [owner for owner in owners if _is_locked(owner / _LOCK_FILE)]
    for entry in entries:
        # What has no owner is the converter's; while another gateway runs it may be in use.
        if entry not in alive and (entry in owners or not alive):
            shutil.rmtree(entry, ignore_errors=True)


def _is_locked(path: Path) -> bool:
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
