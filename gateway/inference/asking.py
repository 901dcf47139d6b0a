"""
Put a V2 inference to one version: as it came, or with pixels in the place of encoded images.

Encoded images may be more than the model takes at once. They go through it in parts, a few at a
time, and the answer is put together in their order.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from gateway.errors import ImageMismatch, TensorInvalid
from gateway.inference.decoder import Decoder
from gateway.inference.encoded_images import ImagePart, holds_images, images_of, parts_of
from gateway.inference.request import ImageRequest
from gateway.inference.tensor_answer import TensorAnswer
from gateway.inference.tensor_joining import joined
from gateway.inference.tensor_request import Inference
from gateway.inference.triton_errors import error_of
from gateway.registry.versions import ModelVersion
from gateway.triton.client import TritonClient
from gateway.triton.connections import HttpResponse
from gateway.triton.errors import TritonError, TritonNotDecoded, TritonNotReady, TritonRejected
from gateway.triton.replicas import Lease, ReplicaSet
from gateway.triton.tensor import InputTensor

log = structlog.get_logger(__name__)

# One call has one place: what it does at once is bounded, whatever it brings.
_PARTS_AT_ONCE = 2


class TensorAsker:
    """Asks versions. Lives as long as the app."""

    def __init__(
        self,
        replicas: ReplicaSet,
        decoder: Decoder,
        largest_batch: Callable[[ModelVersion], int],
        *,
        most_images: int,
    ) -> None:
        """
        Args:
            replicas: Where versions are ready.
            decoder: Makes pixels of images.
            largest_batch: How many images a version takes at once, at least 1.
            most_images: The most images that one call may bring.
        """
        self._replicas = replicas
        self._decoder = decoder
        self._largest_batch = largest_batch
        self._most_images = most_images

    async def ask(self, request: ImageRequest, inference: Inference) -> TensorAnswer:
        """
        Ask a version.

        Args:
            request: Says which, and its id; its stages take note of the time.
            inference: What the caller wants.

        Raises:
            TensorInvalid: Triton, or the model, does not take these tensors.
            ImageInvalid, ImageTooLarge, ImageMismatch, PreprocessingRequired, BatchTooLarge: The
            images are at fault; the text names one by its position if there are more.
            TritonNotReady: No replica has the version ready any more.
            GatewayError: Any other failure; see `triton_errors.py`.
        """
        chosen = request.chosen
        if not holds_images(inference, chosen):
            return await self._ask_plain(request, inference)
        images = images_of(inference, most=self._most_images)
        if len(images) > 1 and len(chosen.signature.inputs[0].shape) == 3:
            raise ImageMismatch("The model takes one image at a time.")
        parts = parts_of(images, most=self._largest_batch(chosen))
        at_once = asyncio.Semaphore(_PARTS_AT_ONCE)

        async def answer(part: ImagePart) -> list[TensorAnswer]:
            async with at_once:
                return await self._ask_part(request, inference, part)

        if len(parts) == 1:
            return joined(await answer(parts[0]))
        tasks = [asyncio.create_task(answer(part)) for part in parts]
        try:
            answers = [each for task in tasks for each in await task]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return joined(answers)

    async def _ask_plain(self, request: ImageRequest, inference: Inference) -> TensorAnswer:
        number, written = request.chosen.version, inference.to_json(request.request_id)
        triton_model = self._replicas.names.triton_model(request.served)
        with self._replicas.lease(request.served) as lease:
            return await self._put(
                lease,
                request,
                lambda client: client.forward(triton_model, number, written, inference.values),
            )

    async def _ask_part(
        self, request: ImageRequest, inference: Inference, part: ImagePart
    ) -> list[TensorAnswer]:
        with self._replicas.lease(request.served) as lease:
            undecoded = self._undecoded(request, part) if lease.decodes else None
            if undecoded is not None:
                try:
                    return [await self._ask_tensor(lease, request, inference, undecoded)]
                except TritonNotDecoded:
                    log.debug("image_not_decoded_by_triton", model=request.chosen.model)
            tensors = await self._decoder.decode_together(request, part, lease.region)
            try:
                return [
                    await self._ask_tensor(lease, request, inference, tensor) for tensor in tensors
                ]
            finally:
                for tensor in tensors:
                    tensor.release()

    def _undecoded(self, request: ImageRequest, part: ImagePart) -> InputTensor | None:
        """Leave an image that comes alone to Triton, where that is possible."""
        if len(part.encoded) > 1:
            return None
        with part.blaming(0):
            return self._decoder.undecoded(replace(request, encoded=part.encoded[0]))

    async def _ask_tensor(
        self, lease: Lease, request: ImageRequest, inference: Inference, tensor: InputTensor
    ) -> TensorAnswer:
        chosen, written = request.chosen, inference.to_json(request.request_id)
        triton_model = self._replicas.names.triton_model(request.served)
        wanted = chosen.signature.inputs[0]
        return await self._put(
            lease,
            request,
            lambda client: client.forward_tensor(
                triton_model,
                chosen.version,
                written,
                input_name=wanted.name,
                input_dtype=wanted.dtype,
                tensor=tensor,
            ),
        )

    async def _put(
        self,
        lease: Lease,
        request: ImageRequest,
        question: Callable[[TritonClient], Awaitable[HttpResponse]],
    ) -> TensorAnswer:
        chosen, stages, began_s = request.chosen, request.stages, time.perf_counter()
        triton_model = self._replicas.names.triton_model(request.served)
        try:
            response = await lease.ask(question, ours=False)
        except (TritonNotDecoded, TritonNotReady):
            raise
        except TritonRejected as error:
            reason = error.reason.replace(triton_model, chosen.model)
            raise TensorInvalid(reason) from error
        except TritonError as error:
            raise error_of(error, chosen) from error
        finally:
            stages.infer_s = max(stages.infer_s, time.perf_counter() - began_s)
        return TensorAnswer(response, chosen, triton_model, request.request_id, stages)
