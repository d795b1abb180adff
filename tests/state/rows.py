"""Opening a database with its schema in place."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from relay.state.database import Database
from relay.state.migrations import migrate
from tests.state.conftest import Target


@asynccontextmanager
async def migrated(target: Target, *, pool_size: int = 4, statement_seconds: float = 10.0) -> AsyncIterator[Database]:
    """The target's database at the latest version."""
    async with target.open(pool_size=pool_size, statement_seconds=statement_seconds) as database:
        await migrate(database)
        yield database
