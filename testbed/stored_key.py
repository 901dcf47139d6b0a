"""Keys as they are stored, without a database."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.access.keys import Pepper

PEPPER = Pepper(b"p" * 32)


@dataclass
class KeyRow:
    """A key as it is stored."""

    id: str
    digest: bytes
    name: str = "ci"
    role: str = "infer"
    models: Sequence[str] = ()
    pepper: str = PEPPER.id
    previous_digest: bytes | None = None
    previous_until_s: float | None = None
    expires_at_s: float | None = None
    revoked_at_s: float | None = None
    rate_per_s: float | None = None
    in_flight: int | None = None
    batch: bool = False
