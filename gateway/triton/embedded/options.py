"""What the embedded server is told by its owner, and what its owner is told by it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from gateway.triton.embedded.ports import Ports
from gateway.triton.embedded.stubs import REPLACED_S
from gateway.triton.endpoint import TritonEndpoint


@dataclass(frozen=True, slots=True)
class EmbeddedOptions:
    """
    How to run the server.

    Attributes:
        repository: The model repository: a directory, or an s3:// address.
        data_dir: The gateway's state; the server's part is `data_dir/triton`.
        ports: Preferred ports, 0 for any; others are taken where one is in use.
        start_timeout_s: How long a server may take until it is live.
        exit_timeout_s: How long a stop waits for requests in flight.
        halted_s: How long the process may be halted (SIGSTOP) before it is killed.
        replaced_s: How long a stub may outlive its successor's start: longer than any request.
        probe_interval_s: Pause between two questions for its liveness.
        probe_timeout_s: How long such a question waits.
        probe_failures: After so many without an answer in a row the server is killed.
        log_bytes: Size of one file of the server's log; three are kept.
        admin_key: Secret of all calls but health; "" makes a fresh one at each start.
        extra_arguments: Further arguments of tritonserver.
    """

    repository: Path | str
    data_dir: Path
    ports: Ports = field(default_factory=Ports)
    start_timeout_s: float = 60.0
    exit_timeout_s: int = 10
    halted_s: float = 1.0
    replaced_s: float = REPLACED_S
    probe_interval_s: float = 1.0
    probe_timeout_s: float = 2.0
    probe_failures: int = 4
    log_bytes: int = 10_000_000
    admin_key: str = ""
    extra_arguments: tuple[str, ...] = ()


class EmbeddedListener(Protocol):
    """Is told what happens to the server, on the event loop. The first start is not told."""

    def went_down(self, reason: str) -> None:
        """The server ended unasked, or is being restarted; nothing is loaded any more."""

    async def came_up(self, endpoint: TritonEndpoint) -> None:
        """A new, empty server answers; the endpoint has changed (at least its secret)."""

    def stub_lost(self, model: str, version: int, detail: str) -> None:
        """An instance of this version is gone without an unload; Triton still calls it READY."""


class Unheard:
    """A listener that does nothing."""

    def went_down(self, reason: str) -> None:
        """Do nothing."""

    async def came_up(self, endpoint: TritonEndpoint) -> None:
        """Do nothing."""

    def stub_lost(self, model: str, version: int, detail: str) -> None:
        """Do nothing."""
