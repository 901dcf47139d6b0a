"""One real Triton for all integration tests; a test uses model names of its own."""

from collections.abc import AsyncIterator

import pytest

from tests.running_triton import RunningTriton, running_triton


@pytest.fixture(scope="session")
async def triton(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningTriton]:
    """Yield an embedded server over an empty repository."""
    async with running_triton(tmp_path_factory.mktemp("triton")) as running:
        yield running
