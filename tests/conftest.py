"""What every level of tests shares."""

from collections.abc import Iterator

import pytest

from testbed.postgres import find_binaries, running_postgres


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs against PostgreSQL, so that `make test-unit` can leave it out."""
    for item in items:
        parameters = getattr(item, "callspec", None)
        asked = "postgresql" in parameters.params.values() if parameters else False
        if asked or "postgres_url" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.postgres)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server on this machine (Debian: package postgresql)")
    with running_postgres(binaries) as url:
        yield url
