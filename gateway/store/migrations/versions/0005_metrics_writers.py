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
    # One may be there: a level was made by its first roll-up.
    op.execute(
        "INSERT INTO metrics_levels (resolution_s, complete_to_s, kept_from_s) "
        "VALUES (60, 0, 0), (3600, 0, 0), (86400, 0, 0) ON CONFLICT DO NOTHING"
    )


def downgrade() -> None:
    """Drop the table; the levels may stay."""
    op.drop_table("metrics_writers")
