"""The embedded Triton as one replica of a monitor: the supervisor's news, handed on."""

from typing import Protocol

from gateway.triton.embedded.options import EmbeddedListener
from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.monitor import Monitor
from gateway.triton.replicas import Replica


class TritonListener(EmbeddedListener, Protocol):
    """Hears the news of an embedded Triton, from its first start to its end."""

    def attach(self, endpoint: TritonEndpoint) -> None:
        """Hear that the server has started."""

    async def close(self) -> None:
        """Hear that the gateway is done with it."""


class EmbeddedReplica:
    """Listens to the supervisor of an embedded Triton; `attach` once it has started."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._replica: Replica | None = None

    def attach(self, endpoint: TritonEndpoint) -> None:
        """Have the monitor watch the started server."""
        self._replica = self._monitor.watch("embedded", endpoint)

    async def close(self) -> None:
        """Take the replica out of the monitor and close its connections."""
        if self._replica is not None:
            await self._monitor.forget(self._replica)

    async def came_up(self, endpoint: TritonEndpoint) -> None:
        """Hear that a new, empty server answers."""
        if self._replica is not None:
            await self._monitor.came_up(self._replica, endpoint)

    def went_down(self, reason: str) -> None:
        """Hear that the server ended."""
        if self._replica is not None:
            self._monitor.went_down(self._replica, reason)

    def stub_lost(self, model: str, version: int, detail: str) -> None:
        """Hear that the process of an instance ended."""
        if self._replica is not None:
            self._monitor.stub_lost(self._replica, model, version, detail)
