"""Evaluations in the background, on a real database, of models that a function stands for."""

import asyncio
import io
import zipfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from gateway.registry.lifecycle import Lifecycle
from gateway.registry.registry import Registry
from gateway.rollouts.control.evaluation_set import path_of
from gateway.rollouts.control.evaluations import Evaluations
from gateway.store.database import open_database
from gateway.store.evaluations import EvaluationStore
from gateway.store.leases import LeaseStore
from gateway.store.registrations import RegistrationStore
from gateway.store.rollouts import RolloutStore
from gateway.store.versions import NewVersion, VersionStore
from tests.eventually import eventually

_SIGNATURE: dict[str, Any] = {
    "inputs": [{"name": "image", "dtype": "FP32", "shape": [None, 4, 4, 3]}],
    "outputs": [{"name": "scores", "dtype": "FP32", "shape": [None, 3]}],
    "ir_version": 8,
    "opsets": {"": 17},
}


def _set(text: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("1.png", text)
        archive.writestr("labels.csv", "1.png,2\n")
    return buffer.getvalue()


class _Loads:
    async def load(self, name: str, version: int | None = None, *, actor: str) -> None: ...

    async def unload(self, name: str, version: int | None = None, *, actor: str) -> None: ...


async def test_one_bad_set_is_its_own_models_matter_alone(tmp_path: Path) -> None:
    """
    What goes wrong with one model's set, foreseen or not, is its result, told once; the sets that
    come after it are evaluated.
    """
    database = await open_database(f"sqlite:///{tmp_path}/gateway.db")
    versions = VersionStore(database)
    for name in ("a-gone", "b-damaged", "c-starved", "d-good"):
        await versions.add_version(
            NewVersion(name, 1, "d", "d", 1, _SIGNATURE, f'name: "{name}"', (), "test"), actor="t"
        )
    registry = Registry(versions)
    await registry.refresh()
    folder = tmp_path / "sets"
    store = EvaluationStore(database)
    evaluations = Evaluations(
        store,
        RolloutStore(database),
        LeaseStore(database),
        registry,
        cast("Lifecycle", _Loads()),
        RegistrationStore(database).report,
        folder=folder,
        gateway="one",
    )
    rows = {
        name: await evaluations.put_set(name, _set(name.encode()))
        for name in registry.catalog.names()
    }
    path_of(folder, rows["a-gone"].digest).unlink()
    path_of(folder, rows["b-damaged"].digest).write_bytes(b"PK")

    async def ask(name: str, _version: int, _image: bytes) -> npt.NDArray[np.generic]:
        if name == "c-starved":
            raise MemoryError
        return np.array([0.1, 0.1, 0.8])

    following = asyncio.create_task(evaluations.follow(ask))
    try:

        async def all_done() -> bool:
            known = [await store.evaluated(name, row.digest) for name, row in rows.items()]
            return all(versions == {1} for versions in known)

        await eventually(all_done)
    finally:
        following.cancel()
    results = {name: (await evaluations.result(name, 1))[0] for name in rows}
    assert {name: row.error for name, row in results.items()} == {
        "a-gone": "The set's file is gone.",
        "b-damaged": "The set cannot be read: File is not a zip file",
        "c-starved": "It could not be evaluated (MemoryError).",
        "d-good": None,
    }
    evaluation = results["d-good"].evaluation
    assert evaluation is not None
    assert evaluation["confusion"] == [[2, 2, 1]]
    await database.close()
