"""
Child processes: bound to the life of this one, and how one ended, in words.

Whoever starts a process that must not outlive the gateway puts `bound_to_this_process()` in front
of its command.
"""

import os
import signal
import sys
from pathlib import Path

_EXEC_BOUND = Path(__file__).with_name("exec_bound.py")


def bound_to_this_process() -> tuple[str, ...]:
    """
    Return what comes before a command so that it dies with the thread that starts it; see
    `exec_bound.py`.
    """
    return (sys.executable, "-I", "-S", str(_EXEC_BOUND), str(os.getpid()))


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
