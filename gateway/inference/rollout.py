"""
The answer while a rollout goes on: by the version that the rollout says, or by the champion if the
challenger fails. The caller notices nothing but the time.

Both versions are given decoded pixels: a rollout compares what they make of the same ones.
"""

import asyncio
from collections.abc import Callable

from gateway.errors import GatewayError, ModelNotLoaded, RequestError
from gateway.inference.decoder import Decoder
from gateway.inference.infer import decode_and_infer, infer
from gateway.inference.request import ImageRequest, Prediction
from gateway.inference.triton_errors import error_of
from gateway.registry.versions import Catalog, ModelVersion
from gateway.rollouts.live.assignments import Assignments, RequestResult
from gateway.rollouts.live.mirror import Copy, Reply
from gateway.rollouts.state.traffic import Assignment
from gateway.triton.errors import TritonNotReady
from gateway.triton.replicas import ReplicaSet
from gateway.triton.tensor import InputTensor


class RolloutAnswers:
    """Answers requests that take part in a rollout."""

    def __init__(
        self,
        catalog: Callable[[], Catalog],
        replicas: ReplicaSet,
        decoder: Decoder,
        assignments: Assignments,
        *,
        challenger_timeout_s: float,
    ) -> None:
        self._catalog = catalog
        self._replicas = replicas
        self._decoder = decoder
        self._assignments = assignments
        self._challenger_timeout_s = challenger_timeout_s

    async def predict(self, assignment: Assignment, request: ImageRequest) -> Prediction:
        """
        Answer one request.

        Args:
            assignment: What the rollout asks of it.
            request: For the champion.

        Raises:
            GatewayError, TritonNotReady: The champion failed too, or the image is at fault.
        """
        if assignment.version != assignment.challenger:
            return await self._by_champion(assignment, request)
        try:
            challenger = self._catalog().model(assignment.model).version(assignment.challenger)
            async with asyncio.timeout(self._challenger_timeout_s):
                prediction = await self._ask(request.to(challenger))
        except (GatewayError, TritonNotReady, TimeoutError):
            return await self._by_fallback(assignment, request)
        self._assignments.observe(assignment, _result(request, prediction))
        return prediction

    async def _by_fallback(self, assignment: Assignment, request: ImageRequest) -> Prediction:
        """Answer by the champion what the challenger failed on."""
        try:
            prediction = await self._ask(request)
        except RequestError:
            # The caller is at fault, not the challenger.
            raise
        except (GatewayError, TritonNotReady):
            failed = RequestResult(request.request_id, request.encoded, shared=True)
            self._assignments.observe(assignment, failed)
            raise
        category = int(prediction.category)
        failed = RequestResult(request.request_id, request.encoded, fallback=category)
        self._assignments.observe(assignment, failed)
        return prediction

    async def ask_copy(self, copy: Copy, version: int) -> Reply:
        """
        Send a copy of an answered request to one of the two versions of its rollout.

        Raises:
            GatewayError: The version did not answer with finite scores.
        """
        assignment = copy.assignment
        versions = self._catalog().model(assignment.model).versions
        champion, asked = versions.get(assignment.champion), versions.get(version)
        if asked is None:
            raise ModelNotLoaded(assignment.model)
        request, given = ImageRequest(asked, copy.encoded, copy.request_id), None
        if isinstance(copy.tensor, InputTensor) and champion and _same_input(champion, asked):
            given = copy.tensor
        near = None if given is None else given.region
        try:
            with self._replicas.lease(request.served, near=near) as lease:
                if given is None:
                    prediction = await decode_and_infer(request, lease, self._decoder)
                else:
                    prediction = await infer(request, lease, given)
        except TritonNotReady as error:
            raise error_of(error, asked) from error
        return Reply(prediction.scores, request.stages.infer_s)

    async def _ask(self, request: ImageRequest) -> Prediction:
        with self._replicas.lease(request.served) as lease:
            return await decode_and_infer(request, lease, self._decoder)

    async def _by_champion(self, assignment: Assignment, request: ImageRequest) -> Prediction:
        tensor = None
        try:
            with self._replicas.lease(request.served) as lease:
                tensor = await self._decoder.decode(request, lease.region)
                prediction = await infer(request, lease, tensor)
            self._assignments.observe(assignment, _result(request, prediction, tensor))
        except RequestError:
            # The caller is at fault.
            raise
        except (GatewayError, TritonNotReady):
            self._assignments.observe(
                assignment, RequestResult(request.request_id, request.encoded, tensor)
            )
            raise
        else:
            return prediction
        finally:
            if tensor is not None:
                tensor.release()


def _same_input(one: ModelVersion, other: ModelVersion) -> bool:
    """Whether two versions make the same tensor of an image."""
    given, wanted = one.signature.inputs[0], other.signature.inputs[0]
    return one.preprocessing == other.preprocessing and (given.dtype, given.shape) == (
        wanted.dtype,
        wanted.shape,
    )


def _result(
    request: ImageRequest, prediction: Prediction, tensor: InputTensor | None = None
) -> RequestResult:
    return RequestResult(
        request.request_id,
        request.encoded,
        tensor,
        prediction.scores,
        prediction.stages.infer_s,
    )
