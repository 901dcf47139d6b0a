"""What each of several workers may use."""

import pytest
from pydantic import ValidationError

from gateway.settings import Settings
from gateway.workers.parent.shares import share, share_of


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize("total", [0, 1, 7, 16, 257])
def test_shares_add_up_and_differ_by_one_at_most(total: int, workers: int) -> None:
    """All workers together may use what was set, and none much more than another."""
    shares = [share(total, number, workers) for number in range(1, workers + 1)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


def test_limits_of_requests_are_divided() -> None:
    """Places, the queue, threads and shared memory of three workers are those of one gateway."""
    settings = Settings(
        workers=3,
        max_concurrent_runs=16,
        max_waiting_runs=2,
        decode_threads=4,
        shared_memory_bytes=3 * 8192,
    )
    shares = [share_of(settings, number) for number in (1, 2, 3)]
    assert [each.max_concurrent_runs for each in shares] == [6, 5, 5]
    assert [each.max_waiting_runs for each in shares] == [1, 1, 0]
    assert [each.decode_threads for each in shares] == [2, 1, 1]
    assert [each.shared_memory_bytes for each in shares] == [8192] * 3


def test_every_worker_has_a_thread() -> None:
    """More workers than threads: one each."""
    settings = Settings(workers=3, max_concurrent_runs=16, decode_threads=1)
    assert [share_of(settings, number).decode_threads for number in (1, 2, 3)] == [1, 1, 1]


def test_fewer_places_than_workers_are_refused() -> None:
    """A worker without a place would answer nothing."""
    with pytest.raises(ValidationError, match="each of the 5 WORKERS"):
        Settings(workers=5, max_concurrent_runs=4)
