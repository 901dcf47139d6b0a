"""What is kept of the database, and when it is read anew."""

from itertools import count

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.cached_read import CachedRead


async def test_it_is_read_anew_only_after_a_commit() -> None:
    """The same version, the same content; another version, or none to be had, and it is read."""
    versions, reads = iter([1, 1, 2, 2, None, None]), count()

    async def version() -> int | None:
        return next(versions)

    async def read() -> int:
        return next(reads)

    cached = CachedRead(version, read)
    assert [await cached.get() for _ in range(6)] == [0, 0, 1, 1, 2, 3]


async def test_a_read_that_failed_is_made_again() -> None:
    """Nothing is taken for read that was not."""

    async def version() -> int:
        return 1

    failing = iter([True, False])

    async def read() -> str:
        if next(failing):
            raise StoreUnavailable("away")
        return "content"

    cached = CachedRead(version, read)
    with pytest.raises(StoreUnavailable):
        await cached.get()
    assert await cached.get() == "content"
