"""
Become the program in the arguments, bound to live no longer than the parent.

Runs as a script between fork and exec (`python -I -S exec_bound.py PARENT_PID PROGRAM ARGUMENTS…`),
because code in a forked child of a threaded process may deadlock. Standard library only.

Source: prctl(2), PR_SET_PDEATHSIG: the signal comes when the thread that forked us ends, so the
gateway starts its children from its event loop's thread.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for SIGKILL at the parent's death, then exec."""
    parent = int(sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before prctl: no signal will come
        sys.exit(1)
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - the point of this script


if __name__ == "__main__":
    main()
