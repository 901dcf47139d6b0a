"""
The story of a V2 inference: tensors in, tensors out, by the version that a `run` would ask.

    choose the version → admit → ask it (`asking.py`): lease, decode encoded images, pass it on

Triton's answer is passed back as it comes. A model with a rollout is answered by the version that
the rollout says, and by the champion if the challenger fails. What counts for the rollout are calls
about one image or row whose answer holds the scores.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from gateway.errors import DeadlineExceeded, GatewayError, RequestError
from gateway.inference.admission import Admission
from gateway.inference.asking import TensorAsker
from gateway.inference.choice import VersionChoice
from gateway.inference.describe import describe, statistics
from gateway.inference.fair_queue import EVERYBODY, Share
from gateway.inference.request import ImageRequest
from gateway.inference.tensor_answer import TensorAnswer
from gateway.inference.tensor_request import Inference
from gateway.inference.triton_errors import error_of
from gateway.registry.versions import Catalog, ModelVersion
from gateway.rollouts.live.assignments import Assignments, RequestResult
from gateway.rollouts.state.traffic import Assignment
from gateway.telemetry.observation import Observation
from gateway.triton.errors import TritonNotReady
from gateway.triton.replicas import ReplicaSet


class TensorRunner:
    """Answers V2 inferences. Lives as long as the app."""

    def __init__(
        self,
        choice: VersionChoice,
        catalog: Callable[[], Catalog],
        replicas: ReplicaSet,
        admission: Admission,
        asker: TensorAsker,
        assignments: Assignments,
        *,
        timeout_s: float,
        challenger_timeout_s: float,
    ) -> None:
        self._choice = choice
        self._catalog = catalog
        self._replicas = replicas
        self._admission = admission
        self._asker = asker
        self._assignments = assignments
        self._timeout_s = timeout_s
        self._challenger_timeout_s = challenger_timeout_s

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
                    answer = await self._asker.ask(request, inference)
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

    async def _in_rollout(
        self, assignment: Assignment, request: ImageRequest, inference: Inference
    ) -> TensorAnswer:
        """Answer by the version that a rollout says, or by the champion if the challenger fails."""
        failed = RequestResult(request.request_id, b"")
        if assignment.version == assignment.challenger:
            try:
                challenger = self._catalog().model(assignment.model).version(assignment.challenger)
                async with asyncio.timeout(self._challenger_timeout_s):
                    answer = await self._asker.ask(request.to(challenger), inference)
            except (GatewayError, TritonNotReady, TimeoutError):
                answer = await self._asker.ask(request, inference)
                # The champion took the request: the challenger is at fault, not the caller.
                self._assignments.observe(assignment, failed)
                return answer
        else:
            try:
                answer = await self._asker.ask(request, inference)
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
