"""
The registry: holds the current catalog and keeps it current.

A change made through this gateway refreshes at once; a change made by another gateway on the same
database is seen by polling one number. When the database is away, the last catalog stays in force,
so that requests go on.
"""

import asyncio
from collections.abc import Awaitable, Callable

from gateway.registry.versions import Catalog, build_catalog
from gateway.store.cached_read import CachedRead
from gateway.store.outage import StoreOutage
from gateway.store.versions import VersionStore


class Registry:
    """The catalog in force. `catalog` may be read at any time, from the event loop's thread."""

    def __init__(
        self,
        store: VersionStore,
        *,
        hidden_sources: tuple[str, ...] = (),
        refreshed: Callable[[Catalog], Awaitable[None]] | None = None,
    ) -> None:
        """
        Args:
            store: Where the catalog is read.
            hidden_sources: Versions from these sources are left out.
            refreshed: Awaited at the end of every refresh, until all who answer requests know the
                catalog.
        """
        self.catalog = Catalog()
        self.store = store
        self._refreshed = refreshed
        self._hidden_sources = hidden_sources
        self._refreshing = asyncio.Lock()
        self._listeners: list[Callable[[Catalog], None]] = []
        self._alongside: list[Callable[[], Awaitable[None]]] = []

    def on_change(self, listener: Callable[[Catalog], None]) -> None:
        """Call `listener` with each new catalog, right after it came into force."""
        self._listeners.append(listener)

    def read_alongside(self, read: Callable[[], Awaitable[None]]) -> None:
        """Call `read` before each new catalog: for what changes under the same generation."""
        self._alongside.append(read)

    async def refresh(self) -> Catalog:
        """
        Read the store and swap the catalog if its generation has moved.

        Raises:
            StoreUnavailable: The database is away; the last catalog stays.
        """
        async with self._refreshing:
            if await self.store.generation() != self.catalog.generation:
                rows = await self.store.read_all()
                for read in self._alongside:
                    await read()
                self.catalog = build_catalog(rows, hidden_sources=self._hidden_sources)
                for listener in self._listeners:
                    listener(self.catalog)
        if self._refreshed is not None:
            await self._refreshed(self.catalog)
        return self.catalog

    async def follow(self, poll_s: float) -> None:
        """Refresh for ever, every `poll_s` seconds."""
        outage = StoreOutage("store_unavailable", "store_available")
        cached = CachedRead(self.store.data_version, self.refresh)
        while True:
            await asyncio.sleep(poll_s)
            with outage.tolerated():
                await cached.get()
