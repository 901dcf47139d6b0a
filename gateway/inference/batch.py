"""
Several images in one call: each is answered as it would be alone, with an answer or an error of its
own, and all of them by the same side of a rollout.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.errors import BatchTooLarge, GatewayError
from gateway.inference.fair_queue import EVERYBODY, Share
from gateway.inference.request import Prediction, Stages
from gateway.inference.run import Runner
from gateway.telemetry.observation import Observation

_AT_ONCE = 8
"""Images of one call that are worked on at once: enough for every core, with room for others."""


@dataclass(frozen=True, slots=True)
class ImageResult:
    """What became of one image; `request_id` names it for feedback."""

    request_id: str
    answer: Prediction | GatewayError


@dataclass(frozen=True, slots=True)
class Batch:
    """
    What became of all of them.

    Attributes:
        results: In the order of the images.
        version: The number of the version that answered.
        stages: The longest time that an image spent in each.
    """

    results: Sequence[ImageResult]
    version: int
    stages: Stages


async def run_batch(
    runner: Runner,
    name: str,
    images: Sequence[bytes | GatewayError],
    *,
    most: int,
    version: int | None = None,
    alias: str | None = None,
    request_id: str,
    key: str | None = None,
    share: Share = EVERYBODY,
    seen: Observation,
) -> Batch:
    """
    Classify several images.

    Args:
        runner: Answers each.
        name, version, alias, key, share: As in `Runner.run`.
        images: Image files' bytes; an error stands for one that could not be read.
        most: The most images that are accepted.
        request_id: Of the call. The images' are this with ".0", ".1", … behind it.
        seen: Takes note of the version and of the stages.

    Raises:
        BatchTooLarge: There are more than `most`.
        ModelNotLoaded, VersionNotFound, AliasNotFound, TritonUnavailable, ModelQuarantined: There
            is nothing to ask for any of them.
    """
    if len(images) > most:
        raise BatchTooLarge(f"{len(images)} images in one call; at most {most} are accepted.")
    seen.version = runner.choose(name, version=version, alias=alias).version
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def answer(number: int, image: bytes | GatewayError) -> ImageResult:
        part_id = f"{request_id}.{number}"
        if isinstance(image, GatewayError):
            return ImageResult(part_id, image)
        async with at_once:
            try:
                prediction = await runner.run(
                    name,
                    image,
                    version=version,
                    alias=alias,
                    request_id=part_id,
                    # A call that names no caller is one caller: one version answers all of it.
                    key=key or request_id,
                    share=share,
                )
            except GatewayError as error:
                return ImageResult(part_id, error)
        return ImageResult(part_id, prediction)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(answer(*numbered)) for numbered in enumerate(images)]
    results, stages = [task.result() for task in tasks], Stages()
    for result in results:
        if isinstance(result.answer, Prediction):
            seen.version = result.answer.version
            stages.cover(result.answer.stages)
    stages.note(seen)
    return Batch(results, seen.version, stages)
