"""What was read from the database, kept for as long as nobody commits anything."""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Content = TypeVar("Content")


class Kept(Generic[Content]):
    """
    Reads anew only what may have changed.

    Args:
        data_version: As `Database.data_version`; where that is None, every look reads.
        read: Reads the content.
    """

    def __init__(
        self,
        data_version: Callable[[], Awaitable[int | None]],
        read: Callable[[], Awaitable[Content]],
    ) -> None:
        self._data_version = data_version
        self._read = read
        self._kept: tuple[int | None, Content] | None = None

    async def look(self) -> Content:
        """
        Return the content as it is now.

        Raises:
            StoreUnavailable: The database cannot be read.
        """
        # First: what is committed during the read is seen the next time.
        version = await self._data_version()
        if self._kept is None or version is None or version != self._kept[0]:
            self._kept = version, await self._read()
        return self._kept[1]
