"""A region of shared memory: nameless but for one moment, all there or not there at all."""

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from gateway.triton.shared_memory import DIRECTORY, Region, SharedMemoryUnavailable, sweep
from gateway.triton.slots import PAGE_BYTES
from gateway.triton.tensor import Canvas

SIZE_BYTES = 16 * PAGE_BYTES


def _names() -> set[str]:
    return {path.name for path in DIRECTORY.glob(f"onnx-gateway-{os.getpid()}-*")}


def _open_files() -> int:
    return psutil.Process().num_fds()


def test_a_region_has_a_name_only_while_it_is_opened() -> None:
    """In /dev/shm there is a name inside the block, its owner's, and none before or after."""
    region = Region(SIZE_BYTES)
    assert _names() == set()
    with region.named() as key:
        assert _names() == {region.name}
        path = DIRECTORY / key.removeprefix("/")
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.stat().st_size == SIZE_BYTES
        named = path.open("rb")
    assert _names() == set()
    slot = region.take(5)
    assert slot is not None
    region.view(slot)[:] = (1, 2, 3, 4, 5)
    with named:
        named.seek(slot.offset)
        assert named.read(5) == b"\1\2\3\4\5"
    region.close()


def test_a_name_is_taken_away_also_when_the_block_fails() -> None:
    """What goes wrong inside leaves no name behind."""
    region = Region(SIZE_BYTES)
    with pytest.raises(ZeroDivisionError), region.named():
        _ = 1 / 0
    assert _names() == set()
    region.close()


def test_more_than_there_is_is_one_clear_error() -> None:
    """More bytes than /dev/shm has left: SharedMemoryUnavailable, and nothing stays allocated."""
    files, free = _open_files(), shutil.disk_usage(DIRECTORY).free
    with pytest.raises(SharedMemoryUnavailable, match="No space left"):
        Region(shutil.disk_usage(DIRECTORY).total + PAGE_BYTES)
    assert _open_files() == files
    assert _names() == set()
    # Others use it too.
    assert shutil.disk_usage(DIRECTORY).free > free - 256 * 1024**2


def test_memory_is_given_back_with_the_last_array() -> None:
    """A dropped region's arrays stay readable; after the last nothing is left."""
    gc.collect()  # of others' connections
    files = _open_files()
    region = Region(SIZE_BYTES)
    slot = region.take(PAGE_BYTES)
    assert slot is not None
    view = region.view(slot)
    view[:] = 7
    region.close()
    del region
    gc.collect()
    assert (view == 7).all()
    del view, slot
    gc.collect()
    assert _open_files() == files


def test_views_are_the_slots_and_nothing_else() -> None:
    """Each view is writable, as long as was asked for, and shows its own bytes only."""
    region = Region(SIZE_BYTES)
    slots = [region.take(size_bytes) for size_bytes in (1, PAGE_BYTES, PAGE_BYTES + 1, 100)]
    for number, slot in enumerate(slots):
        assert slot is not None
        region.view(slot)[:] = number
    for number, slot in enumerate(slots):
        assert slot is not None
        view = region.view(slot)
        assert view.shape == (slot.size_bytes,)
        assert (view == number).all()
    region.close()


def test_a_sweep_takes_the_names_of_the_dead_alone() -> None:
    """A killed gateway's name goes; those of a running one and of strangers stay."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    theirs = DIRECTORY / f"onnx-gateway-{dead.pid}-0123"
    ours = DIRECTORY / f"onnx-gateway-{os.getpid()}-0123"
    stranger = DIRECTORY / f"onnx-gateway-of-{dead.pid}-0123"
    paths = (theirs, ours, stranger)
    try:
        for path in paths:
            path.write_bytes(b"0")
        assert sweep() == [theirs.name]
        assert [path.exists() for path in paths] == [False, True, True]
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def test_a_region_needs_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no /dev/shm: SharedMemoryUnavailable."""
    monkeypatch.setattr("gateway.triton.shared_memory.DIRECTORY", tmp_path / "none")
    files = _open_files()
    with pytest.raises(SharedMemoryUnavailable, match="No such file"):
        Region(SIZE_BYTES)
    assert _open_files() == files


class TestCanvas:
    """Who holds the slot of a request's pixels."""

    def test_what_was_drawn_is_handed_over(self) -> None:
        """An array that is the whole slot, in another shape too, is the tensor: no copy."""
        region = Region(SIZE_BYTES)
        canvas = Canvas(region)
        drawn = canvas.allocate(2 * 3 * 4)
        drawn[:] = np.arange(24)
        tensor = canvas.tensor(drawn.reshape(1, 2, 4, 3))
        assert tensor.slot is not None
        assert np.shares_memory(tensor.array, drawn)
        canvas.release()
        assert region.slots.taken_bytes == PAGE_BYTES, "the canvas let go of what it handed over"
        tensor.release()
        assert region.slots.taken_bytes == 0
        region.close()

    @pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.int64, np.bool_])
    def test_anything_else_is_copied_into_a_slot(self, dtype: type[np.generic]) -> None:
        """Another dtype, a part, a transposed view: copied, in C order, and the drawn slot goes."""
        region = Region(SIZE_BYTES)
        canvas = Canvas(region)
        drawn = canvas.allocate(6 * 4 * 3)
        drawn[:] = np.arange(72)
        made = drawn.reshape(6, 4, 3)[::2].transpose(2, 0, 1).astype(dtype, copy=False)
        expected = made.copy()
        tensor = canvas.tensor(made)
        canvas.release()
        assert tensor.slot is not None
        assert tensor.slot.size_bytes == expected.nbytes
        assert region.slots.taken_bytes == PAGE_BYTES
        drawn[:] = 0
        np.testing.assert_array_equal(tensor.array, expected)
        assert tensor.array.flags.c_contiguous
        tensor.release()
        region.close()

    def test_a_full_region_costs_no_request(self) -> None:
        """Without a free slot the pixels lie anywhere; what was drawn in a slot is copied out."""
        region = Region(2 * PAGE_BYTES)
        canvas = Canvas(region)
        drawn = canvas.allocate(2 * PAGE_BYTES)
        drawn[:] = 9
        tensor = canvas.tensor(drawn[: 2 * PAGE_BYTES - 1])
        canvas.release()
        assert tensor.slot is None
        assert not np.shares_memory(tensor.array, drawn)
        assert (tensor.array == 9).all()
        assert region.slots.taken_bytes == 0
        other = region.take(PAGE_BYTES)
        assert other is not None
        anywhere = canvas.allocate(2 * PAGE_BYTES)
        assert canvas.tensor(anywhere).slot is None
        other.release()
        region.close()

    def test_a_second_drawing_gives_the_first_up(self) -> None:
        """An image that is decoded in a second way takes one slot, not two."""
        region = Region(SIZE_BYTES)
        canvas = Canvas(region)
        canvas.allocate(PAGE_BYTES)
        canvas.allocate(PAGE_BYTES)
        assert region.slots.taken_bytes == PAGE_BYTES
        canvas.release()
        canvas.release()
        assert region.slots.taken_bytes == 0
        region.close()

    def test_without_a_region_there_is_memory_all_the_same(self) -> None:
        """No shared memory: the array as it is, and nothing to let go of."""
        canvas = Canvas(None)
        drawn = canvas.allocate(10)
        tensor = canvas.tensor(drawn)
        assert tensor.array is drawn
        tensor.release()
        assert tensor.keep()

    def test_values_are_kept_only_while_memory_is_to_spare(self) -> None:
        """With more than half of the region taken nobody keeps values beyond the request."""
        region = Region(4 * PAGE_BYTES)
        canvas = Canvas(region)
        tensor = canvas.tensor(canvas.allocate(2 * PAGE_BYTES))
        assert tensor.keep()
        tensor.release()
        other = region.take(1)
        assert not tensor.keep()
        tensor.release()
        assert region.slots.taken_bytes == PAGE_BYTES
        assert other is not None
        region.close()
