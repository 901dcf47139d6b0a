"""
The wheel in an environment of its own, outside of the repository: what it holds, how it gets its
Triton, and the first answer.

The environment sees the packages installed here by links, so that nothing is downloaded.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from gateway import __version__
from gateway.triton.embedded.installation import PINNED_VERSION

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_ROOT = Path(__file__).parents[2]
_TRITON = ("pytriton", "nvidia_pytriton")
_OURS = ("__editable__", "onnx_gateway", "_virtualenv", "distutils-precedence")


def _run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME", "LANG"}}
    return subprocess.run(
        command,
        cwd=folder,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, so that nothing is written into the checkout."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("gateway", "tools", "tests/unit"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(_ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(_ROOT / name, folder)
    done = _run(
        folder, sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "."
    )
    assert done.returncode == 0, done.stderr
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture
def environment(wheel: Path, tmp_path: Path) -> Path:
    """Make a virtual environment with the wheel and what it depends on, without a Triton."""
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=False, symlinks=True)
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not path.name.startswith((*_TRITON, *_OURS)):
            (linked / path.name).symlink_to(path)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "installed-here.pth").write_text(f"{linked}\n")
    pip = (str(folder / "bin/python"), "-m", "pip", "install", "--no-deps", "--no-index")
    done = _run(tmp_path, *pip, str(wheel))
    assert done.returncode == 0, done.stderr
    return folder


def test_the_wheel_is_one_package(environment: Path, tmp_path: Path) -> None:
    """It brings `gateway` and nothing else, and says its version."""
    gateway = str(environment / "bin/gateway")
    assert _run(tmp_path, gateway, "--version").stdout == f"gateway {__version__}\n"
    for name in ("tools", "tests", "testbed", "perf"):
        done = _run(tmp_path, str(environment / "bin/python"), "-c", f"import {name}")
        assert f"No module named '{name}'" in done.stderr, name


def test_exactly_the_pinned_triton_is_installed_where_it_is_missing(
    environment: Path, tmp_path: Path
) -> None:
    """`doctor` names the command; it installs that release, without its dependencies, once."""
    gateway = str(environment / "bin/gateway")
    told = _run(tmp_path, gateway, "doctor")
    assert told.returncode == 1
    assert "gateway setup-triton" in " ".join(told.stdout.split())
    offered = tmp_path / "offered"
    offered.mkdir()
    for version in (PINNED_VERSION, "99.0"):
        _write_wheel(offered, version)
    only_these = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(offered)}
    done = _run(tmp_path, gateway, "setup-triton", **only_these)
    assert done.returncode == 0, done.stderr
    assert f"Successfully installed nvidia-pytriton-{PINNED_VERSION}\n" in done.stderr
    again = _run(tmp_path, gateway, "setup-triton", PIP_NO_INDEX="1")
    assert (again.returncode, again.stderr) == (
        0,
        f"nvidia-pytriton {PINNED_VERSION} is installed.\n",
    )


def test_a_triton_that_cannot_be_had_is_one_line(environment: Path, tmp_path: Path) -> None:
    """`serve` says what it installs; where that fails, the command to repeat, no traceback."""
    nothing = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PORT": "0"}
    done = _run(tmp_path, str(environment / "bin/gateway"), "serve", "--demo", **nothing)
    assert done.returncode == 1
    assert f"Installing nvidia-pytriton=={PINNED_VERSION} into {environment}." in done.stderr
    assert f"--no-deps nvidia-pytriton=={PINNED_VERSION}" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_the_demo_answers_outside_of_the_repository(environment: Path, tmp_path: Path) -> None:
    """`gateway serve --demo` in an empty folder prints a curl line, and that answers a seven."""
    installed = Path(sysconfig.get_paths()["purelib"])
    for path in installed.iterdir():
        if path.name.startswith(_TRITON):
            (tmp_path / "linked" / path.name).symlink_to(path)
    folder = tmp_path / "empty"
    folder.mkdir()
    inherited = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME", "LANG"}}
    with subprocess.Popen(
        [environment / "bin/gateway", "serve", "--demo"],
        cwd=folder,
        env={**inherited, "PORT": "0", "PYTHONUNBUFFERED": "1", "LOG_FORMAT": "console"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as serving:
        assert serving.stdout is not None
        printed = []
        try:
            for line in serving.stdout:
                printed.append(line)
                if line.startswith("  curl "):
                    break
            answer = _run(folder, "bash", "-c", printed[-1])
        finally:
            serving.terminate()
            serving.stdout.read()
    assert answer.stdout == '{"category":"07"}', "".join(printed)
    assert serving.returncode == 0
    assert {path.name for path in folder.iterdir()} == {"var", "model_repository"}


def _write_wheel(folder: Path, version: str) -> None:
    """Write a wheel as pip takes it: the package's name, and a dependency that nobody has."""
    name = f"nvidia_pytriton-{version}"
    files = {
        "pytriton/__init__.py": "",
        f"{name}.dist-info/METADATA": (
            f"Metadata-Version: 2.1\nName: nvidia-pytriton\nVersion: {version}\n"
            "Requires-Dist: not-on-any-index\n"
        ),
        f"{name}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{name}.dist-info/RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


def test_the_version_stands_in_one_place() -> None:
    """The number in `gateway/__init__.py` is written nowhere else, and the changelog has it."""
    assert not re.search(r'^version = "', (_ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    sections = re.findall(r"^## (\S+)", (_ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == "Unreleased"
    assert __version__ in sections
