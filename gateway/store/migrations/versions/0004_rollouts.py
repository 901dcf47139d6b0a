"""Rollouts: state, verdicts, observations, feedback, lease, evaluation sets.

Revision ID: 0004
Revises: 0003
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | Sequence[str] | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TABLES = (
    "evaluations",
    "evaluation_sets",
    "accuracy",
    "leases",
    "disagreements",
    "answered",
    "observations",
    "verdicts",
    "rollouts",
)


def _rollout() -> sa.Column[str]:
    return sa.Column("rollout", sa.String(length=32), nullable=False)


def _of_rollout() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["rollout"], ["rollouts.id"])


def upgrade() -> None:
    """Make the tables."""
    _make_rollouts()
    _make_feedback()
    _make_evaluations()
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=32), nullable=False),
        sa.Column("until_s", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def _make_rollouts() -> None:
    op.create_table(
        "rollouts",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("live_model", sa.String(length=128), nullable=True),
        sa.Column("champion", sa.BigInteger(), nullable=False),
        sa.Column("challenger", sa.BigInteger(), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("state", sa.JSON(), nullable=False),
        sa.Column("gate", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("loaded_challenger", sa.Boolean(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("created_at_s", sa.Float(), nullable=False),
        sa.Column("finished_at_s", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("live_model"),
    )
    op.create_index("ix_rollouts_model", "rollouts", ["model"])
    op.create_table(
        "verdicts",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        _rollout(),
        sa.Column("at_s", sa.Float(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("verdict", sa.JSON(), nullable=False),
        _of_rollout(),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_verdicts_rollout", "verdicts", ["rollout"])
    op.create_table(
        "observations",
        _rollout(),
        sa.Column("stage", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("step", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("gateway", sa.String(length=32), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("dropped", sa.BigInteger(), nullable=False),
        _of_rollout(),
        sa.PrimaryKeyConstraint("rollout", "stage", "step", "gateway"),
    )
    op.create_table(
        "disagreements",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        _rollout(),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("at_s", sa.Float(), nullable=False),
        sa.Column("image_digest", sa.String(length=80), nullable=False),
        sa.Column("champion", sa.JSON(), nullable=False),
        sa.Column("challenger", sa.JSON(), nullable=False),
        sa.Column("image", sa.LargeBinary(), nullable=True),
        _of_rollout(),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_disagreements_rollout", "disagreements", ["rollout"])


def _make_feedback() -> None:
    op.create_table(
        "answered",
        sa.Column("request_id", sa.String(length=128), nullable=False),
        _rollout(),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("category", sa.Integer(), nullable=False),
        sa.Column("challenger_category", sa.Integer(), nullable=True),
        sa.Column("at_s", sa.Float(), nullable=False),
        sa.Column("labelled", sa.Boolean(), nullable=False),
        _of_rollout(),
        sa.PrimaryKeyConstraint("request_id"),
    )
    op.create_index("ix_answered_at_s", "answered", ["at_s"])
    op.create_table(
        "accuracy",
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("labelled", sa.BigInteger(), nullable=False),
        sa.Column("wrong", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("model", "version"),
    )


def _make_evaluations() -> None:
    op.create_table(
        "evaluation_sets",
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("classes", sa.Integer(), nullable=False),
        sa.Column("created_at_s", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("model"),
    )
    op.create_table(
        "evaluations",
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("answers", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("labels", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("evaluation", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("finished_at_s", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("model", "version", "digest"),
    )


def downgrade() -> None:
    """Drop them."""
    for table in _TABLES:
        op.drop_table(table)
