"""
Free loopback ports for the server's three services.

A port found free may be taken a moment later; the server then ends at once with an error, and the
start is tried again with others. Ports of the last run are kept where they are still free, so that
a restart does not move the endpoint.
"""

import socket
from contextlib import ExitStack
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Ports:
    """Port numbers of the HTTP, gRPC and metrics services; 0 means any free one."""

    http: int = 0
    grpc: int = 0
    metrics: int = 0

    def all(self) -> tuple[int, int, int]:
        """Return the three, in this order."""
        return self.http, self.grpc, self.metrics


def free_ports(preferred: Ports) -> Ports:
    """Return three different free ports, the preferred ones where they are free."""
    with ExitStack() as held:
        found: list[int] = []
        for port in preferred.all():
            listener = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            # As the server does: connections of the last run in TIME_WAIT do not count.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((LOOPBACK, port if port not in found else 0))
            except OSError:
                listener.bind((LOOPBACK, 0))
            found.append(listener.getsockname()[1])
        return Ports(*found)
