"""
The tables. Rows end in `Row`; times are UTC, in seconds since 1970 (a float means the same on
SQLite and PostgreSQL); JSON columns hold what is read whole and never searched.

    models ──< versions          what was published, immutable
       │         ├──< desired    what should be loaded, on every replica
       │         └──< quarantine what is kept out because it kills its process
       ├──< aliases              champion, challenger: names that move
       └──< reports              what validation found out, one for each uploaded version
    numbers                      the highest version number ever given, also of deleted versions
    unsettled                    versions whose files may lie in the repository without a record
    state                        one row: a generation that grows with every change
    audit                        who changed what, when, why

The tables of stored metrics stand in `metrics_tables.py`.
"""

from typing import Any

from sqlalchemy import JSON, BigInteger, Float, ForeignKeyConstraint, Integer, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Root of the declarative mapping; Alembic compares migrations with its metadata."""


class ModelRow(Base):
    """A model: a name under which versions are published."""

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    # Two names that differ only in case would be one directory on some file systems.
    folded_name: Mapped[str] = mapped_column(String(128), unique=True)
    source: Mapped[str] = mapped_column(String(32))
    created_at_s: Mapped[float] = mapped_column(Float)


class VersionRow(Base):
    """
    One published version. Never changed, its number never used again; only `config`, which says how
    it is run and not what it answers, may be tuned.
    """

    __tablename__ = "versions"
    __table_args__ = (ForeignKeyConstraint(["model"], ["models.name"]),)

    model: Mapped[str] = mapped_column(String(128), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    digest: Mapped[str] = mapped_column(String(80))
    source_digest: Mapped[str] = mapped_column(String(80), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    signature: Mapped[dict[str, Any]] = mapped_column(JSON)
    config: Mapped[str] = mapped_column(Text)
    changes: Mapped[list[str]] = mapped_column(JSON)
    source: Mapped[str] = mapped_column(String(32))
    created_at_s: Mapped[float] = mapped_column(Float)
    preprocessing: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    labels: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    # Of both, "" if there is neither: the same file with another record is another version.
    record_digest: Mapped[str] = mapped_column(String(80))
    # "probabilities" or "logits"; null if that was never found out.
    scores: Mapped[str | None] = mapped_column(String(16))
    # A shape of the input that is known to work, one image; null if none was tried.
    trial_shape: Mapped[list[int] | None] = mapped_column(JSON(none_as_null=True))


class ReportRow(Base):
    """What validation found out about a version; apart from it, because it is seldom read."""

    __tablename__ = "reports"
    __table_args__ = (
        ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
    )

    model: Mapped[str] = mapped_column(String(128), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    report: Mapped[dict[str, Any]] = mapped_column(JSON)


class NumberRow(Base):
    """The highest version number that a name has ever had: none is used twice."""

    __tablename__ = "numbers"

    model: Mapped[str] = mapped_column(String(128), primary_key=True)
    highest: Mapped[int] = mapped_column(BigInteger)


class UnsettledRow(Base):
    """
    A version that is being published or removed: its files may be there while its record is not.
    Written before the first file is touched, deleted together with the record or after the files.
    """

    __tablename__ = "unsettled"

    model: Mapped[str] = mapped_column(String(128), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    source_digest: Mapped[str] = mapped_column(String(80))
    record_digest: Mapped[str] = mapped_column(String(80))
    owner: Mapped[str] = mapped_column(String(64))
    since_s: Mapped[float] = mapped_column(Float)


class AliasRow(Base):
    """A name that moves between versions; `generation` makes a move compare-and-swap."""

    __tablename__ = "aliases"
    __table_args__ = (
        ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
    )

    model: Mapped[str] = mapped_column(String(128), primary_key=True)
    alias: Mapped[str] = mapped_column(String(128), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger)
    generation: Mapped[int] = mapped_column(Integer)


class DesiredRow(Base):
    """A version that should be loaded on every replica."""

    __tablename__ = "desired"
    __table_args__ = (
        ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
    )

    model: Mapped[str] = mapped_column(String(128), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    since_s: Mapped[float] = mapped_column(Float)


class QuarantineRow(Base):
    """A version that is kept out until somebody loads it again."""

    __tablename__ = "quarantine"
    __table_args__ = (
        ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
    )

    model: Mapped[str] = mapped_column(String(128), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    reason: Mapped[str] = mapped_column(Text)
    since_s: Mapped[float] = mapped_column(Float)


class StateRow(Base):
    """One row. Whoever caches the tables compares `generation` to know that they are stale."""

    __tablename__ = "state"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    generation: Mapped[int] = mapped_column(BigInteger)
    # The oldest schema whose code runs on this one; see `schema.py`.
    compatible_from: Mapped[str] = mapped_column(String(32), server_default="0005")


class AuditRow(Base):
    """One change of state: what, by whom, from where, when, why. Never changed or deleted."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    at_s: Mapped[float] = mapped_column(Float, index=True)
    actor: Mapped[str] = mapped_column(String(128))
    action: Mapped[str] = mapped_column(String(64))
    model: Mapped[str] = mapped_column(String(128), index=True)
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    source: Mapped[str] = mapped_column(String(64), server_default="")
    request_id: Mapped[str] = mapped_column(String(128), server_default="")
