"""
One tritonserver process, from spawn to the last trace of it.

The server leads a session and process group of its own: a Ctrl-C in the terminal does not reach it,
and its stubs, which ignore SIGTERM, die with it by one kill of the group.
"""

import asyncio
import contextlib
import os
import signal
from typing import Self

import psutil
import structlog

from gateway.system.arguments import overwrite_argument
from gateway.system.processes import bound_to_this_process
from gateway.triton.embedded.command import ServerCommand

log = structlog.get_logger(__name__)


class TritonProcess:
    """A running (or ended) tritonserver."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._ps = psutil.Process(process.pid)

    @classmethod
    async def spawn(cls, command: ServerCommand, *, output: int) -> Self:
        """
        Start the server; it dies with the thread that runs this event loop.

        Args:
            command: What to execute.
            output: File descriptor for stdout and stderr; the caller closes its own copy.

        Raises:
            OSError: It cannot be executed.
            psutil.NoSuchProcess: It ended at once.
        """
        process = await asyncio.create_subprocess_exec(
            *bound_to_this_process(),
            *command.argv,
            env=dict(command.env),
            cwd=command.cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            return cls(process)
        except psutil.NoSuchProcess:
            # It is gone already, and with it whatever it had begun.
            await process.wait()
            raise

    @property
    def pid(self) -> int:
        """Process id, which is also the id of its group."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait for the end."""
        return await self._process.wait()

    def has_ended(self) -> bool:
        """Whether it is dead, even if nobody has collected its exit status yet."""
        return self._status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)

    def is_halted(self) -> bool:
        """Whether it is stopped by SIGSTOP or a debugger (states T and t)."""
        return self._status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)

    def _status(self) -> str:
        try:
            return self._ps.status()
        except psutil.NoSuchProcess:
            return psutil.STATUS_DEAD

    def listens_on(self, ports: tuple[int, ...]) -> bool:
        """Whether all of `ports` are its own: a stranger may answer on one of them."""
        try:
            connections = self._ps.net_connections(kind="tcp")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False  # it has ended, or is ending: its files cannot be read any more
        own = {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}
        return own.issuperset(ports)

    def hide(self, secret: str) -> None:
        """
        Overwrite a secret in the command line, as `ps` shows it. Where the kernel forbids that
        (ptrace between a process and its child), it stays and is logged.
        """
        try:
            overwrite_argument(self.pid, secret.encode())
        except OSError as error:
            log.warning("triton_secret_in_ps", pid=self.pid, cause=str(error))

    def kill(self) -> None:
        """SIGKILL the server and its stubs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    async def terminate(self, timeout_s: float) -> bool:
        """
        Stop in order, then by force; nothing of the group is left.

        Returns:
            Whether it ended by itself within `timeout_s`.
        """
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), timeout_s)
        except TimeoutError:
            return False
        finally:
            await self.end()
        return True

    async def end(self) -> None:
        """Kill, and wait for the end."""
        self.kill()
        await self._process.wait()
