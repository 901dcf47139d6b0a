"""The life of models through one gateway: changing folders, existing repositories, stampedes."""

import base64
import io
import random
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from gateway.converter.model_config import ConfigOptions
from gateway.converter.publish import publish_version
from testbed.gateway_process import GatewayProcess, running_gateway
from tests.eventually import eventually
from tests.model_family import FAMILY, classifier_case, original_model


@pytest.fixture(scope="module")
def shared_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("shared")
    models = folder / "models"
    models.mkdir()
    original_model(models / "m.onnx", 10)
    classifier_case("nchw", (None, 3, None, None)).build(models / "nchw.onnx")
    classifier_case("fixed", (None, 64, 64, 3)).build(models / "fixed.onnx")
    flattening = next(case for case in FAMILY if case.id == "one-size-declared-free")
    flattening.build(models / "flattens.onnx")
    with running_gateway(folder, environment={"MODELS_DIR": str(models)}) as process:
        yield process


def _body() -> dict[str, str]:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), (200, 30, 90)).save(buffer, "PNG")
    return {"image": base64.b64encode(buffer.getvalue()).decode()}


def _ask(gateway: GatewayProcess, name: str, **parameters: str) -> httpx.Response:
    return gateway.client.post(f"/api/v1/run/{name}", json=_body(), params=parameters)


def _names(gateway: GatewayProcess) -> list[str]:
    names: list[str] = gateway.client.get("/api/v1/list").json()
    return names


async def test_a_changed_file_takes_over_without_a_gap(tmp_path: Path) -> None:
    """A replaced NAME.onnx becomes version 2 and answers, and no request fails meanwhile."""
    models = tmp_path / "models"
    models.mkdir()
    original_model(models / "m.onnx", 10, seed=1)
    original_model(tmp_path / "new.onnx", 10, seed=2)
    with running_gateway(tmp_path, environment={"MODELS_DIR": str(models)}) as gateway:
        gateway.client.post("/api/v1/load", params={"name": "m"})
        assert _ask(gateway, "m").headers["x-model-version"] == "1"
        shutil.copy(tmp_path / "new.onnx", models / "m.onnx.part")
        (models / "m.onnx.part").rename(models / "m.onnx")
        statuses: Counter[int] = Counter()

        def taken_over() -> bool:
            answer = _ask(gateway, "m")
            statuses[answer.status_code] += 1
            return bool(answer.headers.get("x-model-version") == "2")

        await eventually(taken_over)
        assert set(statuses) == {200}


async def test_a_new_file_is_there_at_once_and_a_broken_one_is_named(tmp_path: Path) -> None:
    """A file put into the folder can be loaded right away; a broken one is reported and skipped."""
    models = tmp_path / "models"
    models.mkdir()
    with running_gateway(tmp_path, environment={"MODELS_DIR": str(models)}) as gateway:
        assert _names(gateway) == []
        original_model(models / "late.onnx", 5)
        assert gateway.client.post("/api/v1/load", params={"name": "late"}).content == b"200"
        (models / "broken.onnx").write_bytes(b"nothing that is a model")
        await eventually(
            lambda: any("model_skipped" in li and "broken" in li for li in gateway.output)
        )
        assert _names(gateway) == ["late"]


async def test_a_file_with_other_classes_takes_over_too(tmp_path: Path) -> None:
    """A replaced file may have another number of classes: the folder is the truth."""
    models = tmp_path / "models"
    models.mkdir()
    original_model(models / "m.onnx", 5)
    with running_gateway(tmp_path, environment={"MODELS_DIR": str(models)}) as gateway:
        gateway.client.post("/api/v1/load", params={"name": "m"})
        original_model(models / "m.onnx", 12, seed=3)
        await eventually(lambda: _ask(gateway, "m").headers.get("x-model-version") == "2")


def test_what_is_in_force_survives_a_restart(tmp_path: Path) -> None:
    """Loads are remembered over an orderly stop; a second start publishes nothing again."""
    models = tmp_path / "models"
    models.mkdir()
    for name in ("a", "b"):
        original_model(models / f"{name}.onnx", 10)
    environment = {"MODELS_DIR": str(models)}
    with running_gateway(tmp_path, environment=environment) as gateway:
        gateway.client.post("/api/v1/load", params={"name": "a"})
    with running_gateway(tmp_path, environment=environment) as gateway:
        while gateway.client.get("/startupz").status_code != 200:
            pass
        assert _ask(gateway, "a").status_code == 200
        assert _ask(gateway, "b").status_code == 409
    assert [path.name for path in (tmp_path / "repository/a").glob("[0-9]*")] == ["1"]


def test_an_existing_repository_is_adopted(tmp_path: Path) -> None:
    """A gateway with an empty database serves what lies in the repository, newest as champion."""
    for version in (1, 2):
        original_model(tmp_path / "m.onnx", 10, seed=version)
        publish_version(
            tmp_path / "m.onnx",
            repository=tmp_path / "repository",
            name="m",
            version=version,
            options=ConfigOptions(),
        )
    with running_gateway(tmp_path) as gateway:
        assert _names(gateway) == ["m"]
        assert gateway.client.post("/api/v1/load", params={"name": "m"}).content == b"200"
        assert _ask(gateway, "m").headers["x-model-version"] == "2"
        assert _ask(gateway, "m", version="1").status_code == 409
        pinned = {"name": "m", "version": "1"}
        assert gateway.client.post("/api/v1/load", params=pinned).content == b"200"
        assert _ask(gateway, "m", version="1").headers["x-model-version"] == "1"
        assert _ask(gateway, "m").headers["x-model-version"] == "2"
        assert gateway.client.post("/api/v1/unload", params=pinned).content == b"200"
        assert _ask(gateway, "m", version="1").status_code == 409
        assert _ask(gateway, "m").status_code == 200
        unknown = {"name": "m", "version": "3"}
        assert gateway.client.post("/api/v1/load", params=unknown).status_code == 404
        assert _ask(gateway, "m", version="3").status_code == 404


@pytest.mark.parametrize("version", ["0", "01", "-1", "1.0", "", "9223372036854775808", "x"])
def test_a_version_is_a_positive_number(shared_gateway: GatewayProcess, version: str) -> None:
    """Versions that Triton could not name a directory by are refused with 422."""
    parameters = {"name": "m", "version": version}
    answer = shared_gateway.client.post("/api/v1/load", params=parameters)
    assert (answer.status_code, answer.json()["code"]) == (422, "version_invalid")


def test_a_stampede_ends_where_database_and_triton_agree(
    shared_gateway: GatewayProcess,
) -> None:
    """32 clients mixing load, unload and run hear only what the contract knows; then all agree."""
    heard: Counter[tuple[str, int]] = Counter()
    lock = threading.Lock()

    def stampede(seed: int) -> None:
        choice = random.Random(seed)
        with httpx.Client(base_url=shared_gateway.url, timeout=60, trust_env=False) as client:
            for _ in range(6):
                call = choice.choice(["load", "unload", "run", "run"])
                if call == "run":
                    answer = client.post("/api/v1/run/m", json=_body())
                else:
                    answer = client.post(f"/api/v1/{call}", params={"name": "m"})
                with lock:
                    heard[call, answer.status_code] += 1

    threads = [threading.Thread(target=stampede, args=(seed,)) for seed in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {status for _, status in heard} <= {200, 404, 409, 422, 429, 503}, heard
    assert shared_gateway.client.post("/api/v1/load", params={"name": "m"}).content == b"200"
    assert _ask(shared_gateway, "m").status_code == 200
    assert shared_gateway.client.post("/api/v1/unload", params={"name": "m"}).content == b"200"
    assert _ask(shared_gateway, "m").status_code == 409


def test_requests_under_way_finish_while_a_model_is_unloaded(
    shared_gateway: GatewayProcess,
) -> None:
    """An unload under load: every answer is 200 or 409, none is lost."""
    client = shared_gateway.client
    statuses: Counter[int] = Counter()
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=shared_gateway.url, timeout=60, trust_env=False) as own:
            while not stop.is_set():
                statuses[own.post("/api/v1/run/m", json=_body()).status_code] += 1

    client.post("/api/v1/load", params={"name": "m"})
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        assert client.post("/api/v1/unload", params={"name": "m"}).content == b"200"
        assert client.post("/api/v1/load", params={"name": "m"}).content == b"200"
    stop.set()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {200, 409}
    assert statuses[200] > 0


def test_a_model_that_does_not_take_raw_pixels_says_so(shared_gateway: GatewayProcess) -> None:
    """An NCHW model without a record loads, and `run` answers 422 that says what it wants."""
    assert shared_gateway.client.post("/api/v1/load", params={"name": "nchw"}).content == b"200"
    answer = _ask(shared_gateway, "nchw")
    assert (answer.status_code, answer.json()["code"]) == (422, "preprocessing_required")
    assert "3" in answer.json()["detail"]


def test_an_image_that_a_step_of_the_model_minds_says_which(shared_gateway: GatewayProcess) -> None:
    """A size that only a step inside minds: 502 with what onnxruntime says of that step."""
    assert shared_gateway.client.post("/api/v1/load", params={"name": "flattens"}).content == b"200"
    answer = _ask(shared_gateway, "flattens")
    detail = answer.json()["detail"]
    assert (answer.status_code, answer.json()["code"]) == (502, "inference_failed"), detail
    assert "[1, 20, 20, 3]" in detail
    assert "MatMul" in detail
    assert "onnx runtime error" not in detail


def test_an_image_of_the_wrong_size_names_both_shapes(shared_gateway: GatewayProcess) -> None:
    """A fixed height and width that the image has not: 422 with expected and received shape."""
    assert shared_gateway.client.post("/api/v1/load", params={"name": "fixed"}).content == b"200"
    answer = _ask(shared_gateway, "fixed")
    assert (answer.status_code, answer.json()["code"]) == (422, "image_mismatch")
    assert "[1, 20, 20, 3]" in answer.json()["detail"]
    assert "64" in answer.json()["detail"]
