"""The end of a connection on which more may come that nobody wants."""

import asyncio

_LAST_S = 3.0
_FORGOTTEN_BYTES = 64 * 1024 * 1024


class Ending:
    """
    Reads and forgets what comes behind a last answer, until the client closes or time is over.

    To close at once is to reset the connection if bytes come or have come, and with it the answer
    that the client was about to read (RFC 9112, section 9.6).

    Args:
        transport: The connection; what was written before is sent.
        now_s: By the loop's clock.
    """

    def __init__(self, transport: asyncio.Transport, now_s: float) -> None:
        self._transport = transport
        self._left_bytes = _FORGOTTEN_BYTES
        self.over_at_s = now_s + _LAST_S
        """When the connection is cut off."""

    def send_end(self) -> None:
        """Tell the client that no answer follows."""
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()

    def forget(self, data: bytes) -> None:
        """Forget what came; the end is near if it is much."""
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            self._transport.abort()
