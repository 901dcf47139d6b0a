"""What tests do to a PostgreSQL database that they share."""

from sqlalchemy import text

from gateway.store.database import Database
from gateway.store.tables import Base


async def empty(database: Database) -> None:
    """Delete every row, of the audit log too: only who owns the table can switch that off."""
    async with database.write() as session:
        await session.execute(text("ALTER TABLE audit DISABLE TRIGGER USER"))
        for table in reversed(Base.metadata.sorted_tables):
            if table.name != "state":
                await session.execute(table.delete())
        await session.execute(text("ALTER TABLE audit ENABLE TRIGGER USER"))
