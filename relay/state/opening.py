"""Opens the operator's database for as long as it is used. Trio shell.

The one place that knows both engines.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import trio

from relay.state.database import Database
from relay.state.migrations import migrate
from relay.state.sqlite import SqliteEngine

SQLITE_FILE = "state.sqlite"


@asynccontextmanager
async def open_database(
    url: str | None, *, data_dir: Path, pool_size: int, statement_seconds: float, reconnect_seconds: float
) -> AsyncIterator[Database]:
    """The database at `url`, or SQLite's file in `data_dir` when it is None.

    SQLite is brought to this version's schema here. PostgreSQL is not touched before the first statement, so that a
    relay starts without it: call `check_schema` when it can be reached.

    Raises:
        ValueError: the URL can't be used (its text, which has a password, is not in the message).
        StateUnavailable, SchemaMismatch: SQLite's file can't be opened or is of another version.
    """
    if url is not None:
        check_url(url)
        if sys.version_info >= (3, 14):
            raise ValueError("PostgreSQL needs Python 3.11 to 3.13: trio-asyncio doesn't work with later ones yet")
        # asyncpg takes 5 MB, and trio-asyncio changes asyncio for the whole process: only where they are wanted.
        from relay.state.postgres import open_postgres  # noqa: PLC0415

        async with open_postgres(
            url, pool_size=pool_size, statement_seconds=statement_seconds, reconnect_seconds=reconnect_seconds
        ) as server:
            yield Database(server)
        return
    engine = SqliteEngine(path=data_dir / SQLITE_FILE, statement_seconds=statement_seconds)
    try:
        database = Database(engine)
        await migrate(database)
        yield database
    finally:
        with trio.CancelScope(shield=True):
            await engine.close()


def check_url(url: str) -> None:
    """Raises ValueError if this is not a PostgreSQL URL; the message doesn't repeat it."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("not a URL (special characters in a password must be percent-encoded)") from None
    if parts.scheme not in ("postgres", "postgresql"):
        raise ValueError("expected postgres://… or postgresql://…")
