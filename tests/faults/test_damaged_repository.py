"""
What is wrong with one model's directory is that model's affair: the gateway refuses, names it, and
starts.
"""

import shutil
import sqlite3
from pathlib import Path

import pytest

from gateway.converter.model_config import ConfigOptions
from gateway.converter.placement import Placement
from gateway.converter.publish import publish_version
from testbed.gateway_process import running_gateway
from tests.model_family import classifier_case
from tests.unit.converter.test_place import DAMAGES

_TABLES = (
    *("models", "versions", "reports", "numbers", "unsettled"),
    *("aliases", "desired", "quarantine", "state", "audit"),
)
_NAMES = {damage: damage.replace(" ", "-").replace("'", "") for damage in DAMAGES}
# No replica is needed to register, and without one the gateway starts at once.
_ENVIRONMENT = {"TRITON_URLS": "http://127.0.0.1:9"}


def _model(seed: int) -> bytes:
    case = classifier_case("m", (None, 8, 8, 3), seed=seed)
    return bytes(case.make().SerializeToString())


def _publish(folder: Path) -> None:
    """Lay two versions of each model into the repository, where a gateway finds them."""
    options = ConfigOptions(placement=Placement(1, 1))
    for version in (1, 2):
        source = folder / f"{version}.onnx"
        source.write_bytes(_model(version))
        for name in _NAMES.values():
            publish_version(
                source,
                repository=folder / "repository",
                name=name,
                version=version,
                options=options,
            )


def _rows(folder: Path) -> dict[str, list[tuple[object, ...]]]:
    with sqlite3.connect(f"file:{folder}/var/gateway.db?mode=ro", uri=True) as connection:
        rows = {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in _TABLES}
    connection.close()
    return rows


def _files(folder: Path) -> list[str]:
    repository = folder / "repository"
    found = (str(path.relative_to(repository)) for path in repository.rglob("*"))
    return sorted(path for path in found if not path.startswith(".staging"))


@pytest.mark.timeout(300)
def test_a_damaged_model_is_refused_and_leaves_the_others_alone(tmp_path: Path) -> None:
    """
    For each damage: registering and deleting are refused and change neither files nor rows; the
    next start names the model, also where a crash had left a claim of it or nobody had registered
    it; a sound model goes on.
    """
    _publish(tmp_path)
    with running_gateway(tmp_path, environment=_ENVIRONMENT) as gateway:
        gateway.register("sound", _model(1))
        for damage, name in _NAMES.items():
            damaging, code = DAMAGES[damage]
            shutil.copytree(tmp_path / "repository" / name, tmp_path / "repository" / f"new-{name}")
            for directory in (name, f"new-{name}"):
                (tmp_path / directory).mkdir()
                damaging(tmp_path / "repository" / directory)
                if (left := tmp_path / "elsewhere").exists():
                    left.rename(tmp_path / directory / "elsewhere")
            before = _rows(tmp_path), _files(tmp_path)
            for answer in (
                gateway.client.post("/api/v1/register", params={"name": name}, content=_model(3)),
                gateway.client.delete(f"/api/v1/models/{name}/versions/2"),
            ):
                assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
                assert name in answer.json()["detail"]
                assert str(tmp_path) not in answer.text
            assert (_rows(tmp_path), _files(tmp_path)) == before
    with sqlite3.connect(tmp_path / "var/gateway.db") as connection:
        for name in _NAMES.values():
            claim = (name, 7, "s", "", "gateway-of-before", 0.0)
            connection.execute("INSERT INTO unsettled VALUES (?, ?, ?, ?, ?, ?)", claim)
    connection.close()
    with running_gateway(tmp_path, environment=_ENVIRONMENT) as gateway:
        gateway.register("sound", _model(2))
        for damage, name in _NAMES.items():
            assert gateway.line_with("unfinished_version_left", name)
            if damage != "model is a file":  # a file that nobody registered is no model
                assert gateway.line_with("model_skipped", f"new-{name}")
            assert gateway.client.get(f"/api/v1/models/{name}").json()["versions"] == [1, 2]
