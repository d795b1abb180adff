"""The embedded engine: one SQLite file, one connection, one statement at a time. Trio shell.

Statements run in a worker thread and can't be abandoned there: waiting for another process's lock is bounded by the
time limit, waiting for the disk is not (a disk that stands still stops the event log as well). Corruption is not an
outage: it is raised as it is.
"""

import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from relay.state.database import Dialect, Executor, Row, SqlValue, StateUnavailable

DIALECT = Dialect(
    engine="sqlite",
    auto_id="INTEGER PRIMARY KEY",
    begin="BEGIN IMMEDIATE",  # one that reads first and writes later would fail at once beside another writer
    table_exists="SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = $1)",
    migration_lock=None,
)

# Primary result codes, https://sqlite.org/rescode.html: what may be gone at the next attempt.
_OUTAGES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)


class SqliteEngine:
    """Connects to `path` at the first use and, after an outage, at the next."""

    dialect = DIALECT

    def __init__(self, *, path: Path, statement_seconds: float) -> None:
        self._path = path
        self._seconds = statement_seconds
        self._turn = trio.Lock()
        self._threads = trio.CapacityLimiter(1)
        self._open: _Connection | None = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Executor]:
        """The one connection. Raises StateUnavailable when others keep it for longer than the time limit."""
        try:
            with trio.fail_after(self._seconds):
                await self._turn.acquire()
        except trio.TooSlowError:
            raise StateUnavailable(f"other statements took longer than {self._seconds} s") from None
        try:
            if self._open is None or self._open.closed:
                self._open = await trio.to_thread.run_sync(self._connect, limiter=self._threads)
            yield self._open
        finally:
            self._turn.release()

    async def close(self) -> None:
        """Closes the file; the last to do so also removes SQLite's side files."""
        if self._open is not None:
            await trio.to_thread.run_sync(self._open.close, limiter=self._threads)

    def _connect(self) -> "_Connection":
        # The switch to WAL doesn't wait for a process that is doing the same (SQLite ignores its own time limit here).
        deadline = time.monotonic() + self._seconds
        while True:
            try:
                return _Connection(self._path, self._seconds, self._threads)
            except sqlite3.OperationalError as error:
                if not _is_outage(error):
                    raise
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise StateUnavailable(f"SQLite: {error}") from error
                time.sleep(0.01)


class _Connection(Executor):
    def __init__(self, path: Path, busy_seconds: float, threads: trio.CapacityLimiter) -> None:
        self._threads = threads
        self._sqlite = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
        self.closed = False
        try:
            self._sqlite.execute("PRAGMA journal_mode = WAL")
            self._sqlite.execute("PRAGMA synchronous = FULL")
        except BaseException:
            self._sqlite.close()
            raise

    async def fetch(self, sql: str, *params: SqlValue) -> list[Row]:
        return await trio.to_thread.run_sync(self._run, sql, params, limiter=self._threads)

    def close(self) -> None:
        self.closed = True
        self._sqlite.close()

    def _run(self, sql: str, params: tuple[SqlValue, ...]) -> list[Row]:
        if self.closed:
            raise StateUnavailable("SQLite: the connection is closed")
        # To SQLite `$1` is a parameter by the name of 1.
        named = {str(number): value for number, value in enumerate(params, 1)}
        try:
            return self._sqlite.execute(sql, named).fetchall()
        except sqlite3.OperationalError as error:
            if not _is_outage(error):
                raise
            self.close()
            raise StateUnavailable(f"SQLite: {error}") from error


def _is_outage(error: sqlite3.OperationalError) -> bool:
    # Errors that Python's module raises by itself carry no code.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in _OUTAGES
