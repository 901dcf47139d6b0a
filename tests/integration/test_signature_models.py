"""
Versions whose inputs or outputs differ replace each other under load, on a real Triton: one class
more, another size, another layout, other numbers.
"""

from pathlib import Path
from typing import Any

import pytest

from testbed.gateway_process import GatewayProcess, running_gateway
from testbed.rollout_family import PICTURES
from testbed.rollout_load import Load
from testbed.rollout_switching import switch
from testbed.signature_family import CHANGES, UNIT, colours, side_of
from tests.eventually import eventually


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Any:
    settings = {"MAX_WAITING_RUNS": "1000", "METRICS_FLUSH_INTERVAL_S": "1"}
    with running_gateway(tmp_path_factory.mktemp("signatures"), environment=settings) as process:
        yield process


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.timeout(180)
def test_a_version_with_another_signature_takes_over_and_goes_back_under_load(
    gateway: GatewayProcess, change: str
) -> None:
    """
    It is registered with a warning, loaded beside the champion, promoted and rolled back by
    rollouts and by the alias; no request fails, and every answer is right and of a version in
    force. Callers and operators see one model.
    """
    name = change
    side = side_of(change)
    changed, record = CHANGES[change]
    gateway.register(name, colours(side=side), preprocessing=UNIT, load="true")
    second = gateway.register(name, colours(**{"side": side, **changed}), preprocessing=record)
    assert second["version"] == 2
    assert any("than version 1" in warning for warning in second["warnings"])
    with Load(gateway.url, name, PICTURES, clients=8) as clients:
        done = switch(gateway.url, name, clients)
        answer = gateway.client.post("/api/v1/load", params={"name": name, "version": 2})
        assert answer.status_code == 200, answer.text
    assert clients.errors == []
    assert set(clients.statuses) == {200}
    assert clients.wrong == 0
    assert done.illegal(clients.answers) == []
    assert set(clients.versions) == {"1", "2"}
    _check_what_is_shown(gateway, name)


def _check_what_is_shown(gateway: GatewayProcess, name: str) -> None:
    repository = gateway.folder / "repository"
    further = f"{name}.signature-2"
    assert (repository / name / "1/model.onnx").is_file()
    assert (repository / further / "2/model.onnx").is_file()
    shown = gateway.client.get(f"/api/v1/models/{name}").json()
    assert shown["loaded"] == [1, 2]
    assert {v["state"] for v in shown["replicas"]["embedded"].values()} == {"READY"}
    for path in ("/api/v1/list", "/api/v1/models", "/metrics", "/api/v1/metrics"):
        text = gateway.client.get(path).text
        assert "signature-2" not in text, path
        assert name in text, path
    refused = gateway.client.post("/api/v1/register", params={"name": further}, content=b"x")
    assert (refused.status_code, refused.json()["code"]) == (422, "name_invalid")


async def test_computing_is_compared_between_signatures(gateway: GatewayProcess) -> None:
    """Windows of Triton's own measurements are counted where versions lie in two Triton models."""
    gateway.register("computed", colours(), preprocessing=UNIT, load="true")
    gateway.register("computed", colours(classes=4), preprocessing=UNIT)
    plan = {"version": 2, "strategy": "canary", "steps": [50], "interval_s": 3600}
    with Load(gateway.url, "computed", PICTURES, clients=4, pause_s=0.01):
        begun = gateway.client.post("/api/v1/models/computed/rollouts", json=plan)
        assert begun.status_code == 200, begun.text
        one = f"/api/v1/rollouts/{begun.json()['id']}"

        def compared() -> bool:
            compute = gateway.client.get(one).json()["observations"]["compute"]
            return bool(compute["windows"])

        await eventually(compared, within_s=20)
        gateway.client.post(f"{one}/rollback")


async def test_what_lies_beside_is_repaired_deleted_and_adopted(tmp_path: Path) -> None:
    """
    A killed process of a further Triton model is replaced; versions are deleted where they lie; a
    gateway that lost its database finds both Triton models to be one model.
    """
    with running_gateway(tmp_path) as gateway:
        gateway.register("m", colours(), preprocessing=UNIT, load="true")
        gateway.register("m", colours(classes=4), preprocessing=UNIT, load="true")
        gateway.register("m", colours(classes=4, seed=1), preprocessing=UNIT)
        for stub in gateway.stubs():
            if "m.signature-2" in " ".join(stub.cmdline()):
                stub.kill()
        for version in (1, 2):
            await _until_answered(gateway, version)
        answer = gateway.client.delete("/api/v1/models/m/versions/3")
        assert answer.status_code == 200, answer.text
        assert not (tmp_path / "repository/m.signature-2/3").exists()
    for file in (tmp_path / "var").glob("gateway.db*"):
        file.unlink()
    with running_gateway(tmp_path) as gateway:
        shown = gateway.client.get("/api/v1/models/m").json()
        assert shown["versions"] == [1, 2]
        assert "m.signature-2" not in gateway.client.get("/api/v1/models").text
        for version in (1, 2):
            loaded = gateway.client.post(f"/api/v1/load?name=m&version={version}")
            assert loaded.status_code == 200, loaded.text


async def _until_answered(gateway: GatewayProcess, version: int) -> None:
    """Ask until the version answers; a request may fall between a kill and the repair."""

    def answered() -> bool:
        answer = gateway.client.post(
            f"/api/v1/run/m?version={version}",
            content=PICTURES[0].body,
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code in {200, 502, 503}, answer.text
        return answer.status_code == 200

    await eventually(answered, within_s=10)
