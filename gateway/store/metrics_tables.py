"""
The tables of stored metrics. They refer to no other table: what was measured of a version outlives
the version.

    request_metrics   requests by span of time, endpoint, model, version, status, writer
    metrics_levels    until when each resolution is complete, and since when it is kept
    metrics_writers   the processes that count, and until when their counts are stored
    version_samples   what was measured beside requests: memory, load time, Triton's statistics
"""

from typing import Any

from sqlalchemy import JSON, BigInteger, Float, Index, Integer, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from gateway.store.tables import Base


class RequestMetricsRow(Base):
    """The requests of one endpoint, model, version and status in one span of time."""

    __tablename__ = "request_metrics"

    resolution_s: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    start_s: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    endpoint: Mapped[str] = mapped_column(String(64), primary_key=True)
    model: Mapped[str] = mapped_column(String(128), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    status: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    # The process that wrote the row; "" for one that was rolled up.
    writer: Mapped[str] = mapped_column(String(16), primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)
    bytes_in: Mapped[int] = mapped_column(BigInteger)
    bytes_out: Mapped[int] = mapped_column(BigInteger)
    errors: Mapped[dict[str, Any]] = mapped_column(JSON)
    categories: Mapped[dict[str, Any]] = mapped_column(JSON)
    sketches: Mapped[bytes] = mapped_column(LargeBinary)


class LevelRow(Base):
    """One resolution: complete up to, kept from. Both UTC in seconds."""

    __tablename__ = "metrics_levels"

    resolution_s: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    complete_to_s: Mapped[int] = mapped_column(BigInteger)
    kept_from_s: Mapped[int] = mapped_column(BigInteger)


class MetricsWriterRow(Base):
    """
    One process that counts. A process that stops in order takes its row away; the row of one that
    was killed stays and says what is missing.
    """

    __tablename__ = "metrics_writers"

    writer: Mapped[str] = mapped_column(String(16), primary_key=True)
    # Everything that it counted before is stored. UTC in seconds, like the next.
    stored_to_s: Mapped[float] = mapped_column(Float)
    # Null while it lives, or as long as nobody has noticed that it does not.
    lost_to_s: Mapped[float | None] = mapped_column(Float)


class VersionSampleRow(Base):
    """
    One look at one version on one replica. Counters of Triton's are what was added since the look
    before.
    """

    __tablename__ = "version_samples"
    __table_args__ = (Index("ix_version_samples_model", "model", "version", "start_s"),)

    resolution_s: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    start_s: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    replica: Mapped[str] = mapped_column(String(255), primary_key=True)
    model: Mapped[str] = mapped_column(String(128), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    writer: Mapped[str] = mapped_column(String(16), primary_key=True)
    load_s: Mapped[float | None] = mapped_column(Float)
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    gpu_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    pending: Mapped[int | None] = mapped_column(Integer)
    inferences: Mapped[int] = mapped_column(BigInteger)
    executions: Mapped[int] = mapped_column(BigInteger)
    queue_s: Mapped[float] = mapped_column(Float)
    compute_s: Mapped[float] = mapped_column(Float)
    batch_sizes: Mapped[dict[str, Any]] = mapped_column(JSON)
