"""Load: `wrk`, one thread, a closed loop of so many connections; and what it says."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = Path(__file__).with_name("run.lua")
_TIMEOUT_S = 60


class LoadFailedError(Exception):
    """wrk is missing, or said something else than expected."""


@dataclass(frozen=True)
class Load:
    """One run of wrk. Errors are answers of 400 and above, and those of sockets and time-outs."""

    requests: int
    duration_s: float
    p50_ms: float
    p99_ms: float
    errors: int

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.duration_s


def ensure_wrk() -> None:
    """Install wrk by apt-get where it is missing and this user may; say so otherwise."""
    if shutil.which("wrk"):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "update", "-q"], check=True)
        subprocess.run(["apt-get", "install", "-y", "-q", "wrk"], check=True)
        return
    raise LoadFailedError("wrk is missing: apt-get install wrk (https://github.com/wg/wrk)")


def run_load(url: str, body: Path, *, concurrency: int, seconds: int) -> Load:
    """Send the body over and over for so many seconds."""
    return read_load(run_script(_SCRIPT, url, body, concurrency=concurrency, seconds=seconds))


def run_script(
    script: Path, url: str, body: Path, *, concurrency: int, seconds: int
) -> dict[str, float]:
    """Run wrk with a script that writes its result as one line, RESULT and a JSON object."""
    done = subprocess.run(
        [
            *("wrk", "-t1", f"-c{concurrency}", f"-d{seconds}s"),
            *(f"--timeout={_TIMEOUT_S}s", "-s", str(script), url),
        ],
        env={**os.environ, "BENCH_BODY": str(body)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode != 0 or not said:
        raise LoadFailedError(f"wrk {url}: {done.stdout}{done.stderr}")
    result: dict[str, float] = json.loads(said[0].removeprefix("RESULT "))
    return result


def read_load(summary: dict[str, float]) -> Load:
    """Read the line that run.lua writes."""
    return Load(
        requests=int(summary["requests"]),
        duration_s=summary["duration_us"] / 1e6,
        p50_ms=summary["p50_us"] / 1e3,
        p99_ms=summary["p99_us"] / 1e3,
        errors=int(summary["refused"] + summary["socket_errors"]),
    )
