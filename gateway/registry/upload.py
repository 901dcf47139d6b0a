"""An upload, and the version that it becomes."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import TooManyUploads
from gateway.registry.identity import record_digest
from gateway.registry.publishing import Published
from gateway.registry.validation.validator import Validated
from gateway.store.versions import NewVersion

UPLOAD = "upload"


@dataclass(frozen=True, slots=True)
class Upload:
    """
    A file that arrived whole. `folder` is its own; `digest` reads "sha256:…"; `sidecars` are the
    texts of the JSON files that lay beside it.
    """

    path: Path
    folder: Path
    digest: str
    size_bytes: int
    sidecars: tuple[str, ...] = ()


class UploadPlaces:
    """How many uploads may be under way at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    @contextlib.contextmanager
    def admit(self) -> Iterator[None]:
        """
        Hold a place.

        Raises:
            TooManyUploads: All are taken.
        """
        if self._taken >= self._most:
            raise TooManyUploads(f"{self._taken} uploads are under way; try again later.")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


def digest_of_record(validated: Validated, labels: Sequence[str] | None) -> str:
    """Return the digest of what an upload is registered with: preprocessing, labels, graph."""
    return record_digest(validated.preprocessing, labels, kept_graph=validated.kept_graph)


def new_version(
    name: str,
    upload: Upload,
    published: Published,
    validated: Validated,
    labels: Sequence[str] | None,
) -> NewVersion:
    """Describe a published upload as the row of a version."""
    trial = validated.report.facts("trial")
    return NewVersion(
        model=name,
        version=published.version,
        digest=published.digest,
        source_digest=upload.digest,
        size_bytes=published.size_bytes,
        signature=published.signature.to_json(),
        config=published.config,
        changes=published.changes,
        source=UPLOAD,
        preprocessing=validated.preprocessing,
        labels=None if labels is None else tuple(labels),
        record_digest=digest_of_record(validated, labels),
        scores=trial["scores"],
        trial_shape=tuple(trial["input_shapes"][0]),
        report=validated.report.to_json(),
    )
