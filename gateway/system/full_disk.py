"""
What a full disk means, here and in the processes that registration starts: they have no space for
their own report then, and say so by their exit code.
"""

import contextlib
import errno
import os
from collections.abc import Iterator

from gateway import errors
from gateway.converter.errors import StorageFull
from gateway.converter.repository_writer import storage_errors

NO_SPACE_EXIT = 75
"""The exit code of a process that could not write its report (EX_TEMPFAIL of sysexits.h)."""

# Not EFBIG: these processes bound the size of their files themselves.
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextlib.contextmanager
def storage_full() -> Iterator[None]:
    """Turn a full disk into the gateway's StorageFull."""
    try:
        with storage_errors():
            yield
    except StorageFull as error:
        raise errors.StorageFull(str(error)) from error


@contextlib.contextmanager
def exit_if_full() -> Iterator[None]:
    """End this process with NO_SPACE_EXIT if the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            os._exit(NO_SPACE_EXIT)
        raise
