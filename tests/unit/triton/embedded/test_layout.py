import os
import stat
from pathlib import Path

import pytest

from gateway.triton.embedded.installation import Wheel, find_libpython, find_wheel
from gateway.triton.embedded.layout import BACKEND, Layout, shm_prefix


@pytest.fixture
def wheel() -> Wheel:
    found = find_wheel()
    assert found is not None
    return found


def prepare(layout: Layout, wheel: Wheel) -> Path:
    libpython = find_libpython(wheel)
    assert libpython is not None
    return layout.prepare(wheel, libpython)


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(root)): (path.lstat().st_ino, path.lstat().st_mtime_ns)
        for path in root.rglob("*")
        if not path.is_dir()
    }


def test_twice_is_once(tmp_path: Path, wheel: Wheel) -> None:
    """A second preparation changes no file."""
    layout = Layout(tmp_path)
    backends = prepare(layout, wheel)
    before = snapshot(tmp_path)
    assert prepare(layout, wheel) == backends
    assert snapshot(tmp_path) == before


def test_the_backend_is_whole(tmp_path: Path, wheel: Wheel) -> None:
    """The library is a real file, the stub executable, our modules beside them, nothing else."""
    backend = prepare(Layout(tmp_path), wheel) / BACKEND
    library = backend / "libtriton_python.so"
    assert stat.S_ISREG(library.lstat().st_mode)
    assert os.access(backend / "triton_python_backend_stub", os.X_OK)
    assert {path.name for path in backend.iterdir()} == {
        "libtriton_python.so",
        "triton_python_backend_stub",
        "triton_python_backend_utils.py",
        "model.py",
        "encoded.py",
        "load_checks.py",
        "parameters.py",
        "session.py",
    }


def test_other_versions_are_removed(tmp_path: Path, wheel: Wheel) -> None:
    """What an older release, or a copy that was cut off, left is taken away."""
    layout = Layout(tmp_path)
    layout.make()
    (layout.backends / "0123456789ab" / BACKEND).mkdir(parents=True)
    (layout.backends / ".cut-off" / BACKEND).mkdir(parents=True)
    installed = prepare(layout, wheel)
    assert list(layout.backends.iterdir()) == [installed]


def test_a_spoilt_stub_is_mended(tmp_path: Path, wheel: Wheel) -> None:
    """Triton takes the stub's permissions away after a failed start; the next start needs them."""
    layout = Layout(tmp_path)
    stub = prepare(layout, wheel) / BACKEND / "triton_python_backend_stub"
    stub.chmod(0o100)
    prepare(layout, wheel)
    assert stat.S_IMODE(stub.stat().st_mode) == 0o755


def test_the_working_directory_is_emptied(tmp_path: Path, wheel: Wheel) -> None:
    """A model.py in the working directory would be run in place of the backend."""
    layout = Layout(tmp_path)
    layout.make()
    (layout.work / "model").mkdir()
    (layout.work / "model" / "__init__.py").touch()
    (layout.work / "model.py").touch()
    (layout.instances / "123").touch()
    prepare(layout, wheel)
    assert not list(layout.work.iterdir())
    assert not list(layout.instances.iterdir())


def test_libpython_is_the_interpreters(tmp_path: Path, wheel: Wheel) -> None:
    """The loader finds libpython by the name that the stub asks for."""
    layout = Layout(tmp_path)
    prepare(layout, wheel)
    wanted = (wheel.own_libpython or find_libpython(wheel) or tmp_path).name
    link = layout.libraries / wanted
    assert link.resolve() == find_libpython(wheel)


def test_prefix_is_the_directorys_own(tmp_path: Path) -> None:
    """The shared-memory prefix stays over restarts and differs between directories."""
    one, other = tmp_path / "a", tmp_path / "b"
    one.mkdir()
    other.mkdir()
    assert shm_prefix(one) == shm_prefix(one)
    assert shm_prefix(one) != shm_prefix(other)
    assert shm_prefix(one).startswith("gwtriton_")
