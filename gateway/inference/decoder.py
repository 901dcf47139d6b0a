"""
From the bytes of an image to the input of a version: in a worker thread, into the memory of the
replica that will be asked, or left to Triton altogether.
"""

import asyncio
import itertools
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np

from gateway.converter.signature import takes_raw_pixels
from gateway.inference.encoded_images import ImagePart
from gateway.inference.images.decoding import (
    ImageLimits,
    check_area,
    decode_image,
    decodes_at_once,
    jpeg_size,
)
from gateway.inference.images.orientation import upright
from gateway.inference.images.tensors import to_tensor
from gateway.inference.request import ImageRequest
from gateway.registry.versions import ModelVersion
from gateway.triton.shared_memory import Region
from gateway.triton.tensor import Canvas, InputTensor, Sheet


class Decoder:
    """Decodes images. Lives as long as the app."""

    def __init__(self, limits: ImageLimits, *, threads: int, leave_to_triton: bool) -> None:
        """
        Args:
            limits: Largest accepted image.
            threads: How many images are decoded at once.
            leave_to_triton: Send a JPEG as it came where a replica decodes it.
        """
        self._limits = limits
        self._leave_to_triton = leave_to_triton
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def undecoded(self, request: ImageRequest) -> InputTensor | None:
        """
        Make an input that carries the image as it came, for a replica that decodes.

        Returns:
            None if the image is no JPEG, or the version takes something else than raw pixels of
            any size: decode it then.

        Raises:
            ImageTooLarge: The header declares more pixels than the limit.
        """
        if not (self._leave_to_triton and _takes_pixels_of_any_size(request.chosen)):
            return None
        size = jpeg_size(request.encoded)
        if size is None:
            return None
        check_area(*size, self._limits)
        rank = len(request.chosen.signature.inputs[0].shape)
        return InputTensor.carrying(request.encoded, [1, *size, 3][-rank:])

    async def decode(self, request: ImageRequest, region: Region | None) -> InputTensor:
        """
        Decode the image into the input that the version takes; the caller releases it.

        Args:
            request: Its stages take note of the time, also of an image that is refused.
            region: Shared memory to decode into, if there is any.

        Raises:
            ImageInvalid, ImageTooLarge, ImageMismatch, PreprocessingRequired: The image is at
            fault.
        """
        began_s = time.perf_counter()
        canvas, chosen = Canvas(region), request.chosen
        try:
            # A thread is not worth it for an image so small that the way there takes longer.
            if chosen.preprocessing is None and decodes_at_once(request.encoded):
                return self._draw(canvas, request.encoded, chosen)
            drawing = self._threads.submit(self._draw, canvas, request.encoded, chosen)
            try:
                return await asyncio.wrap_future(drawing)
            except asyncio.CancelledError:
                # The thread goes on; nobody will ask for what it draws.
                drawing.add_done_callback(_release)
                raise
        finally:
            request.stages.decode_s = time.perf_counter() - began_s

    async def decode_together(
        self, request: ImageRequest, part: ImagePart, region: Region | None
    ) -> list[InputTensor]:
        """
        Decode several images into batches, one after the other in one thread.

        Args:
            request: Its stages take note of the time.
            part: The images.
            region: Shared memory to decode into, if there is any.

        Returns:
            One batch, or several where neighbours differ in size, in order; the caller releases
            them.

        Raises:
            ImageInvalid, ImageTooLarge, ImageMismatch, PreprocessingRequired: An image is at fault;
            the text names its position.
        """
        began_s = time.perf_counter()
        drawing = self._threads.submit(self._draw_together, region, part, request.chosen)
        try:
            return await asyncio.wrap_future(drawing)
        except asyncio.CancelledError:
            drawing.add_done_callback(_release_all)
            raise
        finally:
            took_s = time.perf_counter() - began_s
            request.stages.decode_s = max(request.stages.decode_s, took_s)

    def _draw_together(
        self, region: Region | None, part: ImagePart, chosen: ModelVersion
    ) -> list[InputTensor]:
        wanted, arrays = chosen.signature.inputs[0], []
        canvas = Canvas(region)
        sheet = Sheet(canvas, len(part.encoded))
        try:
            for index, encoded in enumerate(part.encoded):
                with part.blaming(index):
                    pixels = decode_image(encoded, self._limits, partial(sheet.allocate, index))
                    arrays.append(to_tensor(pixels, wanted, chosen.preprocessing))
            whole = sheet.filled_by(arrays)
            if whole is not None:
                return [canvas.tensor(whole)]
            batches = (list(like) for _, like in itertools.groupby(arrays, np.shape))
            return [canvas.tensor(np.concatenate(batch)) for batch in batches]
        finally:
            canvas.release()

    def _draw(self, canvas: Canvas, encoded: bytes, chosen: ModelVersion) -> InputTensor:
        try:
            pixels = decode_image(encoded, self._limits, canvas.allocate)
            wanted, record = chosen.signature.inputs[0], chosen.preprocessing
            if record is not None and record.orientation == "exif":
                pixels = upright(pixels, encoded)
            return canvas.tensor(to_tensor(pixels, wanted, record))
        finally:
            canvas.release()


def _takes_pixels_of_any_size(chosen: ModelVersion) -> bool:
    wanted = chosen.signature.inputs[0]
    return (
        chosen.preprocessing is None
        and wanted.dtype == "UINT8"
        and takes_raw_pixels(wanted)
        and wanted.shape[-3:-1] == (None, None)
    )


def _release(drawing: Future[InputTensor]) -> None:
    if not drawing.cancelled() and drawing.exception() is None:
        drawing.result().release()


def _release_all(drawing: Future[list[InputTensor]]) -> None:
    if not drawing.cancelled() and drawing.exception() is None:
        for tensor in drawing.result():
            tensor.release()
