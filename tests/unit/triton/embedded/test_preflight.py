import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.triton.embedded import PreflightFailed, preflight
from gateway.triton.embedded import preflight as checks_of
from gateway.triton.embedded.installation import Wheel, find_libpython, find_wheel
from gateway.triton.embedded.preflight import (
    check_libpython,
    check_path,
    check_platform,
    check_shared_memory,
    check_stub,
    check_stub_starts,
    check_wheel,
    require_ready,
)


@pytest.fixture
def wheel() -> Wheel:
    found = find_wheel()
    assert found is not None
    return found


def test_this_machine_is_ready(tmp_path: Path) -> None:
    """Here every check is good, and says what it saw."""
    findings = checks_of(tmp_path, tmp_path / "models")
    assert [finding.name for finding in findings if not finding.ok] == []
    assert all(finding.detail and not finding.fix for finding in findings)
    assert preflight is checks_of


def test_what_starts_a_process_is_asked_once(tmp_path: Path) -> None:
    """The second time, the answers come from the stamp while what they depend on is the same."""
    checks_of(tmp_path, tmp_path / "models")
    stamp = tmp_path / "triton" / "preflight.json"
    kept = json.loads(stamp.read_bytes())
    kept["findings"][-1]["detail"] = "seen before"
    stamp.write_text(json.dumps(kept))
    assert checks_of(tmp_path, tmp_path / "models")[-1].detail == "seen before"


def test_a_changed_installation_is_looked_at_again(tmp_path: Path) -> None:
    """A stamp of another installation, or a damaged one, counts for nothing."""
    checks_of(tmp_path, tmp_path / "models")
    stamp = tmp_path / "triton" / "preflight.json"
    good = stamp.read_bytes()
    lie = json.loads(good) | {"key": "another", "findings": []}
    for content in (json.dumps(lie), "{", "[]"):
        stamp.write_text(content)
        checks_of(tmp_path, tmp_path / "models")
        assert stamp.read_bytes() == good


def test_a_blank_in_a_path(tmp_path: Path) -> None:
    """A path that a shell would split or run stops the start, with the way out."""
    with pytest.raises(PreflightFailed, match="without blanks"):
        require_ready(tmp_path / "my data", tmp_path / "models")
    for path in ("/a b", "/a$(id)", "/a;b", "/a\nb", "/a'b", "/ä"):
        assert not check_path("data directory", path).ok
    assert check_path("model repository", "s3://http://127.0.0.1:9000/bucket/models").ok


@pytest.mark.parametrize(
    "machine",
    [("darwin", "arm64", ""), ("linux", "aarch64", "glibc"), ("linux", "x86_64", "")],
)
def test_other_platforms(machine: tuple[str, str, str]) -> None:
    """Where there is no binary, remote servers are named as the way out."""
    finding = check_platform(*machine)
    assert not finding.ok
    assert "TRITON_URLS" in finding.fix


def test_missing_wheel() -> None:
    """Without the wheel the fix is the command that installs it."""
    assert "--no-deps nvidia-pytriton" in check_wheel(None).fix


def test_wheel_without_binaries(wheel: Wheel, tmp_path: Path) -> None:
    """A wheel that lacks its binaries is no wheel."""
    assert not check_wheel(replace(wheel, root=tmp_path)).ok


def test_python_without_a_stub(wheel: Wheel, tmp_path: Path) -> None:
    """A Python that the wheel has no stub for is named, with those that it has one for."""
    stub = tmp_path / "python_backend_stubs" / "3.8" / "triton_python_backend_stub"
    stub.parent.mkdir(parents=True)
    stub.touch()
    finding = check_stub(replace(wheel, root=tmp_path))
    assert not finding.ok
    assert "stubs for 3.8 only" in finding.detail


def test_missing_libpython() -> None:
    """A static Python is told which package to install."""
    assert "apt install libpython3." in check_libpython(None).fix


def test_a_stub_that_cannot_start(wheel: Wheel, tmp_path: Path) -> None:
    """A stub whose libraries are not there is found before Triton waits for it for ever."""
    lonely = replace(wheel, root=tmp_path, libraries=tmp_path)
    lonely.stub.parent.mkdir(parents=True)
    shutil.copy(wheel.stub, lonely.stub)
    finding = check_stub_starts(lonely, tmp_path / "libpython.so")
    assert not finding.ok
    assert "cannot open shared object file" in finding.detail


def test_the_real_stub_starts(wheel: Wheel) -> None:
    """The stub of this Python comes as far as to miss its arguments."""
    libpython = find_libpython(wheel)
    assert libpython is not None
    assert check_stub_starts(wheel, libpython).ok


def test_no_shared_memory(tmp_path: Path) -> None:
    """Without /dev/shm there is no start."""
    assert check_shared_memory(Path("/dev/shm")).ok
    assert not check_shared_memory(tmp_path / "absent").ok
