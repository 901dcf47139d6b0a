"""What every level of tests shares."""

from collections.abc import Iterator

import pytest

from tests.postgres import find_binaries, running_postgres


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server on this machine (Debian: package postgresql)")
    with running_postgres(binaries) as url:
        yield url
