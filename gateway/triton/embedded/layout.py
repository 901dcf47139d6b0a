"""
The directory `<data_dir>/triton`, everything that the embedded server needs on disk.

    lock              held by the one live gateway that owns this directory
    backends/<key>/onnxruntime/   a copy of the Python backend, this interpreter's stub, and ours
    libraries/        links by which the loader finds libpython
    work/             the server's working directory; empty, or the stub would import from it
    instances/        one file per live model instance, named after its pid
    admin-key         the secret of the server's calls, for whoever may read it: its owner
    tritonserver.log  the server's output, bounded and rotated
    preflight.json    what the last successful preflight looked at

The backend is a copy because Triton refuses a library that is a link to elsewhere, and because it
takes the stub's read permission away when a start fails. A copy appears under its key by one
rename, so that it is whole or absent.
"""

import hashlib
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from gateway.triton.embedded.installation import PYTHON, SONAME, Wheel

BACKEND = "onnxruntime"
BACKEND_SOURCES = Path(__file__).parent / "backends" / BACKEND
BACKEND_MODULES = ("model.py", "encoded.py", "load_checks.py", "parameters.py", "session.py")
_KEY_LENGTH = 12


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths below one root; `prepare` makes them so."""

    root: Path

    @property
    def lock(self) -> Path:
        """File whose flock says that the directory is in use."""
        return self.root / "lock"

    @property
    def backends(self) -> Path:
        """Parent of the backend directories; each is named by its key."""
        return self.root / "backends"

    @property
    def libraries(self) -> Path:
        """Links to shared libraries, first in LD_LIBRARY_PATH."""
        return self.root / "libraries"

    @property
    def work(self) -> Path:
        """The server's working directory."""
        return self.root / "work"

    @property
    def instances(self) -> Path:
        """Presence files of the model instances."""
        return self.root / "instances"

    @property
    def log(self) -> Path:
        """The server's output."""
        return self.root / "tritonserver.log"

    @property
    def admin_key(self) -> Path:
        """The secret of the server that runs."""
        return self.root / "admin-key"

    @property
    def stamp(self) -> Path:
        """What the last successful preflight looked at."""
        return self.root / "preflight.json"

    def make(self) -> None:
        """Make the directories; what is there stays."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        for directory in (self.backends, self.libraries, self.work, self.instances):
            directory.mkdir(exist_ok=True)

    def prepare(self, wheel: Wheel, libpython: Path) -> Path:
        """
        Bring everything into place for a start. Only the holder of the lock may call this.

        Returns:
            The backend directory to start the server with.
        """
        self.make()
        self.clear_runtime_files()
        for name in {SONAME, (wheel.own_libpython or libpython).name}:
            _link(libpython, self.libraries / name)
        return self._install_backend(wheel)

    def clear_runtime_files(self) -> None:
        """Empty the working directory and forget the instances of a server that is gone."""
        for directory in (self.work, self.instances):
            for entry in directory.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()

    def _install_backend(self, wheel: Wheel) -> Path:
        sources = _backend_sources(wheel)
        key = _key(wheel, sources)
        installed = self.backends / key
        for other in self.backends.iterdir():
            if other != installed:
                shutil.rmtree(other)
        if not installed.exists():
            draft = self.backends / f".{uuid.uuid4().hex}"
            (draft / BACKEND).mkdir(parents=True)
            for source in sources:
                shutil.copy2(source, draft / BACKEND / source.name)
            draft.rename(installed)
        (installed / BACKEND / wheel.stub.name).chmod(0o755)
        return installed


def shm_prefix(root: Path) -> str:
    """
    Return the prefix of this directory's shared-memory regions, the same at every start.

    It stands in the command line of the server and of every stub, which is how orphans are told
    from the processes of others. Inode and device are part of it, so that two containers with the
    same paths and a common /dev/shm, or a copied directory, do not share one.
    """
    status = root.stat()
    identity = f"{root.resolve()}\n{status.st_dev}\n{status.st_ino}"
    return f"gwtriton_{hashlib.sha256(identity.encode()).hexdigest()[:_KEY_LENGTH]}_"


def _backend_sources(wheel: Wheel) -> list[Path]:
    return [
        wheel.python_backend / "libtriton_python.so",
        wheel.python_backend / "triton_python_backend_utils.py",
        wheel.stub,
        *(BACKEND_SOURCES / name for name in BACKEND_MODULES),
    ]


def _key(wheel: Wheel, sources: list[Path]) -> str:
    """Return a name that changes with the wheel, the Python version and our backend's text."""
    digest = hashlib.sha256(f"{wheel.version} {wheel.root} {PYTHON}".encode())
    for source in sources:
        if source.suffix == ".py":
            digest.update(source.read_bytes())
        else:
            status = source.stat()
            digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:_KEY_LENGTH]


def _link(target: Path, link: Path) -> None:
    if link.is_symlink() and Path(os.readlink(link)) == target:  # noqa: PTH115 - not resolved
        return
    draft = link.with_name(f".{uuid.uuid4().hex}")
    draft.symlink_to(target)
    draft.rename(link)
