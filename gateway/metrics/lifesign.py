"""
Find out that a process was killed, and when. Each process keeps a file in the data folder locked,
and touches it several times a second.

The kernel releases the lock when the process ends, however it ends; the file stays, with the time
of the last touch. A process that stops in order removes its file. So a file that is not locked
belonged to a process that was killed.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Dead:
    """A process that was killed, and when it last was alive, UTC in seconds."""

    name: str
    alive_at_s: float


class LifeSign:
    """The file of the present process, below `folder` and of the process's `name`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / name
        # Only what is locked already gets its name: nobody takes this process for a dead one.
        unnamed = folder / f".{name}"
        self._file = unnamed.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        unnamed.rename(self._path)

    def touch(self) -> None:
        """Say that this process is alive."""
        os.utime(self._file.fileno())

    def withdraw(self) -> None:
        """Take the file away: this process ends, and nothing is missing."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Give up the lock. If it was not withdrawn, the file says that this process is dead."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def find_dead(folder: Path) -> Iterator[Dead]:
    """
    Yield the processes that were killed; a file is removed when the caller asks for the next.

    Several processes may look at once: each file is shown to one.
    """
    for path in sorted(folder.iterdir()):
        with contextlib.suppress(FileNotFoundError), path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # it lives
            found = os.fstat(file.fileno())
            if found.st_nlink == 0:
                continue  # somebody else was faster
            if not path.name.startswith("."):
                yield Dead(path.name, min(found.st_mtime, time.time()))
            path.unlink()
