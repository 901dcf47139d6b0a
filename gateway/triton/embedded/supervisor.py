"""
The embedded Triton, kept alive.

Start: preflight, lock the data directory, sweep what a killed predecessor left, spawn, wait until the
process that answers is ours. Then watch: the end of the process is seen at once; a halted or silent
server is killed; stubs are looked at five times a second (`stubs.py`). After a death the rest of the
group and its shared memory are removed and the server is started again, with a growing delay when it
keeps dying (`backoff.py`).

A new server is empty: what should be loaded is known elsewhere, which is told by `came_up`.
"""

import asyncio
import fcntl
import os
import secrets
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
import structlog

from gateway.triton.embedded import orphans
from gateway.triton.embedded.backoff import early_deaths, restart_delay_s
from gateway.triton.embedded.command import server_command
from gateway.triton.embedded.errors import AlreadyRunning, StartFailed
from gateway.triton.embedded.layout import Layout, shm_prefix
from gateway.triton.embedded.ports import LOOPBACK, Ports, free_ports
from gateway.triton.embedded.preflight import Ready, require_ready
from gateway.triton.embedded.process import TritonProcess, describe_exit
from gateway.triton.embedded.server_log import LogRecord, ServerLog
from gateway.triton.embedded.stubs import StubWatch
from gateway.triton.endpoint import TritonEndpoint

log = structlog.get_logger(__name__)

LOOK_INTERVAL_S = 0.2
READY_POLL_S = 0.01
PORT_ATTEMPTS = 5


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
        probe_interval_s: Pause between two questions for its liveness.
        probe_timeout_s: How long such a question waits.
        probe_failures: After so many without an answer in a row the server is killed.
        log_bytes: Size of one file of the server's log; three are kept.
        extra_arguments: Further arguments of tritonserver.
    """

    repository: Path | str
    data_dir: Path
    ports: Ports = Ports()
    start_timeout_s: float = 60.0
    exit_timeout_s: int = 10
    halted_s: float = 1.0
    probe_interval_s: float = 1.0
    probe_timeout_s: float = 2.0
    probe_failures: int = 4
    log_bytes: int = 10_000_000
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


@dataclass(slots=True)
class _Server:
    """One life: the process, where it answers, and since when (monotonic seconds)."""

    process: TritonProcess
    endpoint: TritonEndpoint
    started: float
    kill_reason: str | None = None

    def kill(self, reason: str) -> None:
        self.kill_reason = self.kill_reason or reason
        self.process.kill()


class EmbeddedTriton:
    """A tritonserver that is a child of this process, restarted when it dies."""

    def __init__(self, options: EmbeddedOptions, listener: EmbeddedListener | None = None) -> None:
        self._options = options
        self._listener: EmbeddedListener = listener or Unheard()
        self._layout = Layout(options.data_dir.resolve() / "triton")
        self._ports = options.ports
        self._lock: int | None = None
        self._log: ServerLog | None = None
        self._server: _Server | None = None
        self._supervision: asyncio.Task[None] | None = None
        self._notices: set[asyncio.Task[None]] = set()
        self._ready: Ready
        self._prefix: str
        self._backend_directory: Path
        self.restarts = 0

    @property
    def endpoint(self) -> TritonEndpoint | None:
        """Where the server answers; None while there is none."""
        return self._server.endpoint if self._server else None

    @property
    def pid(self) -> int | None:
        """The server's process id; None while there is none."""
        return self._server.process.pid if self._server else None

    @property
    def server_log(self) -> ServerLog:
        """The server's log, over all its restarts; only after `start`."""
        assert self._log is not None, "not started"
        return self._log

    async def start(self) -> TritonEndpoint:
        """
        Start the server and its supervision.

        Call it from the main thread's event loop: the kernel kills the server when the thread that
        started it ends.

        Raises:
            PreflightFailed: The machine or the installation does not fit.
            AlreadyRunning: Another live gateway owns the data directory.
            StartFailed: The server did not come up.
        """
        assert self._supervision is None, "already started"
        try:
            await asyncio.to_thread(self._prepare)
            self._server = await self._launch()
        except BaseException:
            await self.stop()
            raise
        self._supervision = asyncio.create_task(self._supervise(), name="embedded-triton")
        return self._server.endpoint

    async def stop(self) -> None:
        """
        Stop for good: in order, then by force. Close all HTTP connections to the server before, or it
        waits for them until its exit timeout. Does nothing when nothing runs.
        """
        for task in (self._supervision, *self._notices):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        self._supervision = None
        server, self._server = self._server, None
        if server is not None:
            grace_s = self._options.exit_timeout_s + 2.0
            if not await server.process.terminate(grace_s):
                log.warning("triton_killed", reason="did not end in time", grace_s=grace_s)
        if self._lock is not None:
            await asyncio.to_thread(self._release)

    async def restart(self, reason: str) -> None:
        """Kill the server, for a reason that it does not see itself; the supervision brings it back."""
        if self._server is not None:
            self._server.kill(reason)

    def _prepare(self) -> None:
        options = self._options
        self._ready = require_ready(options.data_dir, options.repository)
        self._layout.make()
        self._lock = _lock(self._layout.lock)
        self._prefix = shm_prefix(self._layout.root)
        self._sweep()
        self._backend_directory = self._layout.prepare(self._ready.wheel, self._ready.libpython)
        self._log = ServerLog(self._layout.log, _forward, file_bytes=options.log_bytes)

    def _release(self) -> None:
        """Undo `_prepare`; nothing of the server is left when the lock goes."""
        self._sweep()
        self._layout.clear_runtime_files()
        if self._log is not None:
            self._log.close()
        assert self._lock is not None
        os.close(self._lock)
        self._lock = None

    def _sweep(self) -> None:
        killed = orphans.sweep_processes(self._prefix)
        removed = orphans.sweep_shared_memory(self._prefix)
        if killed or removed:
            log.info("triton_orphans_swept", pids=killed, regions=len(removed))

    async def _launch(self) -> _Server:
        """Start one server and wait until it is live; on a lost race for a port, try other ports."""
        for attempt in range(1, PORT_ATTEMPTS + 1):
            server = await self._spawn()
            try:
                async with asyncio.timeout(self._options.start_timeout_s):
                    await self._until_live(server)
            except TimeoutError:
                trouble = f"not live within {self._options.start_timeout_s:g} s"
            except StartFailed as error:
                trouble = str(error)
            except BaseException:
                await server.process.terminate(0)
                raise
            else:
                log.info(
                    "triton_started", pid=server.process.pid, http_url=server.endpoint.http_url
                )
                return server
            await server.process.terminate(0)
            await asyncio.to_thread(self.server_log.drain)
            errors = self.server_log.last_errors()
            if "already in use" not in errors or attempt == PORT_ATTEMPTS:
                raise StartFailed(f"tritonserver {trouble}. Its last errors: {errors or 'none'}")
            log.warning("triton_port_taken", attempt=attempt, errors=errors)
            self._ports = Ports()
        raise AssertionError("unreachable")

    async def _spawn(self) -> _Server:
        self._ports = ports = free_ports(self._ports)
        admin_key = secrets.token_urlsafe(24)
        command = server_command(
            server=self._ready.wheel.server,
            repository=self._options.repository,
            backend_directory=self._backend_directory,
            library_directories=[self._layout.libraries, self._ready.wheel.libraries],
            instances=self._layout.instances,
            work=self._layout.work,
            ports=ports,
            server_id="embedded",
            admin_key=admin_key,
            shm_prefix=self._prefix,
            exit_timeout_s=self._options.exit_timeout_s,
            gpu=self._ready.gpu,
            extra_arguments=self._options.extra_arguments,
            environ=os.environ,
        )
        output, read_output = self.server_log.open_pipe()
        try:
            process = await TritonProcess.spawn(command, output=output)
        finally:
            os.close(output)
        read_output(process.pid)
        endpoint = TritonEndpoint(
            http_url=f"{LOOPBACK}:{ports.http}",
            grpc_url=f"{LOOPBACK}:{ports.grpc}",
            metrics_url=f"{LOOPBACK}:{ports.metrics}",
            admin_key=admin_key,
        )
        return _Server(process, endpoint, time.monotonic())

    async def _until_live(self, server: _Server) -> None:
        """Return once the server answers on ports that are its own."""
        ports = self._ports.all()
        async with _probe_client(self._options.probe_timeout_s) as client:
            while server.process.returncode is None:
                if await _is_live(client, server.endpoint) and server.process.listens_on(ports):
                    return
                await asyncio.sleep(READY_POLL_S)
        raise StartFailed(f"ended while starting: {describe_exit(server.process.returncode)}")

    async def _supervise(self) -> None:
        deaths = 0
        while True:
            assert self._server is not None
            server = self._server
            reason = await self._until_death(server)
            self._server = None
            lived_s = time.monotonic() - server.started
            log.error(
                "triton_died", reason=reason, pid=server.process.pid, lived_s=round(lived_s, 1)
            )
            self._listener.went_down(reason)
            deaths = early_deaths(deaths, lived_s)
            deaths, self._server = await self._bring_back(deaths)
            self.restarts += 1
            self._notify(self._listener.came_up(self._server.endpoint))

    async def _bring_back(self, deaths: int) -> tuple[int, _Server]:
        """Start until it works; return the number of early deaths by then, and the server."""
        while True:
            delay_s = restart_delay_s(deaths)
            if delay_s:
                log.warning("triton_restart_delayed", delay_s=delay_s, early_deaths=deaths)
            await asyncio.sleep(delay_s)
            await asyncio.to_thread(self._sweep)
            await asyncio.to_thread(self._layout.clear_runtime_files)
            try:
                return deaths, await self._launch()
            except (StartFailed, OSError) as error:
                log.error("triton_start_failed", error=str(error))
                deaths += 1

    async def _until_death(self, server: _Server) -> str:
        """Watch until the process has ended; return why, for people."""
        watches = [
            asyncio.create_task(self._watch_processes(server)),
            asyncio.create_task(self._watch_liveness(server)),
        ]
        ended = asyncio.create_task(server.process.wait())
        try:
            # A watch returns only by a fault of ours; that must not go unseen.
            await asyncio.wait([ended, *watches], return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                server.kill(_fault_of(watches))
            returncode = await ended
        finally:
            for task in (ended, *watches):
                task.cancel()
            await asyncio.wait([ended, *watches])
        server.process.kill()  # the stubs that it left
        return server.kill_reason or describe_exit(returncode)

    async def _watch_processes(self, server: _Server) -> None:
        stubs = StubWatch(self._layout.instances)
        halted_since: float | None = None
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            now = time.monotonic()
            if server.process.returncode is not None:
                continue  # its stubs end with it; `_until_death` is about to end this watch
            if not server.process.is_stopped():
                halted_since = None
            elif halted_since is None:
                halted_since = now
            elif now - halted_since >= self._options.halted_s:
                server.kill(f"was halted for {now - halted_since:.1f} s")
                continue
            for lost in stubs.look(now):
                log.error(
                    "triton_stub_lost",
                    model=lost.stub.model,
                    version=lost.stub.version,
                    detail=lost.detail,
                )
                self._listener.stub_lost(lost.stub.model, lost.stub.version, lost.detail)

    async def _watch_liveness(self, server: _Server) -> None:
        failures = 0
        async with _probe_client(self._options.probe_timeout_s) as client:
            while True:
                await asyncio.sleep(self._options.probe_interval_s)
                failures = 0 if await _is_live(client, server.endpoint) else failures + 1
                if failures >= self._options.probe_failures:
                    server.kill(f"did not answer {failures} times")

    def _notify(self, call: Coroutine[Any, Any, None]) -> None:
        """Let the listener work beside the watch, which must go on meanwhile."""
        task = asyncio.create_task(call)
        self._notices.add(task)
        task.add_done_callback(self._notices.discard)
        task.add_done_callback(_report_fault)


def _probe_client(timeout_s: float) -> httpx.AsyncClient:
    """Return a client that keeps no connection: an open one would hold up the server's exit."""
    return httpx.AsyncClient(
        timeout=timeout_s,
        trust_env=False,
        verify=False,  # noqa: S501 - plain HTTP on loopback; spares the loading of certificates
        limits=httpx.Limits(max_keepalive_connections=0),
    )


async def _is_live(client: httpx.AsyncClient, endpoint: TritonEndpoint) -> bool:
    try:
        answer = await client.get(f"http://{endpoint.http_url}/v2/health/live")
    except httpx.HTTPError:
        return False
    return answer.status_code == httpx.codes.OK


def _fault_of(watches: list[asyncio.Task[None]]) -> str:
    faults = [watch.exception() for watch in watches if watch.done() and not watch.cancelled()]
    for fault in faults:
        log.error("triton_watch_failed", exc_info=fault)
    return f"the watch over it failed: {faults}"


def _report_fault(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (fault := task.exception()) is not None:
        log.error("triton_listener_failed", exc_info=fault)


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


def _forward(record: LogRecord) -> None:
    """Pass a warning or error of the server on to our log."""
    level = log.warning if record.level == "warning" else log.error
    level("triton_log", source=record.source, message=record.message)
