"""The table of keys."""

from sqlalchemy import JSON, Boolean, Float, Integer, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from gateway.store.tables import Base


class KeyRow(Base):
    """
    A key: its keyed hash, and what it allows. Never deleted, so that the audit log can name it.

    `live_name` is the name until the key is revoked: of the keys in force none shares a name.
    `pepper` names the secret that the hash was made with. After a rotation `previous_digest` is
    good until `previous_until_s`.
    """

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), index=True)
    live_name: Mapped[str | None] = mapped_column(String(64), unique=True)
    role: Mapped[str] = mapped_column(String(16))
    models: Mapped[list[str]] = mapped_column(JSON)
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    pepper: Mapped[str] = mapped_column(String(16))
    previous_digest: Mapped[bytes | None] = mapped_column(LargeBinary)
    previous_until_s: Mapped[float | None] = mapped_column(Float)
    created_at_s: Mapped[float] = mapped_column(Float)
    created_by: Mapped[str] = mapped_column(String(128))
    expires_at_s: Mapped[float | None] = mapped_column(Float)
    revoked_at_s: Mapped[float | None] = mapped_column(Float)
    rate_per_s: Mapped[float | None] = mapped_column(Float)
    in_flight: Mapped[int | None] = mapped_column(Integer)
    batch: Mapped[bool] = mapped_column(Boolean)
