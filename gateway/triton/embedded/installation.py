"""
Where the pieces of an embedded Triton lie on this machine: the binaries of the nvidia-pytriton
wheel (never imported, it wants an old numpy) and the libpython that this Python's stub loads.
"""

import importlib.metadata
import importlib.util
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

WHEEL = "nvidia-pytriton"
# The release that everything here is tested with.
PINNED_VERSION = "0.7.0"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
SONAME = f"libpython{PYTHON}.so.1.0"


@dataclass(frozen=True, slots=True)
class Wheel:
    """
    The binaries of one installed nvidia-pytriton.

    Attributes:
        version: The wheel's version.
        root: `pytriton/tritonserver`: bin/, backends/, python_backend_stubs/.
        libraries: The shared libraries that came with the wheel.
    """

    version: str
    root: Path
    libraries: Path

    @property
    def server(self) -> Path:
        """The tritonserver executable."""
        return self.root / "bin" / "tritonserver"

    @property
    def python_backend(self) -> Path:
        """The directory of libtriton_python.so."""
        return self.root / "backends" / "python"

    @property
    def stub(self) -> Path:
        """The stub of the running Python version (it may not exist)."""
        return self.root / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"

    @property
    def stub_versions(self) -> list[str]:
        """The Python versions that the wheel has a stub for, oldest first."""
        found = [path.parent.name for path in self.root.glob("python_backend_stubs/*/*_stub")]
        return sorted(found, key=lambda version: [int(part) for part in version.split(".")])

    @property
    def own_libpython(self) -> Path | None:
        """The libpython that came with the wheel for the running version, under its mangled name.

        That name is what the stub asks the loader for (3.13); the other stubs ask for SONAME.
        """
        major, minor = PYTHON.split(".")
        return next(self.libraries.glob(f"libpython{major}-*.{minor}.so.1.0"), None)


def find_wheel() -> Wheel | None:
    """Return the installed wheel, or None."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        return None
    package = Path(spec.submodule_search_locations[0])
    return Wheel(
        version=importlib.metadata.version(WHEEL),
        root=package / "tritonserver",
        libraries=package.parent / "nvidia_pytriton.libs",
    )


def find_libpython(wheel: Wheel) -> Path | None:
    """
    Return the shared library of the running interpreter; of the wheel as a last resort.

    The interpreter's own comes first: a libpython of another patch release than the standard
    library beside it works by luck only.
    """
    directories = [
        sysconfig.get_config_var("LIBDIR"),
        str(Path(sys.base_prefix) / "lib"),
        str(Path("/usr/lib") / (sysconfig.get_config_var("MULTIARCH") or "")),
    ]
    for directory in filter(None, directories):
        library = Path(directory, SONAME)
        if library.exists():
            return library.resolve()
    return _from_loader_cache() or wheel.own_libpython


def _from_loader_cache() -> Path | None:
    try:
        listing = subprocess.run(
            ["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True, timeout=5
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    for line in listing.splitlines():
        if line.strip().startswith(f"{SONAME} "):
            return Path(line.rpartition("=> ")[2].strip())
    return None
