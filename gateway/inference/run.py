"""
The whole story of a request, from a name and an encoded image to a category.

    choose the version → admit → lease a replica → decode → infer → name the category

Where the replica decodes JPEGs itself, decoding and inferring are one step. A model with a rollout
is answered by `rollout.py`.

Nothing on this path touches disk or database: the catalog is a snapshot in memory.
"""

import asyncio
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import structlog

from gateway.errors import DeadlineExceeded
from gateway.inference.admission import Admission
from gateway.inference.choice import VersionChoice
from gateway.inference.decoder import Decoder
from gateway.inference.fair_queue import EVERYBODY, Share
from gateway.inference.infer import decode_and_infer, infer
from gateway.inference.request import ImageRequest, Prediction
from gateway.inference.rollout import RolloutAnswers
from gateway.inference.triton_errors import error_of
from gateway.registry.versions import ModelVersion
from gateway.rollouts.live.assignments import Assignments, RequestResult
from gateway.telemetry.observation import Observation
from gateway.triton.errors import TritonNotDecoded, TritonNotReady
from gateway.triton.replicas import ReplicaSet

log = structlog.get_logger(__name__)


Record = Callable[[str, int, str, bytes], None]
"""Takes note of an answered request: model, version, request id, the image file's bytes."""


class Runner:
    """Answers `run`. Lives as long as the app."""

    def __init__(
        self,
        choice: VersionChoice,
        replicas: ReplicaSet,
        admission: Admission,
        decoder: Decoder,
        assignments: Assignments,
        rollouts: RolloutAnswers,
        *,
        record: Record,
        timeout_s: float,
    ) -> None:
        self._choice = choice
        self._replicas = replicas
        self._admission = admission
        self._decoder = decoder
        self._assignments = assignments
        self._rollouts = rollouts
        self._record = record
        self._timeout_s = timeout_s

    async def run(
        self,
        name: str,
        encoded: bytes,
        *,
        version: int | None = None,
        alias: str | None = None,
        request_id: str,
        key: str | None = None,
        share: Share = EVERYBODY,
        seen: Observation | None = None,
    ) -> Prediction:
        """
        Classify one image.

        Args:
            name: The model.
            encoded: The image file's bytes.
            version, alias: What the caller pinned, if anything.
            request_id: Travels along into Triton.
            key: Names the caller, if it named itself: it stays with one version of a canary.
            share: What the caller may have of the places.
            seen: Takes note of the version and of the stages, also of a run that fails.

        Raises:
            ModelNotLoaded, VersionNotFound, AliasNotFound: There is nothing to ask.
            ImageInvalid, ImageTooLarge, ImageMismatch, PreprocessingRequired: The image is at
            fault. Overloaded, TritonUnavailable, ModelQuarantined, DeadlineExceeded: Not now.
            InferenceFailed, ModelOutputInvalid: The model is at fault.
        """
        chosen = self._choice.choose(name, version, alias)
        request = ImageRequest(chosen, encoded, request_id)
        assignment = None
        if version is None and alias is None:
            assignment = self._assignments.assign(name, chosen.version, key=key)
        if seen is not None:
            seen.version = chosen.version
        try:
            async with asyncio.timeout(self._timeout_s), self._admission.admit(share, name):
                request.stages.queue_s = time.perf_counter() - request.arrived_s
                if assignment is not None:
                    prediction = await self._rollouts.predict(assignment, request)
                else:
                    prediction = await self._predict(request)
                    category = int(prediction.category)
                    self._assignments.answered(name, chosen.version, request_id, category)
        except TritonNotReady as error:
            # It was ready when it was chosen. Unloaded meanwhile is "not loaded", as it is later.
            self._choice.choose(name, version, alias)
            raise error_of(error, chosen) from error
        except TimeoutError:
            if assignment is not None and request.stages.queue_s:
                self._assignments.observe(assignment, RequestResult(request_id, encoded))
            raise DeadlineExceeded(f"No answer within {self._timeout_s:g} s.") from None
        finally:
            if seen is not None:
                request.stages.note(seen)
        if version is None and alias is None:
            self._record(name, prediction.version, request_id, encoded)
        if seen is not None:
            seen.version = prediction.version
        return prediction

    def choose(self, name: str, *, version: int | None, alias: str | None) -> ModelVersion:
        """Choose the version that a run would ask; see `VersionChoice.choose`."""
        return self._choice.choose(name, version, alias)

    async def _predict(self, request: ImageRequest) -> Prediction:
        with self._replicas.lease(request.served) as lease:
            undecoded = self._decoder.undecoded(request) if lease.decodes else None
            if undecoded is not None:
                try:
                    return await infer(request, lease, undecoded)
                except TritonNotDecoded:
                    log.debug("image_not_decoded_by_triton", model=request.chosen.model)
            return await decode_and_infer(request, lease, self._decoder)

    async def ask_version(self, name: str, version: int, encoded: bytes) -> npt.NDArray[np.generic]:
        """Send an image to a version, as a caller would that pins it; raises as `run` does."""
        prediction = await self.run(name, encoded, version=version, request_id=f"evaluation-{name}")
        return prediction.scores
