"""Rollouts through HTTP against a real Triton: promoted, rolled back, and what callers notice."""

import base64
import contextlib
import hashlib
import io
import json
import sqlite3
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from testbed.gateway_process import GatewayProcess, running_gateway
from testbed.rollout_calls import WITHIN_S, champion, create, register, register_two, show, until
from testbed.rollout_family import EASY, colour_model, image_of, load

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with running_gateway(
        tmp_path_factory.mktemp("rollouts"),
        environment={
            "ROLLOUT_POLL_S": "0.1",
            "CHALLENGER_TIMEOUT_S": "5",
            "KEEP_DISAGREEING_IMAGES": "true",
        },
    ) as process:
        yield process


def test_an_equal_version_is_promoted_by_itself(gateway: GatewayProcess, tmp_path: Path) -> None:
    """Through shadow and canary, under load, with no failed request and only legal versions."""
    register_two(gateway, "equal", tmp_path)
    with load(gateway.url, "equal") as clients:
        rollout = create(gateway, "equal", strategy=["shadow", "canary"], steps=[50, 100])
        shadow = show(gateway.client, rollout)
        assert (shadow["phase"], shadow["weight"], shadow["mirror_share"]) == (
            "Progressing",
            0,
            100,
        )
        ended = until(gateway.client, rollout, "Succeeded", "Failed", "Waiting")
        promoted_at_s = time.time()
        time.sleep(0.3)
    assert (ended["phase"], ended["weight"]) == ("Succeeded", 100)
    assert ended["verdicts"][-1]["outcome"] == "Successful"
    assert champion(gateway.client, "equal") == 2
    assert set(clients.statuses) == {200}
    assert clients.errors == []
    assert set(clients.versions) == {"1", "2"}
    late = {answer.version for answer in clients.answers if answer.began_s > promoted_at_s}
    assert late == {"2"}
    assert clients.wrong == 0


def test_flipped_labels_are_held_and_labels_roll_them_back(
    gateway: GatewayProcess, tmp_path: Path
) -> None:
    """Other answers hold the shadow; a label that says who is right ends it. No caller saw it."""
    register_two(gateway, "flipped", tmp_path, flipped=True)
    with load(gateway.url, "flipped") as clients:
        metrics = EASY | {"accuracy": {"min_samples": 10}}
        plan = {"strategy": ["shadow", "canary"], "steps": [50], "metrics": metrics}
        rollout = create(gateway, "flipped", **plan)
        held = until(gateway.client, rollout, "Succeeded", "Failed", "Waiting")
    assert (held["phase"], held["waits_for"], held["weight"]) == ("Waiting", "evidence", 0)
    assert "agreement" in held["reason"]
    # One caller leaves room, so that every request is copied and its label tells of both versions.
    with load(gateway.url, "flipped", clients=1, feedback=1.0):
        ended = until(gateway.client, rollout, "Succeeded", "Failed")
    assert (ended["phase"], ended["weight"]) == ("Failed", 0)
    assert "accuracy" in ended["reason"]
    assert set(clients.versions) == {"1"}
    assert champion(gateway.client, "flipped") == 1
    samples = gateway.client.get(f"/api/v1/rollouts/{rollout}/samples").json()
    assert samples
    assert samples[0]["champion"]["category"] != samples[0]["challenger"]["category"]
    url = f"/api/v1/models/flipped/rollouts/{rollout}/samples"
    kept = gateway.client.get(f"{url}/{samples[0]['image_digest']}/image")
    assert (kept.status_code, kept.headers["content-type"]) == (200, "image/png")
    sent = {base64.b64decode(image_of(category)["image"]) for category in range(3)}
    assert kept.content in sent
    assert samples[0]["image_digest"] == f"sha256:{hashlib.sha256(kept.content).hexdigest()}"
    missing = gateway.client.get(f"{url}/sha256:0/image")
    assert (missing.status_code, missing.json()["code"]) == (404, "sample_not_found")


def test_two_promotions_one_wins(gateway: GatewayProcess, tmp_path: Path) -> None:
    """Of two promotions at once one is answered 200, the other 409; nothing is lost meanwhile."""
    register_two(gateway, "race", tmp_path)
    rollout = create(gateway, "race", strategy="canary", steps=[50])
    second = gateway.client.post("/api/v1/models/race/rollouts", json={"version": 2})
    assert (second.status_code, second.json()["code"]) == (409, "rollout_in_progress")
    answers: list[httpx.Response] = []

    def promote() -> None:
        answers.append(httpx.post(f"{gateway.url}/api/v1/models/race/rollouts/{rollout}/promote"))

    with load(gateway.url, "race") as clients:
        threads = [threading.Thread(target=promote) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    assert next(a for a in answers if a.status_code == 409).json()["code"] == "rollout_conflict"
    assert show(gateway.client, rollout)["phase"] == "Succeeded"
    assert set(clients.statuses) == {200}


def test_callers_stay_on_their_side_and_feedback_is_counted(
    gateway: GatewayProcess, tmp_path: Path
) -> None:
    """The same key gets the same version; registering and pausing leave the weights alone."""
    register_two(gateway, "sticky", tmp_path)
    rollout = create(gateway, "sticky", strategy="ab", steps=[50], interval_s=60)
    with load(gateway.url, "sticky", clients=12, keys=True) as clients:
        assert register(gateway, "sticky", colour_model(tmp_path / "3.onnx", seed=3)) == 3
        for command in ("pause", "resume"):
            answer = gateway.client.post(f"/api/v1/rollouts/{rollout}/{command}")
            assert (answer.status_code, answer.json()["weight"]) == (200, 50)
        answer = gateway.client.post("/api/v1/run/sticky", json=image_of(1))
        told = {"request_id": answer.headers["x-request-id"], "category": "01"}
        for counted in (True, False):
            judged = gateway.client.post("/api/v1/feedback", json=told).json()
            assert (judged["correct"], judged["counted"]) == (True, counted)
    sides = {(answer.client, answer.version) for answer in clients.answers}
    assert len(sides) == len({answer.client for answer in clients.answers})
    assert set(clients.versions) == {"1", "2"}
    seen = show(gateway.client, rollout)["observations"]
    assert seen["champion"]["labelled"] + seen["challenger"]["labelled"] == 1
    asked = seen["of_callers_champion"] + seen["of_callers_challenger"]
    assert asked > 12
    assert seen["callers_champion"]["requests"] + seen["callers_challenger"]["requests"] <= 12
    rolled = gateway.client.post(f"/api/v1/rollouts/{rollout}/rollback")
    assert (rolled.json()["phase"], rolled.json()["weight"]) == ("Failed", 0)
    unknown = gateway.client.post("/api/v1/feedback", json=told | {"request_id": "never"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "answer_not_found")


def test_bad_plans_are_refused(gateway: GatewayProcess, tmp_path: Path) -> None:
    """What makes no sense is 422 with a stable code, and nothing is begun."""
    register_two(gateway, "plans", tmp_path)
    url = "/api/v1/models/plans/rollouts"
    for body in (
        {"version": 1},
        {"version": 2, "steps": [0]},
        {"version": 2, "steps": [100]},
        {"version": 2, "metrics": {"beauty": {}}},
        {"version": 2, "metrics": {"latency": {"tolerated": 7}}},
        {"version": 2, "interval_s": 0},
        {"version": 2, "deadline_s": 1e12},
        {"version": 2, "labels": {"fraction": 0}},
    ):
        answer = gateway.client.post(url, json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "rollout_invalid"), body
    for name in ("interval_s", "deadline_s", "alpha", "steps", "labels"):
        for odd in ("NaN", "Infinity", "-Infinity", "1e999"):
            value = {"steps": f"[{odd}]", "labels": f'{{"delay_s": {odd}}}'}.get(name, odd)
            text = f'{{"version": 2, "{name}": {value}}}'
            headers = {"Content-Type": "application/json"}
            answer = gateway.client.post(url, content=text, headers=headers)
            assert answer.status_code == 422, (text, answer.text)
    assert gateway.client.post(url, json={"version": 9}).status_code == 404
    assert gateway.client.get(url).json() == []


def test_odd_rows_do_not_hide_the_others(gateway: GatewayProcess, tmp_path: Path) -> None:
    """A rollout whose stored state cannot be read is shown, and ended; its model goes on."""
    register_two(gateway, "odd", tmp_path)
    rollout = create(gateway, "odd", strategy="canary", steps=[50])
    with contextlib.closing(sqlite3.connect(gateway.folder / "var/gateway.db")) as other:
        (text,) = other.execute("SELECT state FROM rollouts WHERE id = ?", [rollout]).fetchone()
        state = json.loads(text)
        state["plan"]["deadline_s"] = 1e300
        change = "UPDATE rollouts SET state = ? WHERE id = ?"
        other.execute(change, [json.dumps(state), rollout])
        other.commit()
    ended = until(gateway.client, rollout, "Failed")
    assert "cannot be read" in ended["reason"]
    listed = gateway.client.get("/api/v1/rollouts")
    assert listed.status_code == 200
    assert rollout in {each["id"] for each in listed.json()}
    assert gateway.client.post("/api/v1/run/odd", json=image_of(1)).status_code == 200
    create(gateway, "odd", strategy="canary", steps=[50])


def test_unloading_the_champion_ends_its_rollout(gateway: GatewayProcess, tmp_path: Path) -> None:
    """Without its champion a rollout has nobody to fall back on: it ends, and says why."""
    register_two(gateway, "gone", tmp_path)
    rollout = create(gateway, "gone", strategy="canary", steps=[50])
    assert gateway.client.post("/api/v1/unload", params={"name": "gone"}).json() == 200
    ended = until(gateway.client, rollout, "Failed")
    assert "was unloaded" in ended["reason"]
    assert gateway.client.post("/api/v1/load", params={"name": "gone"}).json() == 200
    assert gateway.client.post("/api/v1/run/gone", json=image_of(1)).status_code == 200


def test_the_evaluation_set_guards_the_gate(gateway: GatewayProcess, tmp_path: Path) -> None:
    """A version that is shown to be worse on the set is refused; too few images: a shadow only."""
    register_two(gateway, "gate", tmp_path, flipped=True)
    register(gateway, "gate", colour_model(tmp_path / "three.onnx", seed=3))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as content:
        lines = ["file,category"]
        for number in range(30):
            body = image_of(number % 3)["image"]
            content.writestr(f"{number}.png", base64.b64decode(body))
            lines.append(f"{number}.png,{number % 3}")
        content.writestr("labels.csv", "\n".join(lines))
    url = "/api/v1/models/gate"
    broken = gateway.client.put(f"{url}/evaluation-set", content=b"no zip")
    assert (broken.status_code, broken.json()["code"]) == (422, "evaluation_set_invalid")
    mistyped = io.BytesIO()
    with zipfile.ZipFile(mistyped, "w") as content:
        content.writestr("0.png", b"")
        content.writestr("labels.csv", "0.png,7000")
    broken = gateway.client.put(f"{url}/evaluation-set", content=mistyped.getvalue())
    assert (broken.status_code, broken.json()["code"]) == (422, "evaluation_set_invalid")
    assert "labels.csv, line 1: category 7000" in broken.json()["detail"]
    answer = gateway.client.put(f"{url}/evaluation-set", content=archive.getvalue())
    assert (answer.status_code, answer.json()["images"]) == (200, 30), answer.text
    early = gateway.client.post(f"{url}/rollouts", json={"version": 2, "strategy": "shadow"})
    assert (early.status_code, early.json()["code"]) == (409, "evaluation_pending")
    deadline_s = time.monotonic() + WITHIN_S
    while (third := gateway.client.get(f"{url}/versions/3/evaluation")).status_code != 200:
        assert time.monotonic() < deadline_s, third.text
        time.sleep(0.1)
    assert third.json()["evaluation"]["accuracy"] == 1
    assert third.json()["comparison"]["outcome"] == "Inconclusive"
    flipped = gateway.client.get(f"{url}/versions/2/evaluation").json()
    assert flipped["evaluation"]["accuracy"] == 0
    refused = gateway.client.post(f"{url}/rollouts", json={"version": 2, "strategy": "shadow"})
    assert (refused.status_code, refused.json()["code"]) == (409, "evaluation_failed")
    seen = gateway.client.post(f"{url}/rollouts", json={"version": 3, "strategy": "canary"})
    assert (seen.status_code, seen.json()["code"]) == (409, "evaluation_failed")
    rollout = create(gateway, "gate", version=3, strategy="shadow")
    assert show(gateway.client, rollout)["gate"]["outcome"] == "Inconclusive"
