"""Where and with what the figures came to be."""

import datetime as dt
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import psutil

_PACKAGES = (
    "fastapi",
    "uvicorn",
    "onnxruntime",
    "pillow",
    "simplejpeg",
    "pybase64",
    "numpy",
    "nvidia-pytriton",
)


def describe(checkout: Path, program: str) -> dict[str, object]:
    """Give processor, memory, kernel, load, versions, commit, command and time."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average_before": [round(value, 2) for value in os.getloadavg()],
        "versions": {name: version(name) for name in _PACKAGES},
        "commit": _commit(checkout),
        "command": " ".join(["python -m", program, *sys.argv[1:]]),
        "began": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _commit(checkout: Path) -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"
