"""Work that goes on while the database is away."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import structlog

from gateway.errors import StoreUnavailable

log = structlog.get_logger(__name__)


def _nothing() -> Mapping[str, object]:
    return {}


class StoreOutage:
    """
    Tells one outage of the database from the next: logs once when it begins and once when it ends.

    Args:
        event: What is logged when the database goes away; the reason stands beside it.
        over: What is logged when it is back.
        details: What else is logged when it is back.
    """

    def __init__(
        self, event: str, over: str, *, details: Callable[[], Mapping[str, object]] = _nothing
    ) -> None:
        self.reachable = True
        """Whether the last block reached the database."""
        self._event = event
        self._over = over
        self._details = details

    @contextlib.contextmanager
    def tolerated(self) -> Iterator[None]:
        """Run a block that uses the database; `StoreUnavailable` ends the block, and no more."""
        try:
            yield
        except StoreUnavailable as error:
            if self.reachable:
                log.warning(self._event, reason=str(error.__cause__ or error))
            self.reachable = False
        else:
            if not self.reachable:
                log.info(self._over, **self._details())
            self.reachable = True
