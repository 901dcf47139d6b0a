"""
Child processes: bound to the life of this one, and how one ended, in words.

A process must not outlive the gateway that starts it. If it runs a foreign program, put
`bound_to_this_process()` in front of the command; if it runs our code, that calls
`die_with_parent()` first.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_EXEC_BOUND = Path(__file__).with_name("exec_bound.py")


def bound_to_this_process() -> tuple[str, ...]:
    """
    Return what comes before a command so that it dies with the thread that starts it; see
    `exec_bound.py`.
    """
    return (sys.executable, "-I", "-S", str(_EXEC_BOUND), str(os.getpid()))


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it is gone."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def describe_exit(returncode: int) -> str:
    """Say how a process ended: "exit status 1", "killed by SIGKILL"."""
    if returncode >= 0:
        return f"exit status {returncode}"
    return f"killed by {_signal_name(-returncode)}"


def _signal_name(number: int) -> str:
    """Name a signal: "SIGKILL"; a real-time signal, which has no name, by its number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
