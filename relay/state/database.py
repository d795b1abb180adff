"""One way to run SQL on either engine. Trio shell.

Owns the terms of use: statements, transactions, what counts as an outage. The engines are `sqlite.py` and
`postgres.py`; `opening.py` picks one. SQL is written once, in the subset both understand: `$1` parameters, `RETURNING`,
`ON CONFLICT`, types TEXT, BIGINT and BOOLEAN (which SQLite gives back as 0 or 1).
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import trio

Row = tuple[Any, ...]
SqlValue = str | int | float | bytes | None


class StateUnavailable(Exception):
    """The database can't be used at the moment; what was asked may or may not have been done. Try again later."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What the one SQL text can't say the same way on both engines.

    `table_exists` takes a table's name as `$1` and gives one row, true or false. `migration_lock`, if any, makes other
    migrations wait until the end of the transaction.
    """

    engine: str
    auto_id: str
    begin: str
    table_exists: str
    migration_lock: str | None


class Executor(ABC):
    """Runs statements: the database itself (each on its own) or a transaction."""

    @abstractmethod
    async def fetch(self, sql: str, *params: SqlValue) -> list[Row]:
        """Runs one statement and gives its rows. Raises StateUnavailable in an outage."""

    async def execute(self, sql: str, *params: SqlValue) -> None:
        """Runs one statement for its effect. Raises StateUnavailable in an outage."""
        await self.fetch(sql, *params)


class Engine(Protocol):
    """Gives connections. One that saw an outage is closed and refuses every later statement."""

    @property
    def dialect(self) -> Dialect: ...
    def connection(self) -> AbstractAsyncContextManager[Executor]: ...


class Database(Executor):
    """The operator's database. Any task may use it; none may use it again within its own transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def dialect(self) -> Dialect:
        """Which engine this is, and its peculiarities."""
        return self._engine.dialect

    async def fetch(self, sql: str, *params: SqlValue) -> list[Row]:
        """Runs one statement in a transaction of its own and gives its rows. Raises StateUnavailable in an outage."""
        async with self._engine.connection() as connection:
            return await connection.fetch(sql, *params)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Executor]:
        """All statements of the block or none; committed at its end, rolled back when it raises.

        Raises StateUnavailable in an outage, from any statement and from the commit.
        """
        async with self._engine.connection() as connection:
            await connection.execute(self.dialect.begin)
            try:
                yield connection
                await connection.execute("COMMIT")
            except BaseException:
                with trio.CancelScope(shield=True), suppress(StateUnavailable):
                    await connection.execute("ROLLBACK")
                raise
