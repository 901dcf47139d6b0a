"""
`gateway setup-triton`: install the server that the embedded Triton runs.

Its wheel, nvidia-pytriton, cannot be a dependency: it pins numpy below 2, and only its binaries are
used. So exactly the release that the gateway is tested with is installed beside it, with --no-deps,
into the environment that runs this.
"""

import importlib
import importlib.util
import platform
import shutil
import subprocess
import sys

from rich.console import Console

from gateway.cli.configured import fail
from gateway.triton.embedded.installation import PINNED_VERSION, WHEEL, find_wheel
from gateway.triton.embedded.preflight import check_platform

_REQUIREMENT = f"{WHEEL}=={PINNED_VERSION}"


def run_setup_triton() -> None:
    """Install the pinned wheel unless it is there; a failure is one line and exit code 1."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    wheel = find_wheel()
    if wheel is not None and wheel.version == PINNED_VERSION:
        console.print(f"{WHEEL} {wheel.version} is installed.")
        return
    console.print(f"Installing {_REQUIREMENT} into {sys.prefix}.", markup=False)
    install()
    console.print(f"{WHEEL} {PINNED_VERSION} is installed.")


def ensure_triton() -> None:
    """Install the wheel if there is none, after saying so: `serve` cannot start without it."""
    if find_wheel() is None and check_platform(*_machine()).ok:
        run_setup_triton()


def install() -> None:
    """Run the installer with its progress bar on standard error."""
    platform_found = check_platform(*_machine())
    if not platform_found.ok:
        fail(f"{platform_found.detail}: {WHEEL} has no binaries for it. {platform_found.fix}.")
    command = _installer()
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    importlib.invalidate_caches()
    if done.returncode != 0 or find_wheel() is None:
        fail(f"{_REQUIREMENT} could not be installed; this is the command: {' '.join(command)}")


def _installer() -> list[str]:
    """Return the command of pip, or of uv where the environment has no pip."""
    if importlib.util.find_spec("pip") is not None:
        quiet = ["--disable-pip-version-check", "--root-user-action=ignore", "--no-input"]
        return [sys.executable, "-m", "pip", "install", *quiet, "--no-deps", _REQUIREMENT]
    uv = shutil.which("uv")
    if uv is None:
        fail(
            f"This environment has neither pip nor uv. Install {_REQUIREMENT} without its "
            "dependencies."
        )
    return [uv, "pip", "install", "--python", sys.executable, "--no-deps", _REQUIREMENT]


def _machine() -> tuple[str, str, str]:
    return sys.platform, platform.machine(), platform.libc_ver()[0]
