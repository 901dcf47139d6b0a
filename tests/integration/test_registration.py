"""Registration over HTTP: what is taken, what is refused, and that a refusal changes nothing."""

import base64
import hashlib
import io
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import psutil
import pytest
from onnx import helper
from PIL import Image

from gateway.preprocessing.pixels import NUMPY_OF_TRITON
from testbed.gateway_process import GatewayProcess, running_gateway
from testbed.rollout_calls import create
from tests.hostile_models import CASES, LOOPING, HostileCase, graph_model
from tests.model_family import FAMILY, ModelCase, classifier_case, original_model

_LIMIT_BYTES = 4_000_000
_FREE = (None, None, None, 3)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    settings = {
        "VALIDATION_TIMEOUT_S": "15",
        "VALIDATION_MEMORY_BYTES": str(3 << 30),
        "MAX_VALIDATIONS": "2",
        "MAX_UPLOADS": "8",
        "MAX_MODEL_BYTES": str(_LIMIT_BYTES),
    }
    with running_gateway(tmp_path_factory.mktemp("registration"), environment=settings) as process:
        process.register("neighbour", _model(1, classes=3), load="true")
        yield process


def _model(seed: int, *, classes: int = 5) -> bytes:
    case = classifier_case("m", _FREE, classes=classes, seed=seed)
    return bytes(case.make().SerializeToString())


def _png(height: int = 20, width: int = 30, seed: int = 0) -> tuple[bytes, np.ndarray[Any, Any]]:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue(), pixels


def _run(gateway: GatewayProcess, name: str, image: bytes, **parameters: Any) -> httpx.Response:
    return gateway.client.post(
        f"/api/v1/run/{name}",
        json={"image": base64.b64encode(image).decode()},
        params=parameters,
    )


def _world(gateway: GatewayProcess) -> object:
    """Give everything that a refused upload must leave as it was."""
    repository = gateway.folder / "repository"
    files = sorted(
        str(path.relative_to(repository))
        for path in repository.rglob("*")
        if path.name not in {"alive.lock", "sweep.lock"}
    )
    return files, gateway.client.get("/api/v1/models").json()


@pytest.mark.parametrize("case", [*CASES, LOOPING], ids=lambda case: case.id)
def test_a_hostile_file_is_refused_and_changes_nothing(
    gateway: GatewayProcess, case: HostileCase
) -> None:
    """422 with its code; repository, registry, loads and staging as before; others answer."""
    before = _world(gateway)
    answer = gateway.client.post(
        "/api/v1/register", params={"name": "hostile"}, content=case.make()
    )
    assert (answer.status_code, answer.json()["code"]) == (422, case.code), answer.text
    assert set(answer.json()) == {"detail", "code", "request_id"}
    assert str(gateway.folder) not in answer.text
    assert _world(gateway) == before
    assert _run(gateway, "neighbour", _png()[0]).status_code == 200


@pytest.mark.parametrize("name", ["../up", "a/b", ".staging", "", "a" * 129, "a..b", "-x", "ü"])
def test_a_name_that_could_climb_is_refused(gateway: GatewayProcess, name: str) -> None:
    """Names are checked before the body is read."""
    before = _world(gateway)
    answer = gateway.client.post("/api/v1/register", params={"name": name}, content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (422, "name_invalid")
    assert _world(gateway) == before


def test_a_name_that_differs_in_case_is_a_conflict(gateway: GatewayProcess) -> None:
    """409: on some file systems the two would be one directory."""
    answer = gateway.client.post(
        "/api/v1/register", params={"name": "Neighbour"}, content=_model(2)
    )
    assert (answer.status_code, answer.json()["code"]) == (409, "name_conflict")


@pytest.mark.parametrize("version", ["0", "01", "-1", str(2**63), "x"])
def test_a_version_that_is_none_is_refused(gateway: GatewayProcess, version: str) -> None:
    """422, wherever a version is read."""
    for method, path in (
        ("GET", f"/api/v1/models/neighbour/versions/{version}"),
        ("DELETE", f"/api/v1/models/neighbour/versions/{version}"),
        ("POST", f"/api/v1/load?name=neighbour&version={version}"),
    ):
        answer = gateway.client.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (422, "version_invalid")


@pytest.mark.parametrize("form", [False, True], ids=["raw", "form"])
@pytest.mark.parametrize("declared", [False, True], ids=["chunked", "content-length"])
def test_a_body_over_the_limit_is_refused_as_it_arrives(
    gateway: GatewayProcess, form: bool, declared: bool
) -> None:
    """413, with and without Content-Length, and the disk is back to where it was."""
    before = _world(gateway)
    content = bytes(_LIMIT_BYTES + 10)
    headers = {}
    if form:
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="m"\r\n\r\n'
        content, headers = (
            head + content + b"\r\n--x--\r\n",
            {"Content-Type": "multipart/form-data; boundary=x"},
        )
    pieces = (
        content if declared else (content[i : i + 65536] for i in range(0, len(content), 65536))
    )
    answer = gateway.client.post(
        "/api/v1/register", params={"name": "big"}, content=pieces, headers=headers
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    if declared and not form:
        # Refused by its head: what follows is not read, and the caller has to know that.
        assert answer.headers["connection"] == "close"
    assert _world(gateway) == before


def test_a_form_that_is_none_is_refused(gateway: GatewayProcess) -> None:
    """A form without a model, with two, cut off, or without a boundary: 422."""
    part = b'--x\r\nContent-Disposition: form-data; name="%s"; filename="m"\r\n\r\nabc\r\n'
    kind = "multipart/form-data; boundary=x"
    for body, content_type in (
        (part % b"other" + b"--x--\r\n", kind),
        (part % b"file" * 2 + b"--x--\r\n", kind),
        (part % b"file", kind),
        (b"garbage", kind),
        (b"garbage", "multipart/form-data"),
    ):
        answer = gateway.client.post(
            "/api/v1/register",
            params={"name": "form"},
            content=body,
            headers={"Content-Type": content_type},
        )
        assert (answer.status_code, answer.json()["code"]) == (422, "upload_invalid"), answer.text


def test_a_connection_that_closes_leaves_nothing(gateway: GatewayProcess) -> None:
    """Half an upload is no upload; its staged bytes are gone."""
    before = _world(gateway)

    def half() -> Iterator[bytes]:
        yield bytes(1_000_000)
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        gateway.client.post("/api/v1/register", params={"name": "half"}, content=half())
    # The neighbour's answer comes after the server has seen the end of the other connection.
    assert _run(gateway, "neighbour", _png()[0]).status_code == 200
    assert _world(gateway) == before


def test_the_first_version_is_champion_and_later_ones_touch_no_alias(
    gateway: GatewayProcess,
) -> None:
    """Versions count up; champion stays until somebody moves it; `model_name` is `name`."""
    first = gateway.register("counting", _model(1))
    assert (first["version"], first["message"]) == (1, "Model registered successfully")
    assert (first["classes"], first["inputs"][0]["shape"]) == (5, list(_FREE))
    answer = gateway.client.post(
        "/api/v1/register",
        params={"model_name": "counting"},
        files={"file": ("m.onnx", _model(2))},
    )
    assert answer.json()["version"] == 2
    shown = gateway.client.get("/api/v1/models/counting").json()
    assert shown["aliases"] == {"champion": 1}
    again = gateway.register("counting", _model(2))
    assert (again["version"], again["message"]) == (2, "Model already registered")
    detail = gateway.client.get("/api/v1/models/counting/versions/2").json()
    assert detail["digest"] == again["digest"]
    assert detail["source_digest"] == f"sha256:{hashlib.sha256(_model(2)).hexdigest()}"
    assert [stage["ok"] for stage in detail["validation"]["stages"]] == [True] * 5
    assert detail["validation"]["ok"] is True


def test_the_same_bytes_at_once_become_one_version(gateway: GatewayProcess) -> None:
    """All answer 200 with the one version."""
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: gateway.register("twins", _model(3)), range(6)))
    assert {answer["version"] for answer in answers} == {1}
    assert sum(a["message"] == "Model registered successfully" for a in answers) == 1
    assert gateway.client.get("/api/v1/models/twins").json()["versions"] == [1]


def test_two_gateways_on_one_database_agree(tmp_path: Path) -> None:
    """The same bytes through both at once are one version; other bytes get other numbers."""
    shared = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/shared.db",
        "MODEL_REPOSITORY": str(tmp_path / "repository"),
        "TRITON_URLS": "http://127.0.0.1:9",
    }
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with (
        running_gateway(tmp_path / "a", environment=shared) as one,
        running_gateway(tmp_path / "b", environment=shared) as other,
        ThreadPoolExecutor(4) as threads,
    ):
        uploads = [(one, 1), (other, 1), (one, 2), (other, 3)]
        answers = list(threads.map(lambda u: u[0].register("m", _model(u[1])), uploads))
        assert answers[0]["version"] == answers[1]["version"]
        assert sorted({answer["version"] for answer in answers}) == [1, 2, 3]
        assert sorted(p.name for p in (tmp_path / "repository/m").iterdir()) == [
            "1",
            "2",
            "3",
            "config.pbtxt",
        ]


def test_labels_and_scores(gateway: GatewayProcess) -> None:
    """Labels name the best scores; they are checked; without parameters nothing is added."""
    labels = "rose\ndaisy\ntulip\nlily\niris\n"
    refused = gateway.client.post(
        "/api/v1/register", params={"name": "flowers", "labels": "a\nb"}, content=_model(4)
    )
    assert (refused.status_code, refused.json()["code"]) == (422, "labels_invalid")
    answer = gateway.client.post(
        "/api/v1/register",
        params={"name": "flowers", "load": "true"},
        files={"file": ("m.onnx", _model(4))},
        data={"labels": labels},
    )
    assert answer.json()["labels"] is True
    config = (gateway.folder / "repository/flowers/config.pbtxt").read_text()
    assert 'label_filename: "1/labels.txt"' in config
    image = _png()[0]
    assert set(_run(gateway, "flowers", image).json()) == {"category"}
    scores = _run(gateway, "flowers", image, top_k=3).json()["scores"]
    assert [score["label"] for score in scores] == [
        labels.split()[int(score["category"])] for score in scores
    ]
    assert scores[0]["score"] >= scores[1]["score"] >= scores[2]["score"]
    # These are probabilities already: softmax changes nothing.
    assert _run(gateway, "flowers", image, top_k=3, softmax="true").json()["scores"] == scores


def test_a_record_is_refused_when_it_contradicts_the_model(gateway: GatewayProcess) -> None:
    """422 with what the model takes; unknown presets and fields, too."""
    fixed = classifier_case("m", (None, 3, 8, 8)).make().SerializeToString()
    for record in (
        "nosuch",
        "[1]",
        '{"layout": "NHWC"}',
        '{"layout": "NCHW", "size": [9, 9], "resize": "stretch"}',
        '{"layout": "NCHW", "std": [0, 1, 1]}',
        '{"layout": "NCHW", "typo": 1}',
        "{",
    ):
        answer = gateway.client.post(
            "/api/v1/register",
            params={"name": "record", "preprocessing": record},
            content=fixed,
        )
        assert (answer.status_code, answer.json()["code"]) == (422, "preprocessing_invalid")


def test_another_record_is_another_version(gateway: GatewayProcess) -> None:
    """The same bytes with another record are a version of their own; each is found again."""
    model = classifier_case("m", (None, 3, 8, 8)).make().SerializeToString()
    versions = [
        gateway.register("records", model, preprocessing=record)["version"]
        for record in ("imagenet", "unit", "imagenet", '{"preset": "unit"}')
    ]
    assert versions == [1, 2, 1, 2]


def test_what_holds_a_version_keeps_it_from_being_deleted(gateway: GatewayProcess) -> None:
    """409 while an alias or a load holds it; afterwards it is gone and its number stays taken."""
    client = gateway.client
    for seed in (1, 2):
        gateway.register("deleted", _model(10 + seed))
    path = "/api/v1/models/deleted"
    assert client.delete(f"{path}/versions/1").json()["code"] == "version_in_use"
    client.post("/api/v1/load", params={"name": "deleted", "version": "2"})
    assert client.delete(f"{path}/versions/2").json()["code"] == "version_in_use"
    client.post("/api/v1/unload", params={"name": "deleted"})
    assert client.delete(f"{path}/versions/2").json()["versions"] == [2]
    assert not (gateway.folder / "repository/deleted/2").exists()
    config = (gateway.folder / "repository/deleted/config.pbtxt").read_text()
    assert "versions: 1" in config
    assert gateway.register("deleted", _model(12))["version"] == 3
    assert client.delete(path).status_code == 409
    assert client.delete(f"{path}/aliases/champion").status_code == 204
    assert client.delete(path).json()["versions"] == [1, 3]
    assert client.get(path).status_code == 404
    assert not (gateway.folder / "repository/deleted").exists()
    assert gateway.register("deleted", _model(11))["version"] == 4


def test_an_open_rollout_holds_its_versions(gateway: GatewayProcess) -> None:
    """409 until it has ended, also when its alias is gone."""
    client, path = gateway.client, "/api/v1/models/rolling"
    for seed in (1, 2):
        gateway.register("rolling", _model(40 + seed))
    client.post("/api/v1/load", params={"name": "rolling"})
    rollout = create(gateway, "rolling", strategy="canary", steps=[50], interval_s=600)
    assert client.delete(f"{path}/aliases/challenger").status_code == 204
    for number in (1, 2):
        held = client.delete(f"{path}/versions/{number}")
        assert (held.status_code, held.json()["code"]) == (409, "version_in_use")
    assert client.delete(path).status_code == 409
    assert client.post(f"{path}/rollouts/{rollout}/rollback").status_code == 200
    client.post("/api/v1/unload", params={"name": "rolling", "version": "2"})
    assert client.delete(f"{path}/versions/2").json()["versions"] == [2]


def test_an_alias_moves_only_from_where_the_caller_saw_it(gateway: GatewayProcess) -> None:
    """Compare and swap by If-Match; the version that takes over is loaded first."""
    client, path = gateway.client, "/api/v1/models/moving/aliases/champion"
    for seed in (1, 2):
        gateway.register("moving", _model(20 + seed))
    client.post("/api/v1/load", params={"name": "moving"})
    stale = client.put(path, json={"version": 2}, headers={"If-Match": '"7"'})
    assert (stale.status_code, stale.json()["code"]) == (409, "alias_moved")
    moved = client.put(path, json={"version": 2}, headers={"If-Match": '"1"'})
    assert (moved.status_code, moved.headers["etag"]) == (200, '"2"')
    assert client.get("/api/v1/models/moving").json()["loaded"] == [1, 2]
    assert _run(gateway, "moving", _png()[0]).headers["x-model-version"] == "2"
    assert client.put(path, json={"version": 9}).status_code == 404
    made = client.put("/api/v1/models/moving/aliases/challenger", json={"version": 1})
    assert made.json() == {"alias": "challenger", "version": 1, "generation": 1}
    assert _run(gateway, "moving", _png()[0], alias="challenger").headers["x-model-version"] == "1"


def test_the_advised_record_leads_to_an_answer(gateway: GatewayProcess) -> None:
    """
    A model of planes without a record is told so at once; registered with one, to the letter, the
    same bytes are a new version, which is champion because the first could never answer.
    """
    case = classifier_case("m", (None, 3, 24, 24), seed=77)
    model = bytes(case.make().SerializeToString())
    first = gateway.register("planes", model, load="true")
    assert any("preprocessing=unit" in warning for warning in first["warnings"])
    refused = _run(gateway, "planes", _png()[0])
    assert (refused.status_code, refused.json()["code"]) == (422, "preprocessing_required")
    assert "preprocessing=imagenet, unit" in refused.json()["detail"]
    second = gateway.register("planes", model, preprocessing="unit", load="true")
    assert second["version"] == 2
    assert any("version is champion now" in warning for warning in second["warnings"])
    answered = _run(gateway, "planes", _png()[0])
    assert (answered.status_code, answered.headers["x-model-version"]) == (200, "2")
    third = gateway.register("planes", model, preprocessing="imagenet")
    assert not any("champion now" in warning for warning in third["warnings"])


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("preprocess", "Did you mean preprocessing?"),
        ("labes", "Did you mean labels?"),
        ("x", "There are"),
    ],
)
def test_an_option_that_nobody_would_hear_is_refused(
    gateway: GatewayProcess, option: str, told: str
) -> None:
    """In the query and in the form: 422 with the nearest name, and nothing is registered."""
    before = _world(gateway)
    for given in (
        {"params": {"name": "odd", option: "unit"}, "content": _model(1)},
        {"params": {"name": "odd"}, "files": {"file": _model(1)}, "data": {option: "unit"}},
    ):
        answer = gateway.client.post("/api/v1/register", **given)
        assert (answer.status_code, answer.json()["code"]) == (422, "option_unknown")
        assert told in answer.json()["detail"]
    assert _world(gateway) == before


def test_a_damaged_file_is_never_loaded_and_the_told_cure_mends_it(
    gateway: GatewayProcess,
) -> None:
    """409 artifact_corrupt; the same bytes, given again, put the file back, to the bit."""
    model = _model(30)
    gateway.register("corrupt", model)
    path = gateway.folder / "repository/corrupt/1/model.onnx"
    good = path.read_bytes()

    def damage_bits() -> None:
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))

    def remove_model() -> None:
        shutil.rmtree(path.parent.parent)

    for damage in (damage_bits, path.unlink, remove_model):
        damage()
        answer = gateway.client.post("/api/v1/load", params={"name": "corrupt"})
        assert (answer.status_code, answer.json()["code"]) == (409, "artifact_corrupt")
        assert "Register the same file again" in answer.json()["detail"]
        assert str(gateway.folder) not in answer.text
        again = gateway.register("corrupt", model)
        assert (again["version"], again["message"]) == (1, "Model already registered")
        assert again["warnings"] == ["The file of version 1 was damaged; it was put back."]
        assert path.read_bytes() == good
        assert gateway.register("corrupt", model)["warnings"] == []
        assert gateway.client.post("/api/v1/load", params={"name": "corrupt"}).status_code == 200
        assert _run(gateway, "corrupt", _png()[0]).status_code == 200
        gateway.client.post("/api/v1/unload", params={"name": "corrupt"})


def test_a_model_that_mixes_the_rows_of_a_batch_is_not_batched(gateway: GatewayProcess) -> None:
    """It is published with max_batch_size 0 and a warning, and answers."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("ReduceMean", ["mean"], ["all"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["mean", "all"], ["scores"]),
    ]
    answer = gateway.register("mixing", graph_model(nodes).SerializeToString(), load="true")
    assert any("mixes" in warning for warning in answer["warnings"])
    # Zero is the default, which is not written.
    config = (gateway.folder / "repository/mixing/config.pbtxt").read_text()
    assert "max_batch_size" not in config
    assert _run(gateway, "mixing", _png()[0]).status_code == 200


def test_a_full_disk_answers_507(tmp_path: Path) -> None:
    """An upload that the disk cannot hold changes nothing, and what serves goes on serving."""
    # The same error as a full disk: no file of this process may grow beyond the limit.
    with running_gateway(tmp_path, environment={"TRITON_URLS": "http://127.0.0.1:9"}) as gateway:
        gateway.register("m", _model(1))
        before = _world(gateway)
        prlimit = shutil.which("prlimit")
        assert prlimit is not None
        subprocess.run([prlimit, f"--pid={gateway.process.pid}", "--fsize=3000000"], check=True)
        answer = gateway.client.post(
            "/api/v1/register", params={"name": "m"}, content=bytes(3_500_000)
        )
        assert (answer.status_code, answer.json()["code"]) == (507, "storage_full"), answer.text
        assert _world(gateway) == before


@pytest.mark.slow
def test_every_model_of_the_family_serves_what_onnxruntime_answers(
    gateway: GatewayProcess,
) -> None:
    """Registered, loaded and run over HTTP: the same scores as onnxruntime run directly."""
    turns = threading.Lock()

    def check(index: int) -> None:
        case = FAMILY[index]
        record = _raw_record(case)
        parameters = {} if record is None else {"preprocessing": record}
        name = f"family-{index}"
        answer = gateway.client.post(
            "/api/v1/register",
            params={"name": name, **parameters},
            content=case.make().SerializeToString(),
        )
        if not case.classifier:
            assert answer.json()["code"] == "signature_unsupported"
            return
        assert answer.status_code == 200, (case.id, answer.text)
        image, expected = _direct(case)
        with turns:  # one at a time in memory
            loaded = gateway.client.post("/api/v1/load", params={"name": name})
            assert loaded.status_code == 200, (case.id, loaded.text)
            got = _run(gateway, name, image, top_k=1000).json()
            gateway.client.post("/api/v1/unload", params={"name": name})
        scores = {int(score["category"]): score["score"] for score in got["scores"]}
        np.testing.assert_allclose(
            [scores[i] for i in range(expected.size)], expected, rtol=1e-5, atol=1e-7
        )
        assert int(got["category"]) == int(np.argmax(expected))

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(check, range(len(FAMILY))))


def _raw_record(case: ModelCase) -> str | None:
    shape = case.inputs[0].shape
    return json.dumps({"layout": "NCHW"}) if shape[1] == 3 and len(shape) == 4 else None


def _direct(case: ModelCase) -> tuple[bytes, np.ndarray[Any, Any]]:
    """Make an image of a size that fits, and run the model on it without any server."""
    shape = case.sample_shapes[case.inputs[0].name]
    channels_first = _raw_record(case) is not None
    *_, height, width = shape if channels_first else shape[:-1]
    image, pixels = _png(height, width)
    tensor = pixels.transpose(2, 0, 1) if channels_first else pixels
    tensor = tensor[np.newaxis] if len(shape) == 4 else tensor
    wanted = case.inputs[0]
    session = onnxruntime.InferenceSession(case.make().SerializeToString())
    scores = session.run(None, {wanted.name: tensor.astype(NUMPY_OF_TRITON[wanted.dtype])})[0]
    return image, np.asarray(scores).reshape(-1)


def test_memory_stays_flat_while_a_model_is_uploaded(tmp_path: Path) -> None:
    """A large upload is never held in memory, whatever validation makes of it."""
    size_bytes = 200_000_000
    with running_gateway(tmp_path, environment={"TRITON_URLS": "http://127.0.0.1:9"}) as gateway:
        gateway.client.post("/api/v1/register", params={"name": "m"}, content=b"warm")
        process = psutil.Process(gateway.process.pid)
        before, peak = process.memory_info().rss, 0

        def pieces() -> Iterator[bytes]:
            nonlocal peak
            for _ in range(size_bytes // 1_000_000):
                yield bytes(1_000_000)
                peak = max(peak, process.memory_info().rss)

        answer = gateway.client.post("/api/v1/register", params={"name": "m"}, content=pieces())
        assert answer.json()["code"] == "model_invalid"
        assert peak - before < 40_000_000


def test_original_models_register_too(gateway: GatewayProcess, tmp_path: Path) -> None:
    """The original's kind of model, from a file as a form sends it."""
    original_model(tmp_path / "m.onnx", 10)
    with (tmp_path / "m.onnx").open("rb") as file:
        answer = gateway.client.post(
            "/api/v1/register", params={"name": "original"}, files={"file": file}
        )
    assert answer.status_code == 200
    assert answer.json()["classes"] == 10
