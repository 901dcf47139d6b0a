"""
The embedded Triton, kept alive.

The end of the process is seen at once; a halted or silent server is killed; its stubs are looked at
five times a second (`stubs.py`). After a death the rest of the group and its shared memory are
removed and the server is started again, with a growing delay when it keeps dying
(`gateway/background/backoff.py`).

A new server is empty. What should be loaded is known elsewhere, and `came_up` says when to load it.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from gateway.background.backoff import early_deaths, restart_delay_s
from gateway.background.stalls import own_stall
from gateway.background.tasks import TaskSet, log_fault
from gateway.system.processes import describe_exit
from gateway.triton.embedded.errors import StartFailed
from gateway.triton.embedded.liveness import open_probe
from gateway.triton.embedded.options import EmbeddedListener, EmbeddedOptions, Unheard
from gateway.triton.embedded.server_log import LogRecord, ServerLog, clean_reason
from gateway.triton.embedded.starter import Server, Starter
from gateway.triton.embedded.stubs import LostStub, StubWatch
from gateway.triton.endpoint import TritonEndpoint

log = structlog.get_logger(__name__)

LOOK_INTERVAL_S = 0.2
# Less often: to find the children of a server, one asks each of its many threads.
CHILDREN_INTERVAL_S = 1.0
# On top of the server's own timeout, before it is killed.
EXIT_MARGIN_S = 2.0


class EmbeddedTriton:
    """A tritonserver that is a child of this process, restarted when it dies."""

    def __init__(self, options: EmbeddedOptions, listener: EmbeddedListener | None = None) -> None:
        self._options = options
        self._listener: EmbeddedListener = listener or Unheard()
        self._starter: Starter | None = None
        self._server: Server | None = None
        self._supervision: asyncio.Task[None] | None = None
        self._notices = TaskSet()
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
        """The server's log, over all its restarts; between `start` and `stop`."""
        assert self._starter is not None, "not started"
        return self._starter.log

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
        assert self._starter is None, "already started"
        self._starter = await asyncio.to_thread(Starter, self._options, _heard)
        try:
            self._server = await self._starter.launch()
        except BaseException:
            await self.stop(idle=True)
            raise
        self._supervision = asyncio.create_task(
            self._supervise(self._starter, self._server), name="embedded-triton"
        )
        self._supervision.add_done_callback(log_fault)
        return self._server.endpoint

    async def stop(self, *, idle: bool = False) -> None:
        """
        Stop for good; does nothing when nothing runs. Close the HTTP connections before: the server
        waits for them.

        Args:
            idle: Nothing is in flight, so there is nothing to wait for: kill at once. Otherwise the
                server is asked to end, which takes one to three seconds after its last request, and
                killed `exit_timeout_s` later. (After a failed reload of a version that serves,
                Triton never ends by itself.)
        """
        if self._supervision is not None:
            self._supervision.cancel()
            await asyncio.wait([self._supervision])
        await self._notices.close()
        starter, self._starter = self._starter, None
        server, self._server = self._server, None
        self._supervision = None
        if server is not None and idle:
            await server.process.end()
        elif server is not None:
            grace_s = self._options.exit_timeout_s + EXIT_MARGIN_S
            if not await server.process.terminate(grace_s):
                log.warning("triton_killed", reason="did not end in time", grace_s=grace_s)
        if starter is not None:
            await asyncio.to_thread(starter.close)

    async def restart(self, reason: str) -> None:
        """Kill the server for a reason that it cannot see; the supervision brings it back."""
        if self._server is not None:
            self._server.kill(reason)

    async def _supervise(self, starter: Starter, server: Server) -> None:
        deaths = 0
        while True:
            reason = await self._until_death(starter, server)
            self._server = None
            lived_s = time.monotonic() - server.started
            pid = server.process.pid
            log.error("triton_died", reason=reason, pid=pid, lived_s=round(lived_s, 1))
            self._tell(self._listener.went_down, reason)
            deaths, server = await self._bring_back(starter, early_deaths(deaths, lived_s))
            self._server = server
            self.restarts += 1
            # Beside the watch, which must go on meanwhile.
            self._notices.start(
                self._listener.came_up(server.endpoint), name="embedded-triton-listener"
            )

    async def _bring_back(self, starter: Starter, deaths: int) -> tuple[int, Server]:
        """Start until it works; return the number of early deaths by then, and the server."""
        while True:
            delay_s = restart_delay_s(deaths)
            if delay_s:
                log.warning("triton_restart_delayed", delay_s=delay_s, early_deaths=deaths)
            await asyncio.sleep(delay_s)
            try:
                await asyncio.to_thread(starter.sweep)
                return deaths, await starter.launch()
            except (StartFailed, OSError) as error:
                log.error("triton_start_failed", error=str(error))  # noqa: TRY400 - it is expected
                deaths += 1
            except Exception:
                # Nobody else would bring the server back.
                log.exception("triton_start_failed")
                deaths += 1

    async def _until_death(self, starter: Starter, server: Server) -> str:
        """Watch until the process has ended; return why, for people."""
        ended = asyncio.create_task(server.process.wait())
        watches = [
            asyncio.create_task(self._watch_processes(starter, server)),
            asyncio.create_task(self._watch_liveness(server)),
        ]
        try:
            await asyncio.wait([ended, *watches], return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                # A watch ends by a fault of ours only; without it the server would go unwatched.
                faults = [watch.exception() for watch in watches if watch.done()]
                log.error("triton_watch_failed", exc_info=faults[0])
                server.kill(f"the watch over it failed: {faults[0]!r}")
            returncode = await ended
        finally:
            for task in (ended, *watches):
                task.cancel()
            await asyncio.wait([ended, *watches])
        server.process.kill()  # the stubs that it left
        return server.kill_reason or describe_exit(returncode)

    async def _watch_processes(self, starter: Starter, server: Server) -> None:
        stubs = StubWatch(starter.layout.instances, replaced_s=self._options.replaced_s)
        halted_since: float | None = None
        children_at = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            now = time.monotonic()
            if server.process.has_ended():
                continue  # its stubs end with it, and so does, in a moment, this watch
            if not server.process.is_halted():
                halted_since = None
            elif halted_since is None:
                halted_since = now
            elif now - halted_since >= self._options.halted_s:
                server.kill(f"was halted for {now - halted_since:.1f} s")
                continue
            if now - children_at >= CHILDREN_INTERVAL_S:
                children_at = now
                pid = await asyncio.to_thread(stubs.stillborn, server.process.pid, now)
                if pid is not None:
                    server.kill(f"a load hangs: stub {pid} died while it started")
                    continue
                for stub in stubs.end_replaced(now):
                    log.warning("triton_stub_left", model=stub.model, version=stub.version)
            if found := stubs.look(now):
                await self._tell_lost(server, found)

    async def _tell_lost(self, server: Server, found: Sequence[LostStub]) -> None:
        # A server that is killed takes its stubs along, and they can be gone a moment before it is:
        # that is the end of a server, and no loss of a stub.
        await asyncio.sleep(LOOK_INTERVAL_S)
        if server.process.has_ended():
            return
        for lost in found:
            model, version = lost.stub.model, lost.stub.version
            log.error("triton_stub_lost", model=model, version=version, detail=lost.detail)
            self._tell(self._listener.stub_lost, model, version, lost.detail)

    async def _watch_liveness(self, server: Server) -> None:
        failures = 0
        async with open_probe(self._options.probe_timeout_s) as probe:
            while True:
                await asyncio.sleep(self._options.probe_interval_s)
                with own_stall() as stall:
                    is_live = await probe.is_live(server.endpoint)
                if not is_live and stall.explains(self._options.probe_timeout_s):
                    continue
                failures = 0 if is_live else failures + 1
                if failures >= self._options.probe_failures:
                    server.kill(f"did not answer {failures} times in a row")

    def _tell(self, listener: Callable[..., None], *news: Any) -> None:
        """Tell on the event loop, in order; a fault of the listener does not stop the watch."""
        asyncio.get_running_loop().call_soon(listener, *news)


def _heard(record: LogRecord) -> None:
    """Pass on a warning or error of the server; called in the thread that reads its log."""
    tell = log.warning if record.level == "warning" else log.error
    tell("triton_log", source=record.source, message=clean_reason(record.message))
