"""
Make a faster challenger of a version: what is asked for, the process that does it, registration.

The process shares the machine with everything else, at a lower priority. One runs at a time. What
it made is registered like any upload, so that it is validated again, and a rollout judges it.
"""

import asyncio
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog

from gateway.converter.layout import MODEL_FILE as PUBLISHED_FILE
from gateway.errors import (
    EvaluationNotFound,
    NotOptimizable,
    Overloaded,
    PreprocessingRequired,
)
from gateway.optimize.child import MODEL_FILE, REPORT_FILE
from gateway.optimize.decision import LEAST_SPEEDUP, Row
from gateway.optimize.image_zip import ImageZip, digest_and_size, store_images
from gateway.registry.artifacts import Artifacts
from gateway.registry.registration import Registration
from gateway.registry.registry import Registry
from gateway.registry.upload import Upload
from gateway.registry.versions import ModelVersion
from gateway.rollouts.control.calibration_split import calibration_indexes
from gateway.rollouts.control.evaluation_set import path_of, read_set
from gateway.rollouts.control.evaluations import Evaluations
from gateway.system.child_process import Ended, run_child
from gateway.system.full_disk import storage_full
from gateway.system.processes import describe_exit

log = structlog.get_logger(__name__)

LEAST_AGREEMENT = 0.98
CALIBRATION_IMAGES = 128
LEAST_CALIBRATION, LEAST_JUDGING = 8, 24
_MOST_JUDGING = 1000
_MODULE = "gateway.optimize.child"
# The file, parsed and optimised twice over, with the ranges of every value, in two sessions.
_MEMORY_BY_FILE = 16
_FILE_BYTES_BY_FILE = 4
_FILE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class OptimizationWanted:
    """
    What is asked for.

    Attributes:
        version: Of which version; None: the champion.
        images: How many images calibrate at most.
        least_agreement: On this share of the others the answers must be the version's own.
        least_speedup: How many times as fast it must be.
        dry_run: Measure, and register nothing.
    """

    version: int | None = None
    images: int = CALIBRATION_IMAGES
    least_agreement: float = LEAST_AGREEMENT
    least_speedup: float = LEAST_SPEEDUP
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Optimized:
    """
    What came of it.

    Attributes:
        made_of: The version.
        registered: The challenger; None: nothing was worth it, or it was a dry run.
        itself: The version, measured.
        rows: The candidates, measured.
        chosen: Which of them is worth it, an index into `rows`.
        reason: Why, for people.
        vnni: Whether the processor has instructions for 8-bit products.
        calibrated_on, judged_on: Numbers of images.
    """

    made_of: ModelVersion
    registered: ModelVersion | None
    itself: Row
    rows: tuple[Row, ...]
    chosen: int | None
    reason: str
    vnni: bool
    calibrated_on: int
    judged_on: int


class Optimizer:
    """Makes challengers. Lives as long as the app."""

    def __init__(
        self,
        registry: Registry,
        registration: Registration,
        evaluations: Evaluations,
        repository: Path,
        *,
        memory_bytes: int,
        timeout_s: float,
        max_image_pixels: int,
    ) -> None:
        self._registry = registry
        self._registration = registration
        self._evaluations = evaluations
        self._repository = repository
        self._artifacts = Artifacts(repository, registry)
        self._memory_bytes = memory_bytes
        self._timeout_s = timeout_s
        self._max_image_pixels = max_image_pixels
        self._at_work = False

    async def optimize(
        self, name: str, wanted: OptimizationWanted, given: bytes | None, *, actor: str
    ) -> Optimized:
        """
        Make candidates of a version, measure them on this machine, and register the best as the
        model's next version if it is worth it.

        Args:
            name: The model.
            wanted: What is asked for.
            given: A zip of images, with a labels.csv or without; None: the evaluation set's.
            actor: Who asks.

        Raises:
            ModelNotFound, VersionNotFound: There is no such thing.
            EvaluationNotFound: No images are given, and the model has no evaluation set.
            EvaluationSetInvalid: What is given is no zip of images.
            PreprocessingRequired: No image can become the version's input.
            NotOptimizable: Too few images, or the process could not do it.
            Overloaded: Another optimization is running.
            ArtifactCorrupt, StorageFull, RepositoryReadOnly: The repository is at fault.
        """
        model = (await self._registry.refresh()).model(name)
        version = model.champion if wanted.version is None else model.version(wanted.version)
        if not version.can_answer:
            raise PreprocessingRequired(
                f"Version {version.version} of {name} has no preprocessing record: no image can "
                "become its input."
            )
        await self._artifacts.check(version)
        if self._at_work:
            raise Overloaded("Another optimization is running; try again later.")
        self._at_work = True
        try:
            with self._registration.staging.folder() as folder:
                images = await self._images(name, folder, given)
                report = await self._run(version, wanted, images, folder)
                made = folder / MODEL_FILE
                registered = None
                if report["chosen"] is not None and not wanted.dry_run:
                    registered = await self._register(version, made, folder, actor)
        finally:
            self._at_work = False
        log.info("optimized", model=name, version=version.version, reason=report["reason"])
        return Optimized(
            made_of=version,
            registered=registered,
            itself=Row(**report["itself"]),
            rows=tuple(Row(**row) for row in report["rows"]),
            chosen=report["chosen"],
            reason=report["reason"],
            vnni=report["vnni"],
            calibrated_on=report["calibrated_on"],
            judged_on=report["judged_on"],
        )

    async def _images(self, name: str, folder: Path, given: bytes | None) -> ImageZip:
        if given is None:
            try:
                row = await self._evaluations.set_of(name)
            except EvaluationNotFound:
                raise EvaluationNotFound(
                    f"Model {name} has no evaluation set: give it one, or send images."
                ) from None
            path = path_of(self._evaluations.folder, row.digest)
            found = await asyncio.to_thread(read_set, path)
            return ImageZip(path, row.digest, found.files, found.labels)
        return await asyncio.to_thread(store_images, folder / "images.zip", given)

    async def _run(
        self, version: ModelVersion, wanted: OptimizationWanted, images: ImageZip, folder: Path
    ) -> dict[str, Any]:
        calibrate = calibration_indexes(images.files, wanted.images)
        chosen = frozenset(calibrate)
        judge = [index for index in range(len(images.files)) if index not in chosen]
        if len(calibrate) < LEAST_CALIBRATION or len(judge) < LEAST_JUDGING:
            raise NotOptimizable(
                f"{len(images.files)} images are too few: a quarter of them calibrates, at least "
                f"{LEAST_CALIBRATION}, and the others judge."
            )
        size_bytes = version.size_bytes
        own = folder / "optimize"
        with storage_full():
            own.mkdir()
        request = {
            "model": str(
                self._repository / version.triton_model / str(version.version) / PUBLISHED_FILE
            ),
            "folder": str(own),
            "images": str(images.path),
            "files": images.files,
            "labels": images.labels,
            "calibrate": calibrate,
            "judge": judge[:_MOST_JUDGING],
            "input": asdict(version.signature.inputs[0]),
            "preprocessing": (
                None
                if version.preprocessing is None
                else version.preprocessing.model_dump(mode="json")
            ),
            "max_image_pixels": self._max_image_pixels,
            "least_agreement": wanted.least_agreement,
            "least_speedup": wanted.least_speedup,
            "provenance": {
                "from_version": version.version,
                "from_digest": version.digest,
                "calibration": {"digest": images.digest, "images": len(calibrate)},
            },
            "limits": {
                "memory_bytes": self._memory_bytes + _MEMORY_BY_FILE * size_bytes,
                "cpu_s": max(1, round(self._timeout_s)),
                "file_bytes": _FILE_BYTES + _FILE_BYTES_BY_FILE * size_bytes,
            },
        }
        ended = await run_child(_MODULE, request, folder=own, timeout_s=self._timeout_s)
        report = _read_report(own / REPORT_FILE, ended)
        if report["chosen"] is not None:
            (own / MODEL_FILE).rename(folder / MODEL_FILE)
        return report

    async def _register(
        self, version: ModelVersion, made: Path, folder: Path, actor: str
    ) -> ModelVersion:
        digest, size_bytes = await asyncio.to_thread(digest_and_size, made)
        record = version.preprocessing
        registered = await self._registration.register(
            Upload(made, folder, digest, size_bytes),
            name=version.model,
            preprocessing=None if record is None else record.model_dump_json(),
            labels=version.labels,
            keep_graph=None,
            actor=actor,
        )
        return registered.version


def _read_report(path: Path, ended: Ended) -> dict[str, Any]:
    if ended.timed_out:
        raise NotOptimizable("It took longer than OPTIMIZE_TIMEOUT_S.")
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        log.warning("optimization_failed", code=ended.code, log=ended.log[-2000:])
        last = ended.log.strip().splitlines()[-1:] or [describe_exit(ended.code)]
        raise NotOptimizable(f"The graph cannot be optimized: {last[0][:300]}") from None
    if report["error"] is not None:
        raise NotOptimizable(report["error"])
    return report
