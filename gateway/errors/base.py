"""The root of all errors."""

from typing import ClassVar


class GatewayError(Exception):
    """
    The root. `detail` is the text a caller reads, `code` the stable word a script compares,
    `retry_after_s` how long a caller may wait before it is worth trying again (None: never).
    """

    code: ClassVar[str] = "internal_error"
    retry_after_s: ClassVar[float | None] = None
    refusal: str = ""
    """Why a request was refused that nobody looked at, in a word; "": that is not what happened."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail
