"""
The embedded Triton: the real tritonserver as a supervised child on loopback.

    EmbeddedTriton        start, stop, restart (supervisor.py)
    EmbeddedOptions       how to run it
    EmbeddedListener      is told of deaths, restarts and lost stubs
    preflight, Finding    can it run on this machine?
"""

from gateway.triton.embedded.errors import (
    AlreadyRunning,
    EmbeddedError,
    PreflightFailed,
    StartFailed,
)
from gateway.triton.embedded.options import EmbeddedListener, EmbeddedOptions
from gateway.triton.embedded.ports import Ports
from gateway.triton.embedded.preflight import Finding, preflight
from gateway.triton.embedded.supervisor import EmbeddedTriton

__all__ = [
    "AlreadyRunning",
    "EmbeddedError",
    "EmbeddedListener",
    "EmbeddedOptions",
    "EmbeddedTriton",
    "Finding",
    "Ports",
    "PreflightFailed",
    "StartFailed",
    "preflight",
]
