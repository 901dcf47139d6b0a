"""What the tests of the stores share."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.store.database import Database, open_database
from tests.postgres import empty


@pytest.fixture(params=["sqlite", "postgresql"])
async def two_gateways(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[Database, Database]]:
    """One empty database, opened as two gateways open it."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/gateway.db"
    else:
        url = request.getfixturevalue("postgres_url")
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(2):
            opened.append(await open_database(url))
            stack.push_async_callback(opened[-1].close)
        yield opened[0], opened[1]
        if request.param == "postgresql":
            await empty(opened[0])
