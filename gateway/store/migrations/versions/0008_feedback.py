"""Feedback: which requests it was given on and when; the number of each verdict.

Revision ID: 0008
Revises: 0007
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | Sequence[str] | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Make the table and the columns; what was judged already is noted."""
    op.create_table(
        "judged",
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("at_s", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("request_id"),
    )
    op.create_index("ix_judged_at_s", "judged", ["at_s"])
    op.execute(
        "INSERT INTO judged (request_id, at_s) SELECT request_id, at_s FROM answered WHERE labelled"
    )
    # Nobody reads it any more; the release before still writes it.
    with op.batch_alter_table("answered") as answered:
        answered.alter_column(
            "labelled",
            existing_type=sa.Boolean(),
            existing_nullable=False,
            server_default=sa.false(),
        )
    op.add_column("answered", sa.Column("caller", sa.String(length=16), nullable=True))
    op.add_column("accuracy", sa.Column("last_at_s", sa.Float(), nullable=True))
    op.add_column("verdicts", sa.Column("number", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    """Undo it."""
    op.drop_column("verdicts", "number")
    op.drop_column("accuracy", "last_at_s")
    op.drop_column("answered", "caller")
    with op.batch_alter_table("answered") as answered:
        answered.alter_column(
            "labelled", existing_type=sa.Boolean(), existing_nullable=False, server_default=None
        )
    op.drop_index("ix_judged_at_s", "judged")
    op.drop_table("judged")
