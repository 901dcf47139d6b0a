"""Recorded requests: sealed, bounded, and never in the way of a request."""

import asyncio
import base64
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.rollouts.live.recorder import TrafficRecorder
from gateway.rollouts.live.recordings import Recorded, Recordings
from gateway.settings import Settings
from tests.eventually import eventually

KEY = bytes(range(32))
MARK = b"the pixels of somebody's face"


def recordings(
    folder: Path,
    *,
    key: bytes | None = KEY,
    most_images: int = 100,
    most_bytes: int = 1 << 20,
    kept_s: float = 1000,
) -> Recordings:
    return Recordings(
        folder / "recordings",
        key=key,
        most_images=most_images,
        most_bytes=most_bytes,
        kept_s=kept_s,
    )


def record(into: Recordings, *numbers: int, model: str = "m") -> None:
    """Record requests, each a second younger than the one before."""
    for number in numbers:
        into.write(Recorded(model, 1, f"request-{number}", MARK))
        newest = max(into.paths(model), key=lambda path: path.stat().st_mtime_ns)
        at_s = time.time() - 500 + number
        os.utime(newest, (at_s, at_s))


def kept(of: Recordings, model: str = "m") -> list[str]:
    found = [of.read(path) for path in of.paths(model)]
    return [each.request_id for each in found if each is not None]


@pytest.mark.parametrize("key", [None, KEY], ids=["open", "sealed"])
def test_what_is_recorded_is_read_again(tmp_path: Path, key: bytes | None) -> None:
    """With its label, once it is told; only with a key nothing of it can be seen on the disk."""
    made = recordings(tmp_path, key=key)
    made.write(Recorded("m", 3, "request-1", MARK))
    made.write(Recorded("m", 3, "request-2", MARK * 2))
    made.write_label("m", "request-2", 7)
    found = {each.request_id: each for each in map(made.read, made.paths("m")) if each is not None}
    assert found == {
        "request-1": Recorded("m", 3, "request-1", MARK),
        "request-2": Recorded("m", 3, "request-2", MARK * 2, label=7),
    }
    files = list((tmp_path / "recordings/m").iterdir())
    assert all(path.stat().st_mode & 0o077 == 0 for path in files)
    seen = b"".join(path.read_bytes() for path in files)
    assert (MARK in seen, b"request-1" in seen) == ((key is None,) * 2)
    overview = made.overview("m")
    assert (overview.images, overview.labelled) == (2, 1)
    assert overview.size_bytes == len(seen)


def _with_another_key(folder: Path, _: Path) -> Recordings:
    return recordings(folder, key=bytes(32))


def _without_the_key(folder: Path, _: Path) -> Recordings:
    return recordings(folder, key=None)


def _damaged(folder: Path, path: Path) -> Recordings:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return recordings(folder)


def _cut_short(folder: Path, path: Path) -> Recordings:
    path.write_bytes(path.read_bytes()[:9])
    return recordings(folder)


def _put_in_place_of_another(folder: Path, path: Path) -> Recordings:
    shutil.copy(path, path.with_name("0" * 32 + ".image"))
    path.unlink()
    return recordings(folder)


@pytest.mark.parametrize(
    "spoil",
    [_with_another_key, _without_the_key, _damaged, _cut_short, _put_in_place_of_another],
    ids=lambda spoil: spoil.__name__.strip("_"),
)
def test_what_cannot_be_trusted_is_left_out(tmp_path: Path, spoil: object) -> None:
    """A file of another key, a damaged one, and one that was moved do not count."""
    made = recordings(tmp_path)
    record(made, 1)
    assert callable(spoil)
    after: Recordings = spoil(tmp_path, made.paths("m")[0])
    assert kept(after) == []


def test_the_newest_stay_within_the_bounds(tmp_path: Path) -> None:
    """Of each model so many, of all together so many bytes, and none longer than it may be."""
    few = recordings(tmp_path, most_images=3)
    record(few, 1, 2, 3, 4, 5)
    few.write_label("m", "request-1", 1)
    few.write_label("m", "request-5", 1)
    record(few, 1, model="gone")
    few.sweep({"m"})
    assert kept(few) == ["request-5", "request-4", "request-3"]
    assert [path.name for path in (tmp_path / "recordings").iterdir()] == ["m"]
    size_bytes = few.paths("m")[0].stat().st_size
    record(few, 9, model="other")
    small = recordings(tmp_path, most_bytes=3 * size_bytes)
    small.sweep({"m", "other"})
    assert (kept(small, "other"), kept(small)) == (["request-9"], ["request-5", "request-4"])
    brief = recordings(tmp_path, kept_s=495.5)
    brief.sweep({"m", "other"})
    assert (kept(brief, "other"), kept(brief)) == (["request-9"], ["request-5"])
    brief.delete("m")
    assert kept(brief) == []
    assert brief.overview("m").images == 0


def test_a_label_that_belongs_to_nothing_goes(tmp_path: Path) -> None:
    """Another process may be about to write the request, so it is given a minute."""
    made = recordings(tmp_path)
    record(made, 1)
    made.write_label("m", "unrecorded", 1)
    made.write_label("unknown", "request", 1)
    labels = list((tmp_path / "recordings/m").glob("*.label"))
    made.sweep({"m"})
    assert [path.exists() for path in labels] == [True]
    assert not (tmp_path / "recordings/unknown").exists()
    long_ago_s = time.time() - 100
    os.utime(labels[0], (long_ago_s, long_ago_s))
    made.sweep({"m"})
    assert [path.exists() for path in labels] == [False]
    assert kept(made) == ["request-1"]


@pytest.mark.parametrize(
    ("share", "models", "recorded"),
    [
        pytest.param(0.0, ("*",), 0, id="off"),
        pytest.param(1.0, ("*",), 40, id="all"),
        pytest.param(1.0, ("other", "m*"), 40, id="named"),
        pytest.param(1.0, ("other",), 0, id="not named"),
        pytest.param(1.0, (), 0, id="none named"),
    ],
)
async def test_only_what_was_asked_for_is_recorded(
    tmp_path: Path, share: float, models: Sequence[str], recorded: int
) -> None:
    """Nothing unless it is switched on, and then of the models that are named."""
    made = recordings(tmp_path)
    recorder = TrafficRecorder(made, share=share, models=models)
    for number in range(40):
        recorder.offer("model", 1, f"request-{number}", MARK)
        recorder.label("model", f"request-{number}", 1)
    await recorder.flush()
    overview = made.overview("model")
    assert (overview.images, overview.labelled) == (recorded, recorded)


async def test_a_share_is_drawn_by_lot(tmp_path: Path) -> None:
    """Of 2,000 requests about a quarter is kept: 350 to 650 are 6 deviations and more away."""
    made = recordings(tmp_path)
    recorder = TrafficRecorder(made, share=0.25, models=["*"])
    for number in range(2000):
        recorder.offer("m", 1, f"request-{number}", b"")
    await recorder.flush()
    assert 350 < made.overview("m").images < 650


async def test_a_full_disk_and_a_crowd_are_no_matter_of_the_requests(tmp_path: Path) -> None:
    """What cannot be written is given up, more than 32 MiB are not held; the next is recorded."""
    (tmp_path / "recordings").write_text("no folder")
    made = recordings(tmp_path)
    recorder = TrafficRecorder(made, share=1.0, models=["*"])
    working = asyncio.create_task(recorder.follow(lambda: {"m"}))
    for number in range(40):
        recorder.offer("m", 1, f"request-{number}", bytes(1 << 20))
    await recorder.flush()
    (tmp_path / "recordings").unlink()
    for number in range(40):
        recorder.offer("m", 1, f"request-{number}", bytes(1 << 20))
    await eventually(lambda: made.overview("m").images == 32)
    assert not working.done()
    working.cancel()


@pytest.mark.parametrize("text", ["short", base64.b64encode(bytes(31)).decode(), "=" * 44])
def test_a_key_that_is_none_is_refused(text: str) -> None:
    """Before anything starts, and the text says how to make one."""
    with pytest.raises(ValidationError, match="openssl rand -base64 32"):
        Settings(record_key=text)
    key = Settings(record_key=base64.b64encode(KEY).decode())
    assert key.record_key_bytes == KEY
    assert base64.b64encode(KEY).decode() not in repr(key)
