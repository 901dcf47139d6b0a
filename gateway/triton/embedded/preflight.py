"""
Can the embedded Triton run here? Asked before every start, because the worst answer of Triton is
none: with a stub that cannot start, a load hangs for ever. Each finding says what was seen and,
where it is not good, how to mend it; `gateway doctor` shows them all.

The two slow checks start a process each. Their result is kept in a stamp file with what they depend
on, so that the next start skips them.
"""

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from gateway.triton.embedded.errors import PreflightFailed
from gateway.triton.embedded.installation import (
    PINNED_VERSION,
    PYTHON,
    SONAME,
    WHEEL,
    Wheel,
    find_libpython,
    find_wheel,
)
from gateway.triton.embedded.layout import Layout
from gateway.triton.embedded.orphans import SHARED_MEMORY

# The server hands paths to a shell, unquoted.
SAFE_PATH = re.compile(r"[A-Za-z0-9_./:@%+=,-]+")
LEAST_SHARED_MEMORY_BYTES = 64 * 1024 * 1024
STUB_TIMEOUT_S = 10
IMPORT_TIMEOUT_S = 60
# Exit status of a stub that started, and missed its arguments.
STUB_USAGE_STATUS = 1
ASK_ONNXRUNTIME = "gateway.triton.embedded.execution_providers"
CUDA = "CUDAExecutionProvider"
GPU_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; `fix` is empty where `ok`."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Ready:
    """What a start needs to know of the installation."""

    wheel: Wheel
    libpython: Path
    gpu: bool


def preflight(data_dir: Path, repository: Path | str) -> list[Finding]:
    """Run every check whose ground is there; never raises for what it finds."""
    findings, _ = _run(Layout(data_dir / "triton"), data_dir, repository)
    return findings


def require_ready(data_dir: Path, repository: Path | str) -> Ready:
    """
    Run the checks before a start.

    Raises:
        PreflightFailed: One line for the first thing that is not good, with its fix.
    """
    findings, ready = _run(Layout(data_dir / "triton"), data_dir, repository)
    for finding in findings:
        if not finding.ok:
            raise PreflightFailed(f"{finding.name}: {finding.detail}. {finding.fix}")
    assert ready is not None  # nothing was found wrong
    return ready


def _run(
    layout: Layout, data_dir: Path, repository: Path | str
) -> tuple[list[Finding], Ready | None]:
    findings = [
        check_platform(sys.platform, platform.machine(), platform.libc_ver()[0]),
        check_path("data directory", str(data_dir.resolve())),
        check_path("model repository", str(repository)),
        check_shared_memory(SHARED_MEMORY),
    ]
    wheel = find_wheel()
    findings.append(check_wheel(wheel))
    if wheel is None or not findings[-1].ok:
        return findings, None
    libpython = find_libpython(wheel)
    findings += [check_stub(wheel), check_libpython(libpython)]
    if libpython is None or not all(finding.ok for finding in findings[-2:]):
        return findings, None
    slow, providers = _slow_checks(layout.stamp, wheel, libpython)
    findings += slow
    return findings, Ready(wheel, libpython, CUDA in providers)


def check_platform(system: str, machine: str, libc: str) -> Finding:
    """Triton's binaries are for Linux on x86_64, with glibc."""
    ok = (system, machine, libc) == ("linux", "x86_64", "glibc")
    return Finding(
        "platform",
        ok,
        f"{system} {machine} {libc or 'no glibc'}",
        "" if ok else "Use Linux x86_64 with glibc, or name remote servers in TRITON_URLS",
    )


def check_path(name: str, path: str) -> Finding:
    """Only characters that mean nothing to a shell."""
    ok = SAFE_PATH.fullmatch(path) is not None
    return Finding(
        name,
        ok,
        repr(path)[1:-1],
        "" if ok else "Choose a path of letters, digits and _ . / - only, without blanks",
    )


def check_shared_memory(directory: Path) -> Finding:
    """Tensors pass between the server and its stubs through /dev/shm."""
    try:
        status = os.statvfs(directory)
    except OSError as error:
        return Finding("shared memory", False, str(error), f"Mount a tmpfs on {directory}")
    free = status.f_bavail * status.f_frsize
    ok = free >= LEAST_SHARED_MEMORY_BYTES
    return Finding(
        "shared memory",
        ok,
        f"{free // 2**20} MiB free in {directory}",
        "" if ok else "Give the container more, such as --shm-size=1g, or remove what fills it",
    )


def check_wheel(wheel: Wheel | None) -> Finding:
    """The wheel is there, with its binaries."""
    fix = f"Run gateway setup-triton, or pip install --no-deps {WHEEL}=={PINNED_VERSION}"
    if wheel is None:
        return Finding("triton", False, f"{WHEEL} is not installed", fix)
    ok = os.access(wheel.server, os.X_OK) and wheel.libraries.is_dir()
    detail = f"{WHEEL} {wheel.version}" + ("" if ok else " lacks its binaries")
    return Finding("triton", ok, detail, "" if ok else fix)


def check_stub(wheel: Wheel) -> Finding:
    """The wheel has a stub for this Python."""
    ok = wheel.stub.exists()
    versions = ", ".join(wheel.stub_versions)
    return Finding(
        "python",
        ok,
        f"Python {platform.python_version()}"
        + ("" if ok else f": {WHEEL} {wheel.version} has stubs for {versions} only"),
        "" if ok else "Make the virtual environment with one of these versions",
    )


def check_libpython(library: Path | None) -> Finding:
    """The stub embeds the interpreter: it needs it as a shared library."""
    return Finding(
        "libpython",
        library is not None,
        str(library) if library else f"{SONAME} is nowhere to be found",
        ""
        if library
        else f"Install it (Debian, Ubuntu: apt install libpython{PYTHON}; "
        "pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared)",
    )


def check_stub_starts(wheel: Wheel, libpython: Path) -> Finding:
    """Run the stub without arguments: it must come as far as to miss them."""
    search = f"{libpython.parent}:{wheel.libraries}"
    status, said = _try([str(wheel.stub)], STUB_TIMEOUT_S, {"LD_LIBRARY_PATH": search})
    ok = status == STUB_USAGE_STATUS
    return Finding(
        "stub",
        ok,
        "starts" if ok else f"does not start: {said}",
        "" if ok else f"See that {SONAME} and {WHEEL} are of this machine's architecture and whole",
    )


def check_onnxruntime() -> tuple[Finding, list[str]]:
    """Import onnxruntime as the stub will; return the execution providers that work, too."""
    status, said = _try([sys.executable, "-m", ASK_ONNXRUNTIME], IMPORT_TIMEOUT_S, {})
    version, *providers = said.split() if status == 0 else ("",)
    ok = bool(version)
    detail = f"{version} ({', '.join(providers)})" if ok else f"cannot be imported: {said}"
    if ok and GPU_DRIVER.exists() and CUDA not in providers:
        detail += ", so models run on the CPU although this machine has a GPU"
    return Finding("onnxruntime", ok, detail, "" if ok else "Install onnxruntime again"), providers


def _slow_checks(stamp: Path, wheel: Wheel, libpython: Path) -> tuple[list[Finding], list[str]]:
    key = _key(wheel, libpython)
    known = _read_stamp(stamp, key)
    if known is not None:
        return known
    imported, providers = check_onnxruntime()
    findings = [check_stub_starts(wheel, libpython), imported]
    if all(finding.ok for finding in findings):
        _write_stamp(stamp, key, findings, providers)
    return findings, providers


def _key(wheel: Wheel, libpython: Path) -> str:
    seen = [sys.version, sys.executable, wheel.version, metadata.version("numpy")]
    seen += [each.version for each in metadata.distributions() if _is_onnxruntime(each)]
    for path in filter(Path.exists, (wheel.stub, libpython, GPU_DRIVER)):
        status = path.stat()
        seen.append(f"{path} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(seen).encode()).hexdigest()


def _is_onnxruntime(distribution: metadata.Distribution) -> bool:
    return (distribution.name or "").lower().startswith("onnxruntime")


def _read_stamp(stamp: Path, key: str) -> tuple[list[Finding], list[str]] | None:
    try:
        stored = json.loads(stamp.read_bytes())
        if stored["key"] != key:
            return None
        return [Finding(**finding) for finding in stored["findings"]], stored["providers"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # absent, or of another release: ask again


def _write_stamp(stamp: Path, key: str, findings: list[Finding], providers: list[str]) -> None:
    written = [{"name": each.name, "ok": each.ok, "detail": each.detail} for each in findings]
    draft = stamp.with_suffix(".tmp")
    try:
        stamp.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps({"key": key, "findings": written, "providers": providers}))
        draft.rename(stamp)
    except OSError:
        draft.unlink(missing_ok=True)  # only the next start is slower for it


def _try(argv: list[str], timeout_s: float, env: Mapping[str, str]) -> tuple[int | None, str]:
    """Run; return the exit status (None: it hung) and the last line it said."""
    env = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", **env}
    try:
        done = subprocess.run(
            argv,
            env=env,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return None, f"no answer within {timeout_s} s"
    except OSError as error:
        return None, str(error)
    said = done.stdout if done.returncode == 0 else done.stdout + done.stderr
    lines = said.strip().splitlines()
    return done.returncode, lines[-1] if lines else f"exit status {done.returncode}"
