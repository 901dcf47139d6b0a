"""Publishing with the plug pulled, and on a disk that is full: absent or complete, never half."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.converter import model_config
from gateway.converter.errors import StorageFull, VersionExists
from gateway.converter.layout import triton_models, version_directory, versions_in
from gateway.converter.model_config import ConfigOptions
from gateway.converter.publish import (
    publish_version,
    published_versions,
    read_labels,
    read_published,
)
from gateway.converter.repository_writer import STAGING
from gateway.registry.staging import open_staging
from tests.model_family import classifier_case, original_model
from tests.unit.converter import publish_on_full_disk, publish_until_killed
from tests.unit.converter.publish_until_killed import LABELS, publish

ROOT = Path(__file__).parents[3]


def _script(module: object, *arguments: object, prefix: tuple[str, ...] = ()) -> str:
    file = getattr(module, "__name__")  # noqa: B009 - of any module
    finished = subprocess.run(
        [*prefix, sys.executable, "-m", file, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "shape", "classes_before"),
    # Channels first: the file is published as it is; last: with a Cast in front of its graph.
    [(1, (1, 3, 8, 8), 0), (2, (1, 8, 8, 3), 7), (2, (1, 8, 8, 3), 5)],
    ids=["new-model", "new-version-with-uint8-input", "new-signature"],
)
def test_killed_at_any_step_a_version_is_absent_or_complete(
    version: int, shape: tuple[int, ...], classes_before: int, tmp_path: Path
) -> None:
    """SIGKILL before each step: what was there is whole, what is new is all there or not at all."""
    before = tmp_path / "before"
    before.mkdir()
    if version == 2:
        old = classifier_case("o", shape, classes=classes_before, seed=1)
        publish_version(
            old.build(tmp_path / "old.onnx"),
            repository=before,
            name="m",
            version=1,
            options=ConfigOptions(),
        )
    source = classifier_case("c", shape, classes=7).build(tmp_path / "new.onnx")
    publish(source, tmp_path / "whole", 1)
    whole = (tmp_path / "whole/m/1/model.onnx").read_bytes()
    assert (whole == source.read_bytes()) == (version == 1)
    attempts = tmp_path / "attempts"
    attempts.mkdir()
    _script(publish_until_killed, before, source, attempts, version)

    outcomes = []
    for repository in sorted(attempts.iterdir()):
        killed = repository != max(attempts.iterdir())
        present = published_versions(repository, "m")
        assert present in ([version - 1] * (version - 1), list(range(1, version + 1)))
        complete = version in present
        outcomes.append(complete)
        _check_whole(repository, whole, version, complete=complete)
        # A gateway that starts again sweeps, and can go on where it was.
        open_staging(repository).close()
        assert [path.name for path in (repository / STAGING).iterdir()] == ["sweep.lock"]
        if complete:
            with pytest.raises(VersionExists):
                publish(source, repository, version)
        else:
            assert killed
            publish(source, repository, version)
            _check_whole(repository, whole, version, complete=True)
        assert read_labels(repository, "m", version) == tuple(LABELS)
    # It was killed both before and after the moment of publishing, and that moment is one.
    assert outcomes == sorted(outcomes)
    assert outcomes.count(False) > 8
    assert outcomes.count(True) > 3


def _check_whole(repository: Path, whole: bytes, version: int, *, complete: bool) -> None:
    """Check what a bare tritonserver would find: config.pbtxt names a version that is there."""
    if complete:
        published = read_published(repository, "m", version)
        directory = version_directory(repository, "m", version)
        assert (directory / "model.onnx").read_bytes() == whole
        assert read_labels(repository, "m", version) == tuple(LABELS)
        assert f'label_filename: "{version}/labels.txt"' in published.config_text
    for triton_model in triton_models(repository, "m"):
        config = model_config.parse((repository / triton_model / "config.pbtxt").read_text())
        (served,) = config.version_policy.specific.versions
        assert served in versions_in(repository / triton_model)
    if version == 2:
        read_published(repository, "m", 1)


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
        check=False,
    ).returncode
    != 0,
    reason="this machine lets nobody mount a file system of their own",
)
@pytest.mark.parametrize("limit", ["blocks", "inodes"])
def test_full_disk_changes_nothing(limit: str, tmp_path: Path) -> None:
    """On a file system with room for less and less, publishing fails whole and cleans up."""
    original_model(tmp_path / "old.onnx", 5)
    # Large enough to run out of space in the middle of the copy too, and of the changed graph.
    source = classifier_case("c", (1, 8, 8, 3), classes=7).make()
    source.doc_string = "x" * 40_000
    (tmp_path / "new.onnx").write_bytes(source.SerializeToString())
    mount = tmp_path / "mount"
    mount.mkdir()
    report = _script(publish_on_full_disk, mount, tmp_path, limit, prefix=("unshare", "-rm"))
    attempts = json.loads(report)
    assert [attempt["outcome"] for attempt in attempts[:-1]] == ["storage_full"] * (
        len(attempts) - 1
    )
    assert attempts[-1]["outcome"] == "published"
    assert len(attempts) >= 4
    for attempt in attempts[:-1]:
        assert attempt["unchanged"], attempt
        assert attempt["readable"], attempt


def test_file_size_limit_is_a_full_disk_too(tmp_path: Path) -> None:
    """A quota or ulimit gives the same error as a full disk, and cleans up the same way."""
    original_model(tmp_path / "model.onnx", 1000)
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from gateway.converter.errors import StorageFull\n"
        "from gateway.converter.model_config import ConfigOptions\n"
        "from gateway.converter.publish import publish_version\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "folder = Path(sys.argv[1])\n"
        "try: publish_version(folder / 'model.onnx', repository=folder / 'r', name='m', version=1,"
        " options=ConfigOptions())\n"
        "except StorageFull: print('storage full')\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout == "storage full\n"
    assert [path.name for path in (tmp_path / "r").rglob("*")] == [STAGING]
    assert StorageFull.code == "storage_full"
