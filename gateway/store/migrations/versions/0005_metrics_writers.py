"""Who writes stored metrics, and up to when; and a row for each level, to be locked from the start.

Revision ID: 0005
Revises: 0004
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | Sequence[str] | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Make the table, and the levels that are missing."""
    op.create_table(
        "metrics_writers",
        sa.Column("writer", sa.String(length=16), nullable=False),
        sa.Column("stored_to_s", sa.Float(), nullable=False),
        sa.Column("lost_to_s", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("writer"),
    )
    for resolution_s in (60, 3600, 86400):
        op.execute(
            "INSERT INTO metrics_levels (resolution_s, complete_to_s, kept_from_s) "
            f"VALUES ({resolution_s}, 0, 0) ON CONFLICT DO NOTHING"
        )


def downgrade() -> None:
    """Drop the table; the levels may stay."""
    op.drop_table("metrics_writers")
