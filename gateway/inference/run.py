"""
The whole story of a request, from a name and an encoded image to a category.

    resolve the version → admit → decode → infer on a replica → name the category

Where the replica decodes JPEGs itself, decoding and inferring are one step.

A rollout may let its challenger answer instead of the champion. If that fails, the champion answers
after all, and the caller notices nothing but the time.

Nothing on this path touches disk or database: the catalog is a snapshot in memory.
"""

import asyncio
import time
from collections.abc import Callable, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import structlog

from gateway.converter.signature import takes_raw_pixels
from gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    ImageMismatch,
    InferenceFailed,
    ModelNotLoaded,
    ModelQuarantined,
    Overloaded,
    RequestError,
    TritonUnavailable,
)
from gateway.inference.admission import Admission
from gateway.inference.images.decoding import (
    ImageLimits,
    check_area,
    decode_image,
    decodes_at_once,
    jpeg_size,
)
from gateway.inference.images.tensors import to_tensor
from gateway.inference.tasks.classify import category
from gateway.registry.versions import Catalog, ModelVersion
from gateway.rollouts.live.mirror import Copy, Reply
from gateway.rollouts.live.trials import Outcome, Trials
from gateway.rollouts.state.traffic import Trial
from gateway.telemetry.observation import STAGES, Observation
from gateway.triton.errors import (
    StubLost,
    TritonError,
    TritonNotDecoded,
    TritonNotReady,
    TritonQueueFull,
    TritonRejected,
    TritonUnreachable,
)
from gateway.triton.replicas import ReplicaSet
from gateway.triton.tensor import Canvas, InputTensor

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Stages:
    """How long each stage of a request took, in seconds."""

    queue_s: float = 0.0
    decode_s: float = 0.0
    infer_s: float = 0.0

    def note(self, seen: Observation) -> None:
        """Note the stages that the request came to."""
        durations_s = (self.queue_s, self.decode_s, self.infer_s)
        for stage, took_s in zip(STAGES, durations_s, strict=True):
            if took_s > 0.0:
                seen.stages_s[stage] = took_s


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What a run answers: the category, the scores that it was read from (the model's first output,
    any shape), the version that said so, and how long it took.
    """

    category: str
    scores: npt.NDArray[np.generic]
    chosen: ModelVersion
    stages: Stages

    @property
    def version(self) -> int:
        """The version's number."""
        return self.chosen.version


class Runner:
    """Answers `run`. Lives as long as the app."""

    def __init__(
        self,
        catalog: Callable[[], Catalog],
        replicas: ReplicaSet,
        admission: Admission,
        *,
        limits: ImageLimits,
        decode_threads: int,
        leave_decoding: bool,
        timeout_s: float,
        loading: Set[tuple[str, int]],
        trials: Trials,
        challenger_timeout_s: float,
    ) -> None:
        self._catalog = catalog
        self._replicas = replicas
        self._admission = admission
        self._limits = limits
        self._leave_decoding = leave_decoding
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")
        # Versions whose first load has not come to an end here yet: still "not loaded" to callers.
        self._loading = loading
        self._trials = trials
        self._challenger_timeout_s = challenger_timeout_s

    def close(self) -> None:
        """End the decoding threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def run(
        self,
        name: str,
        encoded: bytes,
        *,
        version: int | None = None,
        alias: str | None = None,
        request_id: str,
        key: str | None = None,
        seen: Observation | None = None,
    ) -> Answer:
        """
        Classify one image.

        Args:
            name: The model.
            encoded: The image file's bytes.
            version, alias: What the caller pinned, if anything.
            request_id: Travels along into Triton.
            key: Who calls; during a canary the same key stays with one version.
            seen: Takes note of the version and of the stages, also of a run that fails.

        Raises:
            ModelNotLoaded, VersionNotFound, AliasNotFound: Nothing to ask.
            ImageInvalid, ImageTooLarge, ImageMismatch, PreprocessingRequired: The image is at
            fault. Overloaded, TritonUnavailable, ModelQuarantined, DeadlineExceeded: Not now.
            InferenceFailed, ModelOutputInvalid: The model is at fault.
        """
        chosen = self._choose(name, version, alias)
        stages, arrived_s = Stages(), time.perf_counter()
        if seen is not None:
            seen.version = chosen.version
        trial = None
        if version is None and alias is None:
            trial = self._trials.trial(
                name, chosen.version, key=key or request_id, request_id=request_id
            )
        try:
            async with asyncio.timeout(self._timeout_s), self._admission.admit():
                stages.queue_s = time.perf_counter() - arrived_s
                if trial is None:
                    answer = await self._ask_undecoded(chosen, encoded, request_id, stages)
                    self._trials.answered(name, chosen.version, request_id, int(answer.category))
                else:
                    answer = await self._try(trial, chosen, encoded, request_id, stages)
        except TritonNotReady as error:
            # It was ready when it was chosen; unloaded meanwhile is "not loaded", as later.
            self._choose(name, version, alias)
            raise TritonUnavailable(
                f"Version {chosen.version} of {name} is not ready right now."
            ) from error
        except TimeoutError:
            raise DeadlineExceeded(f"No answer within {self._timeout_s:g} s.") from None
        finally:
            if seen is not None:
                stages.note(seen)
        if seen is not None:
            seen.version = answer.version
        return answer

    async def ask_challenger(self, copy: Copy) -> Reply:
        """
        Send a copy of an answered request to the challenger of its rollout.

        Raises:
            GatewayError: The challenger did not answer with finite scores.
        """
        trial = copy.trial
        versions = self._catalog().model(trial.model).versions
        champion, challenger = versions.get(trial.champion), versions.get(trial.challenger)
        if challenger is None:
            raise ModelNotLoaded(trial.model)
        stages, tensor, kept = Stages(), copy.tensor, None
        if isinstance(tensor, InputTensor) and champion and _take_the_same(champion, challenger):
            kept = tensor
        tensor = kept or await self._decode(copy.encoded, challenger, stages)
        try:
            scores = await self._infer(challenger, tensor, copy.request_id, stages)
        except TritonNotReady as error:
            raise TritonUnavailable(f"Version {challenger.version} is not ready.") from error
        finally:
            if tensor is not kept:
                tensor.release()
        category(scores)
        return Reply(scores, stages.infer_s)

    async def ask_version(self, name: str, version: int, encoded: bytes) -> npt.NDArray[np.generic]:
        """Send an image to a version, as a caller would that pins it; raises as `run` does."""
        answer = await self.run(name, encoded, version=version, request_id=f"evaluation-{name}")
        return answer.scores

    async def _ask_undecoded(
        self, chosen: ModelVersion, encoded: bytes, request_id: str, stages: Stages
    ) -> Answer:
        """
        Leave the decoding to Triton if it can do that; its time is then part of `infer`. A rollout
        does without: it compares what the two versions make of the same pixels.
        """
        size = jpeg_size(encoded) if self._leaves_decoding(chosen) else None
        if size is not None:
            check_area(*size, self._limits)
            rank = len(chosen.signature.inputs[0].shape)
            tensor = InputTensor.carrying(encoded, [1, *size, 3][-rank:])
            try:
                return await self._ask_tensor(chosen, tensor, request_id, stages)
            except TritonNotDecoded:
                log.debug("image_not_decoded_by_triton", model=chosen.model)
        return await self._ask(chosen, encoded, request_id, stages)

    def _leaves_decoding(self, chosen: ModelVersion) -> bool:
        wanted = chosen.signature.inputs[0]
        return (
            self._leave_decoding
            and chosen.preprocessing is None
            and wanted.dtype == "UINT8"
            and takes_raw_pixels(wanted)
            and wanted.shape[-3:-1] == (None, None)
            and self._replicas.decode((chosen.model, chosen.version))
        )

    async def _ask(
        self, chosen: ModelVersion, encoded: bytes, request_id: str, stages: Stages
    ) -> Answer:
        tensor = await self._decode(encoded, chosen, stages)
        try:
            return await self._ask_tensor(chosen, tensor, request_id, stages)
        finally:
            tensor.release()

    async def _ask_tensor(
        self, chosen: ModelVersion, tensor: InputTensor, request_id: str, stages: Stages
    ) -> Answer:
        scores = await self._infer(chosen, tensor, request_id, stages)
        return Answer(category(scores), scores, chosen, stages)

    async def _try(
        self, trial: Trial, champion: ModelVersion, encoded: bytes, request_id: str, stages: Stages
    ) -> Answer:
        """Answer by the version that a rollout says, or by the champion if the challenger fails."""
        if trial.version == trial.challenger:
            try:
                challenger = self._catalog().model(trial.model).version(trial.challenger)
                async with asyncio.timeout(self._challenger_timeout_s):
                    answer = await self._ask(challenger, encoded, request_id, stages)
            except (GatewayError, TritonNotReady, TimeoutError):
                answer = await self._ask(champion, encoded, request_id, stages)
                # The champion took the request: the challenger is at fault, not the caller.
                self._trials.observe(trial, Outcome(request_id, encoded))
                return answer
            self._trials.observe(trial, _outcome(answer, request_id, encoded))
            return answer
        tensor = await self._decode(encoded, champion, stages)
        try:
            answer = await self._ask_tensor(champion, tensor, request_id, stages)
        except RequestError:
            raise
        except (GatewayError, TritonNotReady):
            self._trials.observe(trial, Outcome(request_id, encoded, tensor))
            raise
        else:
            self._trials.observe(trial, _outcome(answer, request_id, encoded, tensor))
            return answer
        finally:
            tensor.release()

    def _choose(self, name: str, version: int | None, alias: str | None) -> ModelVersion:
        catalog = self._catalog()
        chosen = catalog.resolve(name, version=version, alias=alias)
        served = (name, chosen.version)
        if self._replicas.serving(served):
            return chosen
        if served in self._loading:
            raise ModelNotLoaded(name)
        if chosen.version in catalog.models[name].quarantined:
            raise ModelQuarantined(
                f"Version {chosen.version} of {name} is in quarantine: it killed its process "
                "several times in a row. Load it again to try once more."
            )
        raise TritonUnavailable(f"Version {chosen.version} of {name} is not ready right now.")

    async def _decode(self, encoded: bytes, chosen: ModelVersion, stages: Stages) -> InputTensor:
        """
        Decode into shared memory if a replica on this host shares some: in a thread, but for
        images so small that the way there would take longer.
        """
        began_s = time.perf_counter()
        canvas = Canvas(self._replicas.region((chosen.model, chosen.version)))
        if chosen.preprocessing is None and decodes_at_once(encoded):
            try:
                return self._draw(canvas, encoded, chosen)
            finally:
                stages.decode_s = time.perf_counter() - began_s
        drawing = self._threads.submit(self._draw, canvas, encoded, chosen)
        try:
            return await asyncio.wrap_future(drawing)
        except asyncio.CancelledError:
            # The thread goes on; nobody will ask for what it draws.
            drawing.add_done_callback(_give_up)
            raise
        finally:
            stages.decode_s = time.perf_counter() - began_s

    def _draw(self, canvas: Canvas, encoded: bytes, chosen: ModelVersion) -> InputTensor:
        try:
            pixels = decode_image(encoded, self._limits, canvas.allocate)
            wanted = chosen.signature.inputs[0]
            return canvas.tensor(to_tensor(pixels, wanted, chosen.preprocessing))
        finally:
            canvas.release()

    async def _infer(
        self,
        chosen: ModelVersion,
        tensor: InputTensor,
        request_id: str,
        stages: Stages,
    ) -> npt.NDArray[np.generic]:
        began_s = time.perf_counter()
        wanted = chosen.signature.inputs[0]
        try:
            return await self._replicas.infer(
                (chosen.model, chosen.version),
                input_name=wanted.name,
                input_dtype=wanted.dtype,
                tensor=tensor,
                output_name=chosen.signature.outputs[0].name,
                request_id=request_id,
            )
        except TritonQueueFull as error:
            raise Overloaded(f"The queue of model {chosen.model} is full.") from error
        except (TritonNotDecoded, TritonNotReady):
            raise
        except TritonRejected as error:
            raise ImageMismatch(
                f"Model {chosen.model} does not take this input of shape {list(tensor.shape)}: "
                f"{error.reason}"
            ) from error
        except (TritonUnreachable, StubLost) as error:
            raise TritonUnavailable(
                f"Version {chosen.version} of {chosen.model} is not ready right now."
            ) from error
        except TritonError as error:
            raise InferenceFailed(
                f"Model {chosen.model} failed on an input of shape {list(tensor.shape)}: "
                f"{error.reason}"
            ) from error
        finally:
            stages.infer_s = time.perf_counter() - began_s


def _take_the_same(one: ModelVersion, other: ModelVersion) -> bool:
    """Whether two versions make the same tensor of an image."""
    given, wanted = one.signature.inputs[0], other.signature.inputs[0]
    return (
        one.preprocessing == other.preprocessing
        and given.dtype == wanted.dtype
        and len(given.shape) == len(wanted.shape)
    )


def _give_up(drawing: Future[InputTensor]) -> None:
    if not drawing.cancelled() and drawing.exception() is None:
        drawing.result().release()


def _outcome(
    answer: Answer,
    request_id: str,
    encoded: bytes,
    tensor: InputTensor | None = None,
) -> Outcome:
    return Outcome(request_id, encoded, tensor, answer.scores, answer.stages.infer_s)
