"""A real PostgreSQL: a cluster in a temporary folder, on a Unix socket."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil


def find_binaries() -> Path | None:
    """Find where PostgreSQL's programs are: newest version first, then PATH."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    if installed:
        return installed[0].parent
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


class PostgresServer:
    """A cluster in `folder`; it may be stopped and started again."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self._folder = folder
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            # It refuses to run as root.
            user = pwd.getpwnam("postgres")
            os.chown(folder, user.pw_uid, user.pw_gid)
            ids = f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}"
            self._as_user = ["setpriv", *ids, "--clear-groups"]
        self.socket = folder / ".s.PGSQL.5432"
        self.url = f"postgresql://gateway@/postgres?host={folder}"
        self._run("initdb", "-D", folder / "data", "-U", "gateway", "-A", "trust", "--no-sync")

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-c listen_addresses= -c unix_socket_directories={self._folder} -c fsync=off"
        self._control("-o", options, "-l", self._folder / "log", "start")

    def stop(self) -> None:
        """End it at once, as a crash would."""
        self._control("-m", "immediate", "stop")

    @contextlib.contextmanager
    def halted(self) -> Iterator[None]:
        """Let it answer nobody for the length of the block, as a network that lost it would."""
        server = psutil.Process(int((self._folder / "data/postmaster.pid").read_text().split()[0]))
        processes = [server, *server.children()]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()

    def _control(self, *arguments: str | Path) -> None:
        self._run("pg_ctl", "-D", self._folder / "data", "-w", *arguments)

    def _run(self, program: str, *arguments: str | Path) -> None:
        command = [*self._as_user, self._binaries / program, *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=self._folder)


@contextlib.contextmanager
def running_postgres_server(binaries: Path) -> Iterator[PostgresServer]:
    """Run a server that the test may stop and start."""
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        server = PostgresServer(binaries, Path(name))
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def running_postgres(binaries: Path) -> Iterator[str]:
    """Run a server; yields the SQLAlchemy URL of an empty database."""
    with running_postgres_server(binaries) as server:
        yield server.url
