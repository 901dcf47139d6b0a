"""
Publish a validated upload, in a process of its own: reading a model takes several times its size in
memory, and the gateway's stays flat. Run as `python -I -m gateway.registry.publishing`.

The process shares the gateway's staging lock: until both are gone, no other gateway takes what they
were doing for left behind.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.converter.errors import ConverterError
from gateway.converter.model_config import ConfigOptions, placement_for_machine
from gateway.converter.publish import publish_version
from gateway.converter.signature import ModelSignature
from gateway.converter.uint8_input import InputPolicy
from gateway.errors import GatewayError
from gateway.registry.refusals import refusal_of
from gateway.system.child_process import run_child
from gateway.system.full_disk import exit_if_full
from gateway.system.processes import die_with_parent

_MODULE = "gateway.registry.publishing"
_RESULT_FILE = "published.json"
_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Published:
    """What lies in the repository now."""

    version: int
    digest: str
    size_bytes: int
    signature: ModelSignature
    config: str
    changes: tuple[str, ...]


async def publish(
    model: Path,
    *,
    folder: Path,
    repository: Path,
    name: str,
    version: int,
    max_batch_size: int,
    change_graph: bool,
    labels: Sequence[str] | None,
    record: Mapping[str, Any],
    lock: int,
) -> Published:
    """
    Publish a file as a version of a model.

    Args:
        model: The file; absolute, as all paths here.
        folder: An existing folder for the process.
        repository, name, version: Where to.
        max_batch_size: Largest batch; 0: never batch.
        change_graph: Put a Cast from UINT8 in front of the graph.
        labels: One class name for each score.
        record: What is kept beside the file.
        lock: The descriptor of the staging lock.

    Raises:
        GatewayError: It could not be published; nothing of it is in the repository.
    """
    request = {
        "model": str(model),
        "result": str(folder / _RESULT_FILE),
        "repository": str(repository),
        "name": name,
        "version": version,
        "max_batch_size": max_batch_size,
        "change_graph": change_graph,
        "labels": None if labels is None else list(labels),
        "record": dict(record),
    }
    ended = await run_child(
        _MODULE, request, folder=folder, timeout_s=_TIMEOUT_S, keep_open=(lock,)
    )
    try:
        result = json.loads((folder / _RESULT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise GatewayError(
            f"The version could not be published (the process ended with {ended.code}): "
            f"{ended.log.strip().splitlines()[-1:]}"
        ) from None
    if "code" in result:
        raise _refusal(result)
    return Published(
        version=version,
        digest=result["digest"],
        size_bytes=result["size_bytes"],
        signature=ModelSignature.from_json(result["signature"]),
        config=result["config"],
        changes=tuple(result["changes"]),
    )


def _refusal(result: dict[str, Any]) -> GatewayError:
    return refusal_of(result["code"], result["detail"])


def main() -> None:
    """Publish what standard input describes."""
    request = json.load(sys.stdin)
    die_with_parent()
    result: dict[str, Any]
    try:
        published = publish_version(
            Path(request["model"]),
            repository=Path(request["repository"]),
            name=request["name"],
            version=request["version"],
            options=ConfigOptions(
                placement=placement_for_machine(), max_batch_size=request["max_batch_size"]
            ),
            policy=InputPolicy(pixels=request["change_graph"], keep_graph=False),
            labels=request["labels"],
            record=request["record"],
        )
    except ConverterError as error:
        result = {"code": error.code, "detail": str(error)}
    else:
        result = {
            "digest": published.digest,
            "size_bytes": published.size_bytes,
            "signature": published.signature.to_json(),
            "config": published.config_text,
            "changes": list(published.changes),
        }
    with exit_if_full():
        Path(request["result"]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
