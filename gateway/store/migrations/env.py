"""Alembic's entry: runs the migrations on the connection that `database.py` hands over."""

from alembic import context

from gateway.store import (  # noqa: F401 - their tables belong to the metadata, too
    access_tables,
    metrics_tables,
    rollout_tables,
)
from gateway.store.tables import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
