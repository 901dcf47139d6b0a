"""The schema says how old a release may be that still runs on it.

Revision ID: 0009
Revises: 0008
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | Sequence[str] | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add the column: the code of 0005 runs on all that came since."""
    op.add_column(
        "state",
        sa.Column("compatible_from", sa.String(length=32), nullable=False, server_default="0005"),
    )
    columns = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("answered")}
    if "labelled" not in columns:  # an unreleased form of 0008 dropped it
        op.add_column(
            "answered",
            sa.Column("labelled", sa.Boolean(), nullable=False, server_default=sa.false()),
        )


def downgrade() -> None:
    """Drop it."""
    op.drop_column("state", "compatible_from")
