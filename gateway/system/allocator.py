"""
Two things that memory costs a request where nobody looks, and how to be rid of them.

Have the C library keep the memory that one request gave back for the next one.

By default glibc takes every buffer of more than a few hundred kilobytes from the kernel and gives
it back at once: an image's pixels then cost thousands of page faults on each request, which is more
time than decoding them.

Have the cyclic collector leave alone what lives as long as the process: the libraries' modules
hold some 160,000 objects, and a full collection that walks them stops every request for 100 ms.

Source: gc.freeze in Python's library reference; mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD.
"""

import ctypes
import gc

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 64 * 1024 * 1024


def keep_large_buffers() -> bool:
    """
    Keep freed buffers of up to 64 MiB for this process.

    Returns:
        Whether the C library can do that.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES) and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    )


def leave_what_stays() -> None:
    """Collect once, and never look again at what is there by now. To be called before serving."""
    gc.collect()
    gc.freeze()
