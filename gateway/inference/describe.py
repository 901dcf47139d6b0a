"""What Triton says of versions: metadata and configuration as they are, statistics added up."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from gateway.inference.triton_errors import error_of
from gateway.registry.versions import Catalog, ModelVersion
from gateway.triton.errors import TritonError
from gateway.triton.replicas import Replica, ReplicaSet, Served
from gateway.triton.statistics import IndexEntry

EXTENSIONS = (
    "classification",
    "model_repository",
    "binary_tensor_data",
    "model_configuration",
    "statistics",
    "parameters",
)
"""Of Triton's extensions, those that the gateway speaks."""

_LATEST = frozenset({"last_inference"})
_SAME = frozenset({"batch_size"})


async def describe(replicas: ReplicaSet, chosen: ModelVersion, what: str) -> dict[str, Any]:
    """
    Ask a replica about a version.

    Args:
        replicas: One of them has it ready.
        chosen: The version.
        what: "" for its metadata, "/config" for its configuration.

    Returns:
        What the replica says, under the name and the versions that callers know.

    Raises:
        GatewayError: No replica says it.
    """
    served = chosen.model, chosen.version
    triton_model = replicas.names.triton_model(served)
    path = f"/v2/models/{triton_model}/versions/{chosen.version}{what}"
    try:
        with replicas.lease(served) as lease:
            body = (await lease.ask(lambda client: client.get(path))).body
    except TritonError as error:
        raise error_of(error, chosen) from error
    said: dict[str, Any] = orjson.loads(body)
    said["name"] = chosen.model
    if "versions" in said:
        ready = {number for replica in replicas for number in replica.ready_versions(chosen.model)}
        said["versions"] = [str(number) for number in sorted(ready)]
    return said


def repository_index(catalog: Catalog, replicas: ReplicaSet) -> Iterator[IndexEntry]:
    """List every version with Triton's states, by name and number."""
    for name, model in sorted(catalog.models.items()):
        for number in sorted(model.versions):
            if replicas.serving((name, number)):
                yield IndexEntry(name, number, "READY", "")
                continue
            absent = "not ready" if number in model.desired else "unloaded"
            reason = model.quarantined.get(number) or absent
            yield IndexEntry(name, number, "UNAVAILABLE", reason)


async def statistics(replicas: ReplicaSet, name: str | None, version: int | None) -> list[Any]:
    """
    Add up what all replicas did.

    Args:
        replicas: Those that cannot be reached are left out.
        name, version: Only of this; None: of all.
    """
    answers = await asyncio.gather(
        *(
            replica.client.get(path)
            for replica in replicas.live()
            for path in _statistics_paths(replicas, replica, name, version)
        ),
        return_exceptions=True,
    )
    entries: dict[Served, Any] = {}
    for answer in answers:
        if isinstance(answer, TritonError):
            continue
        if isinstance(answer, BaseException):
            raise answer
        for entry in orjson.loads(answer.body)["model_stats"]:
            served = replicas.names.served(entry["name"], int(entry["version"]))
            if name not in {None, served[0]} or version not in {None, served[1]}:
                continue
            entry["name"] = served[0]
            entries[served] = added(entries[served], entry) if served in entries else entry
    return [entries[served] for served in sorted(entries)]


def _statistics_paths(
    replicas: ReplicaSet, replica: Replica, name: str | None, version: int | None
) -> set[str]:
    """Say what to ask a replica for: all, or the Triton models of one model's ready versions."""
    if name is None:
        return {"/v2/models/stats"}
    numbers = replica.ready_versions(name) if version is None else {version}
    triton_models = {replicas.names.triton_model((name, number)) for number in numbers}
    return {f"/v2/models/{triton_model}/stats" for triton_model in triton_models}


def added(one: Any, other: Any, key: str = "") -> Any:
    """Add two JSON values up: numbers, within objects, and batches of one size."""
    match one, other:
        case dict(), dict():
            return {
                name: added(one[name], other[name], name)
                if name in one and name in other
                else one.get(name, other.get(name))
                for name in [*one, *(name for name in other if name not in one)]
            }
        case list(), list():
            return _added_batches(one, other)
        case bool(), _:
            return one
        case ((int() | float()), (int() | float())) if key in _LATEST:
            return max(one, other)
        case ((int() | float()), (int() | float())) if key not in _SAME:
            return one + other
        case _:
            return one


def _added_batches(one: Iterable[Any], other: Iterable[Any]) -> list[Any]:
    batches: dict[int, Mapping[str, Any]] = {}
    for batch in (*one, *other):
        size = batch.get("batch_size", 0)
        batches[size] = added(batches[size], batch) if size in batches else batch
    return [batches[size] for size in sorted(batches)]
