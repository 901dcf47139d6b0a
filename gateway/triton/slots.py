"""
Which parts of a shared-memory region are in use: an allocator that never touches the memory.

First fit from the lowest offset, so that a light load stays on the same few pages, which are then
in the processor's caches. A slot is freed when the last of its holders lets go: the request that
filled it, and beside it the exchange with Triton that reads it, which may outlive a request whose
deadline has passed.

Slots are taken in the threads that decode and given back on the event loop: hence the lock.
"""

import threading
from bisect import insort

PAGE_BYTES = 4096


class Slot:
    """
    A part of a region, held by one request.

    Attributes:
        offset: Of the slot's first byte in the region; a multiple of a page.
        size_bytes: What was asked for.
    """

    __slots__ = ("_holders", "_slots", "offset", "size_bytes")

    def __init__(self, slots: "Slots", offset: int, size_bytes: int) -> None:
        self.offset = offset
        self.size_bytes = size_bytes
        self._slots = slots
        self._holders = 1

    def hold(self) -> None:
        """Keep the slot for one more holder."""
        self._slots.hold(self)

    def release(self) -> None:
        """Let go of the slot; the last holder frees it."""
        self._slots.release(self)


class Slots:
    """The free and the taken parts of `size_bytes` bytes."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._free: list[tuple[int, int]] = [(0, size_bytes)]
        self._lock = threading.Lock()
        self._taken_bytes = 0

    @property
    def taken_bytes(self) -> int:
        """How much is held, in whole pages."""
        return self._taken_bytes

    def take(self, size_bytes: int) -> Slot | None:
        """Take the first free part that is large enough; None if there is none."""
        wanted = _pages(size_bytes)
        with self._lock:
            for index, (offset, size) in enumerate(self._free):
                if size >= wanted:
                    rest = [(offset + wanted, size - wanted)] if size > wanted else []
                    self._free[index : index + 1] = rest
                    self._taken_bytes += wanted
                    return Slot(self, offset, size_bytes)
        return None

    def hold(self, slot: Slot) -> None:
        """Add a holder."""
        with self._lock:
            if slot._holders == 0:  # noqa: SLF001 - the two classes are one thing
                raise RuntimeError("the slot was given back already")
            slot._holders += 1  # noqa: SLF001

    def release(self, slot: Slot) -> None:
        """
        Take a holder away; free the slot after the last.

        Raises:
            RuntimeError: Nobody holds it: a second request may have it by now.
        """
        with self._lock:
            if slot._holders == 0:  # noqa: SLF001
                raise RuntimeError("the slot was given back already")
            slot._holders -= 1  # noqa: SLF001
            if slot._holders == 0:  # noqa: SLF001
                self._give_back(slot.offset, _pages(slot.size_bytes))

    def _give_back(self, offset: int, size: int) -> None:
        self._taken_bytes -= size
        free = self._free
        insort(free, (offset, size))
        index = free.index((offset, size))
        # Neighbours that touch become one, the following first, so that `index` stays true.
        if index + 1 < len(free) and offset + size == free[index + 1][0]:
            size += free.pop(index + 1)[1]
            free[index] = (offset, size)
        if index > 0 and sum(free[index - 1]) == offset:
            before, before_size = free[index - 1]
            free[index - 1 : index + 1] = [(before, before_size + size)]


def _pages(size_bytes: int) -> int:
    return -(-max(1, size_bytes) // PAGE_BYTES) * PAGE_BYTES
