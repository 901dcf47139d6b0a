"""
What one of several workers may use, so that all of them together use what the settings say.

A number that does not divide evenly gives the first workers one more. Pure.
"""

from typing import Any

from gateway.settings import Settings

_DIVIDED = {
    # Of these every worker has one at least, of the others none.
    "max_concurrent_runs": 1,
    "max_runs_beside_others": 1,
    "decode_threads": 1,
    "max_uploads": 1,
    "mirror_concurrency": 1,
    "mirror_queue": 1,
    "mirror_queue_bytes": 1,
    "metrics_held_rows": 1,
    "max_connections": 1,
    "body_memory_bytes": 1,
    "max_waiting_runs": 0,
}
_SMALLEST_REGION_BYTES = 4096


def share_of(settings: Settings, number: int) -> Settings:
    """Return the settings of worker `number`, which counts from 1."""
    workers = settings.workers
    shares: dict[str, Any] = {
        name: max(least, share(getattr(settings, name), number, workers))
        for name, least in _DIVIDED.items()
    }
    shares["shared_memory_bytes"] = max(
        _SMALLEST_REGION_BYTES, settings.shared_memory_bytes // workers
    )
    return settings.model_copy(update=shares)


def share(total: int, number: int, workers: int) -> int:
    """Return what worker `number` of `workers` gets of a total; the shares add up to it."""
    return total // workers + (number <= total % workers)
