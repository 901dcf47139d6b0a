"""What stores things goes away under a gateway that serves: requests go on, and nothing is lost."""

import contextlib
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.converter.model_config import ConfigOptions
from gateway.converter.publish import publish_version
from testbed.gateway_process import GatewayProcess, running_gateway
from testbed.rollout_family import PICTURES
from testbed.rollout_load import Load
from testbed.signature_family import colours
from tests.eventually import eventually

_PAGE_BYTES = 4096
_JSON = {"Content-Type": "application/json"}


def _mount(*arguments: str | Path) -> None:
    if subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a file system")


@contextlib.contextmanager
def _mounted(place: Path, *arguments: str | Path) -> Iterator[None]:
    place.mkdir(exist_ok=True)
    _mount(*arguments, place)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def _model(**changed: Any) -> bytes:
    return colours(side=20, scaled=True, **changed)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with running_gateway(tmp_path_factory.mktemp("storage")) as process:
        process.register("m", _model(), load="true")
        process.register("m", _model(seed=2))
        process.register("other", _model())
        yield process


def test_a_repository_that_blinks_takes_nothing_down(gateway: GatewayProcess) -> None:
    """
    While the repository is empty, as a mount that is away, what is loaded serves, and afterwards
    too; what is not loaded cannot be, and says why.
    """
    repository, away = gateway.folder / "repository", gateway.folder / "away"
    with Load(gateway.url, "m", PICTURES, clients=2) as clients:
        repository.rename(away)
        repository.mkdir()
        try:
            refused = gateway.client.post("/api/v1/load", params={"name": "other"})
            # Long enough for several looks at Triton's index.
            time.sleep(2)
        finally:
            shutil.rmtree(repository)
            away.rename(repository)
        time.sleep(1)
    assert set(clients.statuses) == {200}
    assert clients.errors == []
    assert (refused.status_code, refused.json()["code"]) == (409, "artifact_corrupt")
    assert gateway.client.post("/api/v1/load", params={"name": "other"}).status_code == 200
    assert gateway.client.post("/api/v1/unload", params={"name": "other"}).status_code == 200


def test_a_locked_database_is_waited_for_five_seconds_at_most(gateway: GatewayProcess) -> None:
    """Whoever writes hears 503 by then, however many wait; requests go on."""
    writes: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/api/v1/load", {"params": {"name": "other"}}),
        ("POST", "/api/v1/unload", {"params": {"name": "m"}}),
        ("PUT", "/api/v1/models/m/aliases/challenger", {"json": {"version": 2}}),
        ("POST", "/api/v1/register", {"params": {"name": "m"}, "content": _model(seed=3)}),
        ("DELETE", "/api/v1/models/other", {}),
    ]

    def write(call: tuple[str, str, dict[str, Any]]) -> tuple[float, httpx.Response]:
        began_s = time.monotonic()
        with httpx.Client(base_url=gateway.url, timeout=60, trust_env=False) as client:
            answer = client.request(call[0], call[1], **call[2])
        return time.monotonic() - began_s, answer

    with (
        contextlib.closing(sqlite3.connect(gateway.folder / "var/gateway.db")) as locker,
        Load(gateway.url, "m", PICTURES, clients=1) as clients,
        ThreadPoolExecutor(len(writes)) as pool,
    ):
        locker.isolation_level = None
        locker.execute("BEGIN IMMEDIATE")
        answers = list(pool.map(write, writes))
        locker.execute("ROLLBACK")
    for call, (took_s, answer) in zip(writes, answers, strict=True):
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
        # Five seconds on a machine that is busy, and before them the validation of an upload.
        assert took_s < (20 if "register" in call[1] else 9)
    assert set(clients.statuses) == {200}


def test_a_database_that_is_deleted_is_noticed(gateway: GatewayProcess) -> None:
    """Nothing that would be lost is acknowledged; put back, it is written again."""
    path, kept = gateway.folder / "var/gateway.db", gateway.folder / "kept.db"
    path.rename(kept)
    try:
        for _ in range(2):
            refused = gateway.client.post("/api/v1/load", params={"name": "other"})
            assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
            assert "deleted or replaced" in refused.json()["detail"]
            path.write_bytes(b"")  # another file in its place is no better
        ran = gateway.client.post("/api/v1/run/m", content=PICTURES[0].body, headers=_JSON)
        assert ran.status_code == 200
        # No reason to send callers elsewhere.
        ready = gateway.client.get("/readyz")
        assert (ready.status_code, ready.json()["degraded"]) == (200, ["database"])
    finally:
        kept.rename(path)
    assert gateway.client.post("/api/v1/load", params={"name": "other"}).status_code == 200


def test_a_read_only_repository_is_served(tmp_path: Path) -> None:
    """What lies in it is adopted, loaded and answered; whatever would write to it is a 503."""
    repository = tmp_path / "repository"
    (tmp_path / "m.onnx").write_bytes(_model())
    publish_version(
        tmp_path / "m.onnx", repository=repository, name="m", version=1, options=ConfigOptions()
    )
    with _mounted(repository, "--bind", "-o", "ro", repository):
        subprocess.run(["mount", "-o", "remount,ro,bind", repository], check=True)
        with running_gateway(tmp_path) as gateway:
            assert gateway.client.post("/api/v1/load", params={"name": "m"}).status_code == 200
            ran = gateway.client.post("/api/v1/run/m", content=PICTURES[0].body, headers=_JSON)
            assert ran.status_code == 200
            refused = [
                gateway.client.post(
                    "/api/v1/register", params={"name": "m"}, content=_model(seed=2)
                ),
                gateway.client.delete("/api/v1/models/m/versions/1"),
            ]
            for answer in refused:
                assert (answer.status_code, answer.json()["code"]) == (503, "repository_read_only")
            assert not any("Traceback" in line for line in gateway.output)


def _fill(disk: Path) -> Path:
    """Leave no space, down to the last page."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 20))
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(_PAGE_BYTES))
    return filler


async def test_a_full_data_folder_is_said_and_triton_comes_back(tmp_path: Path) -> None:
    """507 and not 503 for what cannot be recorded; a Triton that is killed then loads all again."""
    disk = tmp_path / "disk"
    with (
        _mounted(disk, "-t", "tmpfs", "-o", "size=64m", "tmpfs"),
        running_gateway(tmp_path, environment={"DATA_DIR": str(disk / "var")}) as gateway,
    ):
        gateway.register("m", _model(), load="true")
        gateway.register("other", _model())
        filler = _fill(disk)

        def is_full() -> bool:
            # The write-ahead log has room for a few more until it has to grow.
            answer = gateway.client.put(
                "/api/v1/models/other/aliases/challenger", json={"version": 1}
            )
            assert answer.status_code in {200, 507}, answer.text
            return answer.status_code == 507

        await eventually(is_full)
        refused = gateway.client.post("/api/v1/load", params={"name": "other"})
        assert (refused.status_code, refused.json()["code"]) == (507, "storage_full")
        gateway.triton.kill()

        def answers() -> bool:
            body = PICTURES[0].body
            ran = gateway.client.post("/api/v1/run/m", content=body, headers=_JSON)
            return bool(ran.status_code == 200)

        await eventually(lambda: not answers())
        await eventually(answers, within_s=30)
        filler.unlink()
        assert gateway.client.post("/api/v1/load", params={"name": "other"}).status_code == 200
        assert not any("Traceback" in line for line in gateway.output)
