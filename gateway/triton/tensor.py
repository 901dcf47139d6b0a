"""
The input of a request on its way to Triton: its values, and where they lie.

Made by whoever decodes, read by the transport. In a slot of shared memory it costs a request a few
bytes to name it; anywhere else the values travel in the request's body. To a server that decodes,
the image itself travels, a fifteenth of its pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.triton.shared_memory import Region
from gateway.triton.slots import Slot


@dataclass(frozen=True, slots=True)
class InputTensor:
    """
    One input.

    Attributes:
        array: C-contiguous, batch axis included where the model has one.
        region, slot: Where the values lie, if in shared memory: all of the slot.
        encoded_bytes: Not 0: the array's first bytes are an encoded image, for a server that
            decodes.
        decoded_shape: That image's, as the model is given it.
    """

    array: npt.NDArray[np.generic]
    region: Region | None = None
    slot: Slot | None = None
    encoded_bytes: int = 0
    decoded_shape: tuple[int, ...] | None = None

    @classmethod
    def carrying(cls, encoded: bytes, shape: Sequence[int]) -> "InputTensor":
        """
        Make the input that carries an encoded image.

        Args:
            encoded: The file's bytes.
            shape: Of its pixels, as the model takes them: [1, H, W, 3], or [H, W, 3].
        """
        filled = np.frombuffer(encoded + bytes(-len(encoded) % 3), np.uint8)
        carrier = filled.reshape((*[1] * (len(shape) - 2), -1, 3))
        return cls(carrier, encoded_bytes=len(encoded), decoded_shape=tuple(shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """What the model is given."""
        return self.decoded_shape or self.array.shape

    @property
    def size_bytes(self) -> int:
        """How much memory the values take."""
        return self.array.nbytes

    def keep(self) -> bool:
        """
        Keep the values beyond the request, for somebody who can do without them.

        Returns:
            False if shared memory is scarce: requests come first.
        """
        if self.slot is None or self.region is None:
            return True
        if 2 * self.region.slots.taken_bytes > self.region.slots.size_bytes:
            return False
        self.slot.hold()
        return True

    def release(self) -> None:
        """Let go: after the last holder, the slot is another request's and the values are lost."""
        if self.slot is not None:
            self.slot.release()


class Canvas:
    """
    Memory for the pixels of one request: a slot of shared memory if one is free, else any.

    The thread that decodes draws on it; the request lets go of it when it has its answer.
    """

    __slots__ = ("_region", "_slot")

    def __init__(self, region: Region | None) -> None:
        self._region = region
        self._slot: Slot | None = None

    def allocate(self, size_bytes: int) -> npt.NDArray[np.uint8]:
        """Return uninitialised bytes: uint8 [size_bytes]. What was allocated before is given up."""
        self.release()
        if self._region is not None:
            self._slot = self._region.take(size_bytes)
            if self._slot is not None:
                return self._region.view(self._slot)
        return np.empty(size_bytes, np.uint8)

    def tensor(self, array: npt.NDArray[np.generic]) -> InputTensor:
        """
        Make the input of an array, and hand its slot over with it. An array that is not what was
        drawn here is copied into a slot of its own, if there is one.
        """
        drawn = self._slot
        if self._region is None or array.nbytes == 0:
            return InputTensor(array)
        if drawn is not None and self._fills(drawn, array):
            self._slot = None
            return InputTensor(array, self._region, drawn)
        slot = self._region.take(array.nbytes)
        if slot is None:
            # It may be a view of what was drawn, which is given up.
            return InputTensor(array if drawn is None else array.copy())
        copy = self._region.view(slot).view(array.dtype).reshape(array.shape)
        np.copyto(copy, array)
        return InputTensor(copy, self._region, slot)

    def release(self) -> None:
        """Give up what was allocated and not handed over."""
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.release()

    def _fills(self, slot: Slot, array: npt.NDArray[np.generic]) -> bool:
        assert self._region is not None
        return (
            array.flags.c_contiguous
            and array.nbytes == slot.size_bytes
            and array.ctypes.data == self._region.view(slot).ctypes.data
        )


class Sheet:
    """Memory for the pixels of several images of one size, side by side on one canvas."""

    __slots__ = ("_canvas", "_count", "_memory")

    def __init__(self, canvas: Canvas, count: int) -> None:
        self._canvas = canvas
        self._count = count
        self._memory: npt.NDArray[np.uint8] | None = None

    def allocate(self, index: int, size_bytes: int) -> npt.NDArray[np.uint8]:
        """Return uninitialised bytes for one image: uint8 [size_bytes]."""
        if self._memory is None:
            self._memory = self._canvas.allocate(self._count * size_bytes)
        if self._memory.size != self._count * size_bytes:
            return np.empty(size_bytes, np.uint8)
        return self._memory[index * size_bytes : (index + 1) * size_bytes]

    def filled_by(self, arrays: Sequence[npt.NDArray[np.generic]]) -> npt.NDArray[np.uint8] | None:
        """
        Return the batch that images make where they lie.

        Args:
            arrays: One image each, with a batch axis of 1.

        Returns:
            uint8 [N, ...]; None if they do not all lie here, one behind the other.
        """
        memory, first = self._memory, arrays[0]
        if memory is None or first.ndim != 4:
            return None
        here = all(
            array.dtype == np.uint8
            and array.shape == first.shape
            and array.flags.c_contiguous
            and array.ctypes.data == memory.ctypes.data + index * first.nbytes
            for index, array in enumerate(arrays)
        )
        if not here or memory.size != len(arrays) * first.nbytes:
            return None
        return memory.reshape((len(arrays), *first.shape[1:]))
