"""What is kept of the database, and when it is read anew."""

from itertools import count

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.kept import Kept


async def test_it_is_read_anew_only_after_a_commit() -> None:
    """The same version, the same content; another version, or none to be had, and it is read."""
    versions, reads = iter([1, 1, 2, 2, None, None]), count()

    async def version() -> int | None:
        return next(versions)

    async def read() -> int:
        return next(reads)

    kept = Kept(version, read)
    assert [await kept.look() for _ in range(6)] == [0, 0, 1, 1, 2, 3]


async def test_a_read_that_failed_is_made_again() -> None:
    """Nothing is taken for read that was not."""

    async def version() -> int:
        return 1

    failing = iter([True, False])

    async def read() -> str:
        if next(failing):
            raise StoreUnavailable("away")
        return "content"

    kept = Kept(version, read)
    with pytest.raises(StoreUnavailable):
        await kept.look()
    assert await kept.look() == "content"
