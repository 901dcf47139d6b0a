"""
Two gateways that share a PostgreSQL, a Triton and a repository. The second reaches the database
through a proxy that can be cut, so that it is away for that gateway alone.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from anyio.from_thread import BlockingPortal, start_blocking_portal

from gateway.triton.embedded import EmbeddedOptions, EmbeddedTriton
from testbed.gateway_process import GatewayProcess, running_gateway
from testbed.postgres import PostgresServer

_ADMIN_KEY = "shared-by-both"


class DatabaseProxy:
    """Passes bytes between a TCP port and a Unix socket, until it is cut."""

    def __init__(self, socket: Path, portal: BlockingPortal) -> None:
        self._socket = socket
        self._portal = portal
        self._is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen for the length of a block."""
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            self._abort()

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """End every connection, and each new one, for the length of a block."""
        self._is_cut = True
        self._portal.call(self._abort)
        try:
            yield
        finally:
            self._is_cut = False

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        database_reader, database_writer = await asyncio.open_unix_connection(self._socket)
        both = {writer, database_writer}
        self._writers |= both
        try:
            await asyncio.gather(_pump(reader, database_writer), _pump(database_reader, writer))
        finally:
            self._writers -= both


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@dataclass(frozen=True, slots=True)
class TwoGateways:
    """They run; `proxy` is between `second` and the database."""

    first: GatewayProcess
    second: GatewayProcess
    proxy: DatabaseProxy


@contextlib.contextmanager
def two_gateways(folder: Path, database: PostgresServer) -> Iterator[TwoGateways]:
    """Run both, and their Triton, for the length of a block."""
    repository = folder / "repository"
    repository.mkdir()
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal())
        url = stack.enter_context(portal.wrap_async_context_manager(_triton(folder, repository)))
        proxy = DatabaseProxy(database.socket, portal)
        stack.enter_context(portal.wrap_async_context_manager(proxy.running()))
        gateways = []
        for name, database_url in (
            ("first", database.url),
            ("second", f"postgresql://gateway@127.0.0.1:{proxy.port}/postgres"),
        ):
            place = folder / name
            place.mkdir()
            environment = {
                "DATABASE_URL": database_url,
                "MODEL_REPOSITORY": str(repository),
                "TRITON_URLS": url,
                "TRITON_ADMIN_KEY": _ADMIN_KEY,
                "LOAD_TIMEOUT_S": "30",
            }
            gateways.append(stack.enter_context(running_gateway(place, environment=environment)))
        first, second = gateways
        yield TwoGateways(first, second, proxy)


@contextlib.asynccontextmanager
async def _triton(folder: Path, repository: Path) -> AsyncIterator[str]:
    """Run a Triton; yields its URL as TRITON_URLS has it."""
    triton = EmbeddedTriton(
        EmbeddedOptions(
            repository=repository,
            data_dir=folder / "triton",
            admin_key=_ADMIN_KEY,
            # A stopping server would wait that long for the gateways' open connections.
            exit_timeout_s=1,
        )
    )
    endpoint = await triton.start()
    try:
        metrics = "" if endpoint.metrics_url is None else endpoint.metrics_url.rsplit(":", 1)[1]
        grpc = endpoint.grpc_url.rsplit(":", 1)[1]
        yield f"http://{endpoint.http_url}?grpc_port={grpc}&metrics_port={metrics}"
    finally:
        await triton.stop()
