"""The allocator of shared memory: whatever is taken and given back, in whatever order."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from gateway.triton.slots import PAGE_BYTES, Slot, Slots

_PAGES = 24


def _in_pages(size_bytes: int) -> int:
    return max(1, -(-size_bytes // PAGE_BYTES))


class Taking(RuleBasedStateMachine):
    """Requests that come and go, against a model that marks each page with its holder."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots(_PAGES * PAGE_BYTES)
        self.pages: list[Slot | None] = [None] * _PAGES
        self.holders: dict[Slot, int] = {}

    @rule(target=held, size_bytes=st.integers(0, 9 * PAGE_BYTES))
    def take(self, size_bytes: int) -> Slot | None:
        wanted = _in_pages(size_bytes)
        free = [
            start
            for start in range(_PAGES - wanted + 1)
            if not any(self.pages[start : start + wanted])
        ]
        slot = self.slots.take(size_bytes)
        if slot is None:
            assert free == [], "there was room"
            return None
        assert slot.size_bytes == size_bytes
        # The first that fits, on a page, inside, and nobody else's.
        assert slot.offset == free[0] * PAGE_BYTES
        self.pages[free[0] : free[0] + wanted] = [slot] * wanted
        self.holders[slot] = 1
        return slot

    @rule(slot=held)
    def hold(self, slot: Slot | None) -> None:
        if slot is None:
            return
        if not self.holders[slot]:
            with pytest.raises(RuntimeError):
                slot.hold()
            return
        slot.hold()
        self.holders[slot] += 1

    @rule(slot=held)
    def release(self, slot: Slot | None) -> None:
        if slot is None:
            return
        if not self.holders[slot]:
            with pytest.raises(RuntimeError):
                slot.release()
            return
        slot.release()
        self.holders[slot] -= 1
        if not self.holders[slot]:
            self.pages = [None if page is slot else page for page in self.pages]

    @rule(slot=consumes(held))
    def let_go_altogether(self, slot: Slot | None) -> None:
        while slot is not None and self.holders[slot]:
            self.release(slot)

    @invariant()
    def accounts_are_right(self) -> None:
        taken = sum(page is not None for page in self.pages)
        assert self.slots.taken_bytes == taken * PAGE_BYTES

    def teardown(self) -> None:
        for slot, count in self.holders.items():
            for _ in range(count):
                slot.release()
        assert self.slots.taken_bytes == 0
        whole = self.slots.take(_PAGES * PAGE_BYTES)
        assert whole is not None, "the free parts did not become one again"


TestTaking = Taking.TestCase
TestTaking.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)


def test_a_second_release_is_an_error() -> None:
    """Giving back twice raises: by then the slot may be another request's."""
    slot = Slots(PAGE_BYTES).take(1)
    assert slot is not None
    slot.release()
    with pytest.raises(RuntimeError):
        slot.release()
    with pytest.raises(RuntimeError):
        slot.hold()


def test_threads_never_share_a_byte() -> None:
    """Eight threads take, write and give back: each finds what it wrote, and all comes back."""
    slots, memory = Slots(16 * PAGE_BYTES), np.zeros(16 * PAGE_BYTES, np.uint8)
    start = threading.Barrier(8)

    def work(number: int) -> int:
        rng, taken = np.random.default_rng(number), 0
        start.wait()
        for _ in range(200):
            slot = slots.take(int(rng.integers(1, 4 * PAGE_BYTES)))
            if slot is None:
                continue
            taken += 1
            slot.hold()
            part = memory[slot.offset : slot.offset + slot.size_bytes]
            part[:] = number
            slot.release()
            assert (part == number).all()
            slot.release()
        return taken

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(work, range(1, 9))) > 100
    assert slots.taken_bytes == 0
    assert slots.take(16 * PAGE_BYTES) is not None
