"""
The tables of rollouts. They refer to no version: the history of a rollout outlives its versions.

    rollouts ──< verdicts        what each check said, with its numbers
         │  ├──< observations    counts by step and gateway, which add up
         │  ├──< answered        requests of a rollout, waiting for feedback
         │  └──< disagreements   samples of requests that two versions answered differently
    judged                       requests that feedback was given on
    leases                       who may run what only one gateway may run
    accuracy                     feedback by version, whether or not a rollout was under way
    evaluation_sets              the labelled images of a model, by digest
    evaluations                  what a version answered on such a set
    replays                      what a version answered to recorded requests
"""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    String,
    Text,
    false,
)
from sqlalchemy.orm import Mapped, mapped_column

from gateway.store.tables import Base

_ID = String(32)


class RolloutRow(Base):
    """
    One rollout: its state as a document, and what is searched for. `live_model` is its model as
    long as it has not ended, then null: unique, so that a model has one live rollout.
    """

    __tablename__ = "rollouts"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    model: Mapped[str] = mapped_column(String(128), index=True)
    live_model: Mapped[str | None] = mapped_column(String(128), unique=True)
    champion: Mapped[int] = mapped_column(BigInteger)
    challenger: Mapped[int] = mapped_column(BigInteger)
    phase: Mapped[str] = mapped_column(String(16))
    revision: Mapped[int] = mapped_column(Integer)
    state: Mapped[dict[str, Any]] = mapped_column(JSON)
    gate: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    # Whether the challenger was loaded for it, and is to be unloaded if it fails.
    loaded_challenger: Mapped[bool] = mapped_column(Boolean)
    created_by: Mapped[str] = mapped_column(String(128))
    created_at_s: Mapped[float] = mapped_column(Float)
    finished_at_s: Mapped[float | None] = mapped_column(Float)


class VerdictRow(Base):
    """One check of one step."""

    __tablename__ = "verdicts"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    rollout: Mapped[str] = mapped_column(ForeignKey("rollouts.id"), index=True)
    at_s: Mapped[float] = mapped_column(Float)
    # Which check of the rollout, from 1; 0 for those of releases that did not number them.
    number: Mapped[int] = mapped_column(Integer, server_default="0")
    outcome: Mapped[str] = mapped_column(String(16))
    verdict: Mapped[dict[str, Any]] = mapped_column(JSON)


class ObservationRow(Base):
    """What one gateway has counted in one step, from its start until now."""

    __tablename__ = "observations"

    rollout: Mapped[str] = mapped_column(ForeignKey("rollouts.id"), primary_key=True)
    stage: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    step: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    gateway: Mapped[str] = mapped_column(_ID, primary_key=True)
    counts: Mapped[dict[str, Any]] = mapped_column(JSON)
    # Copies that were not sent because too many were waiting.
    dropped: Mapped[int] = mapped_column(BigInteger)


class AnsweredRow(Base):
    """A request of a rollout that was answered, and may get feedback."""

    __tablename__ = "answered"

    request_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    rollout: Mapped[str] = mapped_column(ForeignKey("rollouts.id"))
    stage: Mapped[int] = mapped_column(Integer)
    step: Mapped[int] = mapped_column(Integer)
    model: Mapped[str] = mapped_column(String(128))
    version: Mapped[int] = mapped_column(BigInteger)
    category: Mapped[int] = mapped_column(Integer)
    # In shadow, what the challenger said to the same request.
    challenger_category: Mapped[int | None] = mapped_column(Integer)
    at_s: Mapped[float] = mapped_column(Float, index=True)
    # Who asked, if the caller named itself: a hash.
    caller: Mapped[str | None] = mapped_column(String(16))
    # Of release 0.2, which notes here what `judged` says now.
    labelled: Mapped[bool] = mapped_column(Boolean, server_default=false())


class JudgedRow(Base):
    """A request that feedback was given on: it counts once, whoever answered under its id."""

    __tablename__ = "judged"

    request_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    at_s: Mapped[float] = mapped_column(Float, index=True)


class DisagreementRow(Base):
    """A request that champion and challenger answered differently. `image` only if allowed."""

    __tablename__ = "disagreements"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    rollout: Mapped[str] = mapped_column(ForeignKey("rollouts.id"), index=True)
    request_id: Mapped[str] = mapped_column(String(128))
    at_s: Mapped[float] = mapped_column(Float)
    image_digest: Mapped[str] = mapped_column(String(80))
    champion: Mapped[dict[str, Any]] = mapped_column(JSON)
    challenger: Mapped[dict[str, Any]] = mapped_column(JSON)
    image: Mapped[bytes | None] = mapped_column(LargeBinary)


class LeaseRow(Base):
    """A job that one gateway at a time does, and until when it may go on without asking again."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    owner: Mapped[str] = mapped_column(_ID)
    until_s: Mapped[float] = mapped_column(Float)
    # Grows whenever the lease changes hands.
    number: Mapped[int] = mapped_column(BigInteger, server_default="0")


class AccuracyRow(Base):
    """Feedback on one version."""

    __tablename__ = "accuracy"

    model: Mapped[str] = mapped_column(String(128), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    labelled: Mapped[int] = mapped_column(BigInteger)
    wrong: Mapped[int] = mapped_column(BigInteger)
    # When the last of it came, Unix seconds; None for feedback of releases that did not note it.
    last_at_s: Mapped[float | None] = mapped_column(Float)


class EvaluationSetRow(Base):
    """The labelled images that a model's versions are measured on; the newest counts."""

    __tablename__ = "evaluation_sets"

    model: Mapped[str] = mapped_column(String(128), primary_key=True)
    digest: Mapped[str] = mapped_column(String(80))
    images: Mapped[int] = mapped_column(Integer)
    classes: Mapped[int] = mapped_column(Integer)
    created_at_s: Mapped[float] = mapped_column(Float)


class EvaluationRow(Base):
    """One version on one set: its answers, in the order of the images, and what they amount to."""

    __tablename__ = "evaluations"

    model: Mapped[str] = mapped_column(String(128), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    digest: Mapped[str] = mapped_column(String(80), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    error: Mapped[str | None] = mapped_column(Text)
    answers: Mapped[list[int] | None] = mapped_column(JSON(none_as_null=True))
    labels: Mapped[list[int] | None] = mapped_column(JSON(none_as_null=True))
    evaluation: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    finished_at_s: Mapped[float | None] = mapped_column(Float)


class ReplayRow(Base):
    """Recorded requests of a model, asked of one of its versions and of the champion."""

    __tablename__ = "replays"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    model: Mapped[str] = mapped_column(String(128), index=True)
    champion: Mapped[int] = mapped_column(BigInteger)
    candidate: Mapped[int] = mapped_column(BigInteger)
    # running, done or failed.
    state: Mapped[str] = mapped_column(String(16))
    images: Mapped[int] = mapped_column(Integer)
    asked: Mapped[int] = mapped_column(Integer)
    # Recorded requests that could not be read.
    skipped: Mapped[int] = mapped_column(Integer)
    labelled: Mapped[int] = mapped_column(Integer)
    verdict: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    error: Mapped[str | None] = mapped_column(Text)
    created_by: Mapped[str] = mapped_column(String(128))
    created_at_s: Mapped[float] = mapped_column(Float)
    # When it was last heard of: one that is running and silent has been interrupted.
    told_at_s: Mapped[float] = mapped_column(Float)
    finished_at_s: Mapped[float | None] = mapped_column(Float)
