"""
What other users see of a process's command line: overwritten in its memory, once it has been read.

Source: proc(5), `/proc/PID/stat` (arg_start, arg_end) and `/proc/PID/mem`; ptrace(2) says who may.
"""

import os
from pathlib import Path

# Fields of /proc/PID/stat, counted from the one behind the name.
_ARG_START, _ARG_END = 45, 46
_MASK = b"*"


def overwrite_argument(pid: int, secret: bytes) -> None:
    """
    Overwrite a secret wherever it stands in the command line of a process of ours.

    Raises:
        OSError: The kernel does not let us, or the process is gone.
    """
    if not secret:
        return
    said = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    start, end = int(said[_ARG_START]), int(said[_ARG_END])
    descriptor = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
    try:
        arguments = os.pread(descriptor, end - start, start)
        found = arguments.find(secret)
        while found >= 0:
            os.pwrite(descriptor, _MASK * len(secret), start + found)
            found = arguments.find(secret, found + len(secret))
    finally:
        os.close(descriptor)
