"""What lies in a repository is adopted whole, or named with the reason."""

import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from gateway.converter.model_config import ConfigOptions
from gateway.converter.publish import publish_version
from gateway.registry.adoption import adopt_repository
from gateway.registry.identity import record_digest, record_of
from gateway.registry.registry import Registry
from gateway.store.database import Database, open_database
from gateway.store.versions import VersionStore
from tests.model_family import original_model

_LABELS = ("ant", "bee", "cow", "dog", "elk")
_UNIT = {"layout": "NHWC", "scale": 1 / 255}


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await open_database(f"sqlite:///{tmp_path}/gateway.db")
    yield opened
    await opened.close()


async def _registry(database: Database) -> Registry:
    registry = Registry(VersionStore(database))
    await registry.refresh()
    return registry


def _publish(repository: Path, version: int, **given: Any) -> None:
    source = repository.parent / "source.onnx"
    original_model(source, 5, seed=version)
    publish_version(
        source, repository=repository, name="m", version=version, options=ConfigOptions(), **given
    )


async def test_a_lost_database_is_made_anew_with_records_and_labels(
    database: Database, tmp_path: Path
) -> None:
    """What a registration said of a version is kept beside its file."""
    repository = tmp_path / "repository"
    record = record_of(_UNIT, kept_graph=False, scores="logits", trial_shape=[1, 8, 8, 3])
    _publish(repository, 1, labels=_LABELS, record=record)
    registry = await _registry(database)
    assert await adopt_repository(registry, repository) == ["m"]
    version = registry.catalog.model("m").champion
    assert version.labels == _LABELS
    assert version.preprocessing is not None
    assert version.preprocessing.scale == pytest.approx(1 / 255)
    assert (version.scores, version.trial_shape) == ("logits", (1, 8, 8, 3))
    given = version.preprocessing.model_dump(mode="json")
    assert version.record_digest == record_digest(given, _LABELS)
    kept = json.loads((repository / "m/1/gateway.json").read_text())
    assert version.source_digest == kept["source_digest"] != version.digest
    assert version.changes == tuple(kept["changes"]) != ()


@pytest.mark.parametrize("place", ["m/labels.txt", "m/names.txt"])
async def test_labels_of_all_versions_are_read(
    place: str, database: Database, tmp_path: Path
) -> None:
    """Those that config.pbtxt names, or that lie beside it, as a Triton user puts them."""
    repository = tmp_path / "repository"
    _publish(repository, 1)
    (repository / place).write_text("\ufeff" + "".join(f"{label}\n" for label in _LABELS))
    config = repository / "m/config.pbtxt"
    if place.endswith("names.txt"):
        text = config.read_text().replace("output {", 'output {\n  label_filename: "names.txt"', 1)
        config.write_text(text)
    registry = await _registry(database)
    await adopt_repository(registry, repository)
    assert registry.catalog.model("m").champion.labels == _LABELS


async def test_a_version_that_was_put_there_by_hand_is_found(
    database: Database, tmp_path: Path
) -> None:
    """Of a model that is registered, too; it takes no alias, and no number is used twice."""
    repository = tmp_path / "repository"
    for version in (1, 3):
        _publish(repository, version)
    registry = await _registry(database)
    await adopt_repository(registry, repository)
    shutil.copytree(repository / "m/1", repository / "m/7")
    shutil.copytree(repository / "m/1", repository / "m/2")
    with structlog.testing.capture_logs() as logs:
        assert await adopt_repository(registry, repository) == []
    model = registry.catalog.model("m")
    assert (set(model.versions), dict(model.aliases)) == ({1, 3, 7}, {"champion": 3})
    assert ["number 2 was given" in str(log.get("reason")) for log in logs] == [True, False]


def _other_name(repository: Path) -> None:
    (repository / "m/1/model.onnx").rename(repository / "m/1/net.onnx")
    config = repository / "m/config.pbtxt"
    config.write_text(config.read_text() + 'default_model_filename: "net.onnx"\n')


def _rename(to: str) -> Callable[[Path], object]:
    return lambda repository: (repository / "m/1").rename(repository / to)


def _backend(repository: Path) -> None:
    (repository / "m/config.pbtxt").write_text('name: "m"\nplatform: "tensorrt_plan"\n')
    (repository / "m/1/model.onnx").rename(repository / "m/1/model.plan")


def _torch(repository: Path) -> None:
    (repository / "m/1/model.onnx").rename(repository / "m/1/model.pt")


def _flat(repository: Path) -> None:
    (repository / "m/1/model.onnx").rename(repository / "flat.onnx")
    shutil.rmtree(repository / "m")


def _bad_record(repository: Path) -> None:
    (repository / "m/1/gateway.json").write_text('{"preprocessing": {"scale": "big"}}')


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_other_name, "m/1 names its model net.onnx (default_model_filename): rename it to"),
        (_rename("m/01"), "m/01 is no version"),
        (_rename("m/latest"), "m/latest is no version"),
        (_backend, "names the backend tensorrt_plan: only ONNX is served"),
        (_torch, "m/1 holds model.pt, a model of PyTorch"),
        (_flat, "flat.onnx is a file; a model is a directory: flat/1/model.onnx"),
        (lambda repository: shutil.rmtree(repository / "m/1"), "m holds no version"),
        (_bad_record, "The gateway.json of version 1 of m cannot be read"),
    ],
)
async def test_what_is_not_adopted_is_named_with_the_reason(
    change: Callable[[Path], object], told: str, database: Database, tmp_path: Path
) -> None:
    """Nothing is passed over in silence."""
    repository = tmp_path / "repository"
    _publish(repository, 1)
    change(repository)
    registry = await _registry(database)
    with structlog.testing.capture_logs() as logs:
        assert await adopt_repository(registry, repository) == []
    reasons = [str(log["reason"]) for log in logs if "reason" in log]
    assert any(told in reason for reason in reasons), reasons
