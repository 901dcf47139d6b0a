"""Keep what was read from the database for as long as nobody commits anything."""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Content = TypeVar("Content")


class CachedRead(Generic[Content]):
    """
    Reads anew only what may have changed.

    Args:
        data_version: As `Database.data_version`; where that is None, every call reads.
        read: Reads the content.
    """

    def __init__(
        self,
        data_version: Callable[[], Awaitable[int | None]],
        read: Callable[[], Awaitable[Content]],
    ) -> None:
        self._data_version = data_version
        self._read = read
        self._cached: tuple[int | None, Content] | None = None

    async def get(self) -> Content:
        """
        Return the content as it is now.

        Raises:
            StoreUnavailable: The database cannot be read.
        """
        # First: what is committed during the read is seen the next time.
        version = await self._data_version()
        if self._cached is None or version is None or version != self._cached[0]:
            self._cached = version, await self._read()
        return self._cached[1]
