"""
A repository on a file system that is really full: registering fails whole, whatever ran out, and
works again when there is space.
"""

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.converter.published import read_published
from testbed.gateway_process import GatewayProcess, running_gateway
from tests.model_family import classifier_case

_NO_TRITON = {"TRITON_URLS": "http://127.0.0.1:9"}
_PAGE_BYTES = 4096
_ROOMY = "size=64m,nr_inodes=10000"


def _mount(*arguments: str | Path) -> bool:
    finished = subprocess.run(["mount", *arguments], capture_output=True, check=False)
    return finished.returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    if not _mount("-t", "tmpfs", "-o", _ROOMY, "tmpfs", place):
        pytest.skip("this machine lets nobody mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def _model(seed: int) -> bytes:
    model = classifier_case("m", (None, None, None, 3), seed=seed).make()
    model.doc_string = "x" * 100_000
    return bytes(model.SerializeToString())


def _contents(repository: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(repository)): path.read_bytes() if path.is_file() else b""
        for path in sorted(repository.rglob("*"))
    }


def _register(gateway: GatewayProcess, content: bytes) -> tuple[int, dict[str, Any]]:
    answer = gateway.client.post(
        "/api/v1/register", params={"name": "m", "labels": "a\nb\nc\nd\ne"}, content=content
    )
    return answer.status_code, answer.json()


@pytest.mark.parametrize(
    ("limit", "rooms", "least"),
    # Pages: for half the upload, for all of it, for the report too, for the copy, for the changed
    # graph, for everything. Inodes: for one thing more each time.
    [("size", (12, 26, 28, 40, 66, 90), 4), ("nr_inodes", range(20), 8)],
    ids=["blocks", "inodes"],
)
def test_registering_on_a_full_disk_changes_nothing(
    limit: str, rooms: Sequence[int], least: int, disk: Path, tmp_path: Path
) -> None:
    """
    With a little more room at each attempt: 507 at the upload, in validation, while publishing;
    then 200. In between the first version is there, and nothing else.
    """
    environment = {**_NO_TRITON, "MODEL_REPOSITORY": str(disk)}
    with running_gateway(tmp_path, environment=environment) as gateway:
        assert _register(gateway, _model(1))[0] == 200
        before, listed = _contents(disk), gateway.client.get("/api/v1/models/m").json()
        used = os.statvfs(disk)
        full = {
            "size": (used.f_blocks - used.f_bfree) * _PAGE_BYTES,
            "nr_inodes": used.f_files - used.f_ffree,
        }
        unit = _PAGE_BYTES if limit == "size" else 1
        refused = 0
        for room in rooms:
            option = f"{limit}={full[limit] + room * unit}"
            assert _mount("-o", f"remount,{option}", disk)
            status, body = _register(gateway, _model(2))
            if status == 200:
                break
            assert (status, body["code"]) == (507, "storage_full"), (room, body)
            assert str(tmp_path) not in str(body)
            assert _mount("-o", f"remount,{_ROOMY}", disk)
            assert _contents(disk) == before
            assert gateway.client.get("/api/v1/models/m").json() == listed
            refused += 1
        assert status == 200
        assert refused >= least
        assert body["version"] == 2
        assert read_published(disk, "m", 2).digest == body["digest"]
        assert gateway.client.get("/api/v1/models/m/versions/2").status_code == 200
