"""A lease has a fencing number.

Revision ID: 0011
Revises: 0010
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | Sequence[str] | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add the column; the release before goes on without it."""
    op.add_column(
        "leases", sa.Column("number", sa.BigInteger(), nullable=False, server_default="0")
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_column("leases", "number")
