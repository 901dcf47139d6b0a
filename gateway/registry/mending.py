"""
Put the file of a registered version back from the bytes that were registered, in a process of its
own as `publishing` does. Run as `python -I -m gateway.registry.mending`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import structlog

from gateway.converter.errors import ConverterError
from gateway.converter.mend import mend_version
from gateway.errors import ArtifactCorrupt
from gateway.registry.identity import record_digest, record_of
from gateway.registry.refusals import refusal_of
from gateway.registry.versions import ModelVersion
from gateway.system.child_process import run_child
from gateway.system.full_disk import exit_if_full
from gateway.system.processes import die_with_parent

log = structlog.get_logger(__name__)

_MODULE = "gateway.registry.mending"
_RESULT_FILE = "mended.json"
_TIMEOUT_S = 600.0


async def mend(
    version: ModelVersion, source: Path, *, folder: Path, repository: Path, lock: int
) -> None:
    """
    Put a version's file back.

    Args:
        version: The version, whose file is gone or was changed.
        source: The file that it was made of; absolute, as all paths here.
        folder: An existing folder for the process.
        repository: Where the version belongs.
        lock: The descriptor of the staging lock.

    Raises:
        ArtifactCorrupt: This release makes another file of the source.
        GatewayError: The repository does not take it; nothing was changed.
    """
    request = {
        "source": str(source),
        "result": str(folder / _RESULT_FILE),
        "arguments": {**arguments_of(version), "repository": str(repository)},
    }
    ended = await run_child(
        _MODULE, request, folder=folder, timeout_s=_TIMEOUT_S, keep_open=(lock,)
    )
    try:
        result = json.loads((folder / _RESULT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise irreparable(version, f"the process ended with {ended.code}") from None
    if "code" in result:
        raise refusal_of(result["code"], result["detail"])
    if not result["mended"]:
        raise irreparable(version, "this release publishes another file of it")
    log.info("version_mended", model=version.model, version=version.version)


def arguments_of(version: ModelVersion) -> dict[str, Any]:
    """Give what `mend_version` has to know of a version."""
    given = version.preprocessing
    preprocessing = None if given is None else given.model_dump(mode="json")
    kept_graph = (
        record_digest(preprocessing, version.labels, kept_graph=True) == version.record_digest
    )
    record = record_of(
        preprocessing,
        kept_graph=kept_graph,
        scores=version.scores,
        trial_shape=version.trial_shape,
    )
    return {
        "name": version.model,
        "triton_model": version.triton_model,
        "version": version.version,
        "digest": version.digest,
        "config_text": version.config,
        "labels": version.labels,
        "record": {
            **record,
            "changes": list(version.changes),
            "source_digest": version.source_digest,
        },
    }


def irreparable(version: ModelVersion, reason: str) -> ArtifactCorrupt:
    """Say that a version's file cannot be made again, and what to do."""
    return ArtifactCorrupt(
        f"The file of version {version.version} of {version.model} is damaged and cannot be made "
        f"again ({reason}). Restore it from a backup, or register another export of the model."
    )


def main() -> None:
    """Mend what standard input describes."""
    request = json.load(sys.stdin)
    die_with_parent()
    arguments = request["arguments"]
    repository = Path(arguments.pop("repository"))
    result: dict[str, Any]
    try:
        mended = mend_version(Path(request["source"]), repository=repository, **arguments)
    except ConverterError as error:
        result = {"code": error.code, "detail": str(error)}
    else:
        result = {"mended": mended}
    with exit_if_full():
        Path(request["result"]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
