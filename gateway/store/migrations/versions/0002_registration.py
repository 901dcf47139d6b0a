"""Registration: records, labels, reports, numbers, unsettled versions.

Revision ID: 0002
Revises: 0001
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | Sequence[str] | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Make the tables and columns; every number that is in use counts as given."""
    with op.batch_alter_table("versions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("preprocessing", sa.JSON(none_as_null=True), nullable=True))
        batch_op.add_column(sa.Column("labels", sa.JSON(none_as_null=True), nullable=True))
        batch_op.add_column(
            sa.Column("record_digest", sa.String(length=80), nullable=False, server_default="")
        )
        batch_op.add_column(sa.Column("scores", sa.String(length=16), nullable=True))
        batch_op.add_column(sa.Column("trial_shape", sa.JSON(none_as_null=True), nullable=True))
    op.create_table(
        "reports",
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("report", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model", "version"],
            ["versions.model", "versions.version"],
        ),
        sa.PrimaryKeyConstraint("model", "version"),
    )
    op.create_table(
        "numbers",
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("highest", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("model"),
    )
    op.create_table(
        "unsettled",
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("source_digest", sa.String(length=80), nullable=False),
        sa.Column("record_digest", sa.String(length=80), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("since_s", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("model", "version"),
    )
    op.execute(
        "INSERT INTO numbers (model, highest) "
        "SELECT model, MAX(version) FROM versions GROUP BY model"
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("unsettled")
    op.drop_table("numbers")
    op.drop_table("reports")
    with op.batch_alter_table("versions", schema=None) as batch_op:
        for column in ("trial_shape", "scores", "record_digest", "labels", "preprocessing"):
            batch_op.drop_column(column)
