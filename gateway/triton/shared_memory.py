"""
One region of memory that this process shares with one Triton on the same host.

Images are decoded straight into a slot of it, and a request then names the slot instead of carrying
the pixels. The region belongs to one process of Triton: when that is replaced, it is dropped with
everything in it, and the next gets a new one.

The region has a name in /dev/shm only for the moment in which Triton opens it. A gateway that is
killed leaves nothing behind, and no other process can open the images of its callers. All of it is
allocated at once: where /dev/shm is too small (64 MB in a container by default), that is one clear
error and not a SIGBUS in the middle of a request.

Source: Triton, System-Shared-Memory Extension; Linux, open(2) (O_TMPFILE) and linkat(2).
"""

import errno
import mmap
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gateway.triton.slots import Slot, Slots

DIRECTORY = Path("/dev/shm")  # noqa: S108 - where shm_open looks, in Triton
_PREFIX = "onnx-gateway"


class SharedMemoryUnavailable(Exception):
    """No region can be made here; the text says why. Pixels then travel in the requests."""


class Region:
    """
    Memory for the inputs of requests.

    Attributes:
        name: Its name towards Triton, unlike that of any other region.
        slots: What is in use of it.
    """

    def __init__(self, size_bytes: int) -> None:
        """
        Allocate a region. Takes some 20 ms for 64 MiB: the kernel clears it.

        Raises:
            SharedMemoryUnavailable: There is not so much room in /dev/shm, or no such folder.
        """
        self.name = f"{_PREFIX}-{os.getpid()}-{secrets.token_hex(8)}"
        self.slots = Slots(size_bytes)
        self._file = -1
        try:
            flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
            self._file = os.open(DIRECTORY, flags, 0o600)
            os.posix_fallocate(self._file, 0, size_bytes)
            self._memory = mmap.mmap(self._file, size_bytes)
        except OSError as error:
            self.close()
            raise SharedMemoryUnavailable(
                f"{size_bytes} bytes of shared memory cannot be had in {DIRECTORY}: "
                f"{os.strerror(error.errno or errno.EIO)}."
            ) from error

    @contextmanager
    def named(self) -> Iterator[str]:
        """Give the region a name in /dev/shm while the block runs; once in its life."""
        path = DIRECTORY / self.name
        root = os.open("/", os.O_PATH)
        try:
            # With a folder's descriptor Python calls linkat, which alone follows the link.
            os.link(f"/proc/self/fd/{self._file}", path, src_dir_fd=root, follow_symlinks=True)
            yield f"/{self.name}"
        finally:
            os.close(root)
            path.unlink(missing_ok=True)

    def take(self, size_bytes: int) -> Slot | None:
        """Take a slot; None if no part is large enough right now."""
        return self.slots.take(size_bytes)

    def view(self, slot: Slot) -> npt.NDArray[np.uint8]:
        """Return the bytes of a slot: uint8 [size_bytes], writable, no copy."""
        return np.frombuffer(self._memory, np.uint8, slot.size_bytes, slot.offset)

    def close(self) -> None:
        """
        Close the file: no name can be given any more. The memory stays until the region and the
        last array in its slots are gone.
        """
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def sweep() -> list[str]:
    """
    Remove the names that gateways left which were killed while Triton opened a region.

    Returns:
        What was removed.
    """
    removed = []
    for path in DIRECTORY.glob(f"{_PREFIX}-*"):
        pid = path.name.removeprefix(f"{_PREFIX}-").partition("-")[0]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            # Another user's is left to that user.
            with suppress(PermissionError):
                path.unlink(missing_ok=True)
                removed.append(path.name)
    return removed
