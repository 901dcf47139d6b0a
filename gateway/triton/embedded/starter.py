"""
From a data directory to a live server: preflight, lock, sweep, backend, ports, spawn, first answer.

The data directory belongs to one live gateway, by a lock that the kernel drops with the process.
Its holder may therefore sweep whatever carries the directory's shared-memory prefix.
"""

import asyncio
import fcntl
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from gateway.system.processes import describe_exit
from gateway.triton.embedded import orphans
from gateway.triton.embedded.command import ServerCommand, server_command
from gateway.triton.embedded.errors import AlreadyRunning, StartFailed
from gateway.triton.embedded.layout import Layout, shm_prefix
from gateway.triton.embedded.liveness import open_probe
from gateway.triton.embedded.options import EmbeddedOptions
from gateway.triton.embedded.ports import LOOPBACK, Ports, free_ports
from gateway.triton.embedded.preflight import require_ready
from gateway.triton.embedded.process import TritonProcess
from gateway.triton.embedded.server_log import LogRecord, ServerLog
from gateway.triton.endpoint import TritonEndpoint

log = structlog.get_logger(__name__)

READY_POLL_S = 0.01
PORT_ATTEMPTS = 5
PORT_TAKEN_MESSAGE = "already in use"


@dataclass(slots=True)
class Server:
    """One life: the process, where it answers, and since when (monotonic seconds)."""

    process: TritonProcess
    endpoint: TritonEndpoint
    started: float
    kill_reason: str | None = None

    def kill(self, reason: str) -> None:
        """Kill it; the first reason is the one that is told."""
        self.kill_reason = self.kill_reason or reason
        self.process.kill()


class Starter:
    """Holds the lock of a data directory, and starts servers there, one after the other."""

    def __init__(self, options: EmbeddedOptions, on_record: Callable[[LogRecord], None]) -> None:
        """
        Prepare the directory. Blocks for some 0.1 s, longer the first time.

        Args:
            options: How to run the server.
            on_record: Called with each record of its log, in another thread.

        Raises:
            PreflightFailed: The machine or the installation does not fit.
            AlreadyRunning: Another live gateway owns the data directory.
        """
        self._options = options
        self._ports = options.ports
        self._ready = require_ready(options.data_dir, options.repository)
        self.layout = Layout(options.data_dir.resolve() / "triton")
        self.layout.make()
        self._lock = _lock(self.layout.lock)
        try:
            self._prefix = shm_prefix(self.layout.root)
            orphans.sweep(self._prefix)
            self._backends = self.layout.prepare(self._ready.wheel, self._ready.libpython)
            self.log = ServerLog(self.layout.log, on_record, file_bytes=options.log_bytes)
        except BaseException:
            os.close(self._lock)
            raise

    def sweep(self) -> None:
        """Remove what an ended server left: processes, shared memory, presence files."""
        orphans.sweep(self._prefix)
        self.layout.clear_runtime_files()

    def close(self) -> None:
        """Give the directory back; nothing of the server is left then."""
        try:
            self.sweep()
            self.log.close()
        finally:
            os.close(self._lock)

    async def launch(self) -> Server:
        """
        Start one server and wait until it is live; on a lost race for a port, try other ports.

        Raises:
            StartFailed: It ended, or did not answer in time.
        """
        for attempt in range(1, PORT_ATTEMPTS + 1):
            server = await self._spawn()
            try:
                await self._until_live(server)
            except StartFailed as error:
                await server.process.end()
                await asyncio.to_thread(self.log.drain)
                errors = self.log.last_errors(since=server.started)
                if PORT_TAKEN_MESSAGE not in errors or attempt == PORT_ATTEMPTS:
                    raise StartFailed(f"{error}. Its last errors: {errors or 'none'}") from error
                log.warning("triton_port_taken", attempt=attempt, errors=errors)
                self._ports = Ports()
            except BaseException:
                await server.process.end()
                raise
            else:
                # It has read its command line, and whoever lists processes need not.
                server.process.hide(server.endpoint.admin_key or "")
                address = server.endpoint.http_url
                log.info("triton_started", pid=server.process.pid, http_url=address)
                return server
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _spawn(self) -> Server:
        self._ports = free_ports(self._ports)
        endpoint = TritonEndpoint(
            http_url=f"{LOOPBACK}:{self._ports.http}",
            grpc_url=f"{LOOPBACK}:{self._ports.grpc}",
            metrics_url=f"{LOOPBACK}:{self._ports.metrics}",
            admin_key=self._options.admin_key or secrets.token_urlsafe(24),
            decodes=True,
            instances=None if self._ready.gpu else str(self.layout.instances),
        )
        assert endpoint.admin_key is not None
        _write_private(self.layout.admin_key, endpoint.admin_key)
        output, read_output = self.log.open_pipe()
        started = time.monotonic()
        try:
            process = await TritonProcess.spawn(self._command(endpoint), output=output)
        finally:
            os.close(output)
        read_output(process.pid)
        return Server(process, endpoint, started)

    def _command(self, endpoint: TritonEndpoint) -> ServerCommand:
        assert endpoint.admin_key is not None
        return server_command(
            server=self._ready.wheel.server,
            repository=self._options.repository,
            backend_directory=self._backends,
            library_directories=[self.layout.libraries, self._ready.wheel.libraries],
            instances=self.layout.instances,
            work=self.layout.work,
            ports=self._ports,
            admin_key=endpoint.admin_key,
            shm_prefix=self._prefix,
            exit_timeout_s=self._options.exit_timeout_s,
            gpu=self._ready.gpu,
            extra_arguments=self._options.extra_arguments,
            environ=os.environ,
        )

    async def _until_live(self, server: Server) -> None:
        """Return once the server answers; fail as soon as it ends."""
        timeout_s = self._options.start_timeout_s
        ended = asyncio.create_task(server.process.wait())
        answered = asyncio.create_task(self._answer(server))
        try:
            await asyncio.wait(
                [ended, answered], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if ended.done():
                how = describe_exit(ended.result())
                raise StartFailed(f"tritonserver ended while starting: {how}")
            if not answered.done():
                raise StartFailed(f"tritonserver was not live within {timeout_s:g} s")
            answered.result()
        finally:
            for task in (ended, answered):
                task.cancel()

    async def _answer(self, server: Server) -> None:
        """Return once the server answers, on ports that are its own and not a stranger's."""
        ports = self._ports.all()
        async with open_probe(self._options.probe_timeout_s) as probe:
            while True:  # the server is another process: there is no event to wait for
                if await probe.is_live(server.endpoint) and server.process.listens_on(ports):
                    break
                await asyncio.sleep(READY_POLL_S)


def _write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone may read, whole or not at all."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def _lock(path: Path) -> int:
    """Take the lock; return the descriptor that holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise AlreadyRunning(
            f"{path.parent} is in use by another running gateway; give this one its own DATA_DIR"
        ) from error
    return descriptor
