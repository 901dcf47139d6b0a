"""
Run a module in a process of its own: a session and process group of its own, a clean environment,
nothing inherited but what is named, a deadline, and an end for the whole group whatever happens.

What the process has to say it writes into a folder; what it prints goes into a file there, so that
no pipe has to be read while it runs and nothing of it is held in memory.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.errors import StorageFull
from gateway.system.full_disk import NO_SPACE_EXIT, storage_full

_LOG_FILE = "log.txt"
_LOG_TAIL_BYTES = 8192
_INHERITED = frozenset({"PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TZ"})


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: exit code (-N: killed by signal N), or the deadline; last words."""

    code: int
    timed_out: bool
    log: str


async def run_child(
    module: str,
    request: Mapping[str, Any],
    *,
    folder: Path,
    timeout_s: float,
    keep_open: Sequence[int] = (),
) -> Ended:
    """
    Run `python -I -m module` with a JSON request on standard input, and wait for its end.

    Args:
        module: The module.
        request: What it reads.
        folder: An existing folder; its working directory and home.
        timeout_s: After this long it is killed, with every process it started.
        keep_open: Descriptors that it shares.

    Raises:
        StorageFull: It had no space for what it has to say.
    """
    environment = {
        **{key: value for key, value in os.environ.items() if key in _INHERITED},
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "ORT_DISABLE_TELEMETRY": "1",
    }
    log = folder / _LOG_FILE
    with storage_full():
        output = log.open("wb")
    with output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-m",
            module,
            stdin=asyncio.subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=folder,
            env=environment,
            start_new_session=True,
            pass_fds=tuple(keep_open),
        )
    timed_out = False
    try:
        async with asyncio.timeout(timeout_s):
            await process.communicate(json.dumps(request).encode())
    except TimeoutError:
        timed_out = True
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        code = await asyncio.shield(process.wait())
    if code == NO_SPACE_EXIT:
        raise StorageFull("No space is left in the repository; nothing was changed.")
    return Ended(code, timed_out, _tail(log))


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _LOG_TAIL_BYTES))
        return file.read().decode(errors="replace")
