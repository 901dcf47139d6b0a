"""
The story of a V2 inference: tensors in, tensors out, by the version that a `run` would ask.

    choose the version → admit → lease a replica → decode encoded images → pass it on to Triton

Triton's answer is passed back as it comes. A model with a rollout is answered by the version that
the rollout says, and by the champion if the challenger fails. What counts for the rollout are calls
about one image or row whose answer holds the scores.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from gateway.errors import DeadlineExceeded, GatewayError, RequestError, TensorInvalid
from gateway.inference.admission import Admission
from gateway.inference.choice import VersionChoice
from gateway.inference.decoder import Decoder
from gateway.inference.describe import describe, statistics
from gateway.inference.encoded_images import holds_images, images_of, with_pixels
from gateway.inference.fair_queue import EVERYBODY, Share
from gateway.inference.request import ImageRequest
from gateway.inference.tensor_answer import TensorAnswer
from gateway.inference.tensor_request import Inference
from gateway.inference.triton_errors import error_of
from gateway.registry.versions import Catalog, ModelVersion
from gateway.rollouts.live.assignments import Assignments, RequestResult
from gateway.rollouts.state.traffic import Assignment
from gateway.telemetry.observation import Observation
from gateway.triton.errors import TritonError, TritonNotReady, TritonRejected
from gateway.triton.replicas import ReplicaSet


class TensorRunner:
    """Answers V2 inferences. Lives as long as the app."""

    def __init__(
        self,
        choice: VersionChoice,
        catalog: Callable[[], Catalog],
        replicas: ReplicaSet,
        admission: Admission,
        decoder: Decoder,
        assignments: Assignments,
        *,
        timeout_s: float,
        challenger_timeout_s: float,
        most_images: int,
    ) -> None:
        self._choice = choice
        self._catalog = catalog
        self._replicas = replicas
        self._admission = admission
        self._decoder = decoder
        self._assignments = assignments
        self._timeout_s = timeout_s
        self._challenger_timeout_s = challenger_timeout_s
        self._most_images = most_images

    async def infer(
        self,
        name: str,
        inference: Inference,
        *,
        version: int | None = None,
        alias: str | None = None,
        request_id: str,
        key: str | None = None,
        share: Share = EVERYBODY,
        seen: Observation,
    ) -> TensorAnswer:
        """
        Answer one inference.

        Args:
            name: The model.
            inference: What the caller wants.
            version, alias, request_id, key, share, seen: As in `Runner.run`.

        Raises:
            TensorInvalid: Triton, or the model, does not take these tensors.
            GatewayError: Anything else that `Runner.run` raises.
        """
        if version is None and alias is None:
            alias = inference.alias
        chosen = self._choice.choose(name, version, alias)
        seen.version = chosen.version
        request = ImageRequest(chosen, b"", request_id)
        assignment = None
        if version is None and alias is None:
            assignment = self._assignments.assign(name, chosen.version, key=key)
        try:
            async with asyncio.timeout(self._timeout_s), self._admission.admit(share):
                request.stages.queue_s = time.perf_counter() - request.arrived_s
                if assignment is not None:
                    answer = await self._in_rollout(assignment, request, inference)
                else:
                    answer = await self._ask(request, inference)
                    if (scores := answer.scores()) is not None:
                        category = int(np.argmax(scores))
                        self._assignments.answered(name, answer.version, request_id, category)
        except TritonNotReady as error:
            self._choice.choose(name, version, alias)
            raise error_of(error, chosen) from error
        except TimeoutError:
            if assignment is not None and request.stages.queue_s:
                self._assignments.observe(assignment, RequestResult(request_id, b""))
            raise DeadlineExceeded(f"No answer within {self._timeout_s:g} s.") from None
        finally:
            request.stages.note(seen)
        seen.version = answer.version
        return answer

    def choose(self, name: str, *, version: int | None, alias: str | None) -> ModelVersion:
        """Choose the version that an inference would ask; see `VersionChoice.choose`."""
        return self._choice.choose(name, version, alias)

    async def describe(self, chosen: ModelVersion, what: str) -> dict[str, Any]:
        """Say what Triton says of a version; see `describe.py`."""
        return await describe(self._replicas, chosen, what)

    async def statistics(self, name: str | None = None, version: int | None = None) -> list[Any]:
        """Add up what all replicas did; see `describe.py`."""
        return await statistics(self._replicas, name, version)

    async def _ask(self, request: ImageRequest, inference: Inference) -> TensorAnswer:
        chosen = request.chosen
        with self._replicas.lease(request.served) as lease:
            if holds_images(inference, chosen):
                began_s = time.perf_counter()
                images = images_of(inference, most=self._most_images)
                inference = await with_pixels(inference, request, images, self._decoder)
                request.stages.decode_s = time.perf_counter() - began_s
            written = inference.to_json(request.request_id)
            triton_model = self._replicas.names.triton_model(request.served)
            began_s = time.perf_counter()
            try:
                response = await lease.ask(
                    lambda client: client.forward(
                        triton_model, chosen.version, written, inference.values
                    ),
                    ours=False,
                )
            except TritonNotReady:
                raise
            except TritonRejected as error:
                reason = error.reason.replace(triton_model, chosen.model)
                raise TensorInvalid(reason) from error
            except TritonError as error:
                raise error_of(error, chosen) from error
            finally:
                request.stages.infer_s = time.perf_counter() - began_s
        return TensorAnswer(response, chosen, triton_model, request.request_id, request.stages)

    async def _in_rollout(
        self, assignment: Assignment, request: ImageRequest, inference: Inference
    ) -> TensorAnswer:
        """Answer by the version that a rollout says, or by the champion if the challenger fails."""
        failed = RequestResult(request.request_id, b"")
        if assignment.version == assignment.challenger:
            try:
                challenger = self._catalog().model(assignment.model).version(assignment.challenger)
                async with asyncio.timeout(self._challenger_timeout_s):
                    answer = await self._ask(request.to(challenger), inference)
            except (GatewayError, TritonNotReady, TimeoutError):
                answer = await self._ask(request, inference)
                # The champion took the request: the challenger is at fault, not the caller.
                self._assignments.observe(assignment, failed)
                return answer
        else:
            try:
                answer = await self._ask(request, inference)
            except RequestError:
                # The caller is at fault.
                raise
            except (GatewayError, TritonNotReady):
                if not assignment.shadow:
                    self._assignments.observe(assignment, failed)
                raise
        scores = answer.scores()
        if scores is None:
            return answer
        if assignment.mirrored:
            # There is no image that could be sent to the challenger.
            category = int(np.argmax(scores))
            self._assignments.answered(
                assignment.model, answer.version, request.request_id, category
            )
        else:
            latency_s = answer.stages.infer_s
            self._assignments.observe(
                assignment, RequestResult(request.request_id, b"", None, scores, latency_s)
            )
        return answer
