"""The server engine: PostgreSQL through asyncpg, on an asyncio loop inside our trio run. Trio shell.

Owns a small pool of connections. Not asyncpg's own pool: that one waits for a server's answer to give a connection
back, without a limit. Whatever goes wrong with a connection closes it and every idle one; the next use connects anew,
but not sooner than `reconnect_seconds` after an attempt that failed.
"""

import logging
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import trio

from relay.state.database import Dialect, Executor, Row, SqlValue, StateUnavailable

with warnings.catch_warnings():
    # On Python 3.12 and 3.13 it subclasses something deprecated (python-trio/trio-asyncio#152).
    warnings.simplefilter("ignore", DeprecationWarning)
    import trio_asyncio  # type: ignore[import-untyped]

DIALECT = Dialect(
    engine="postgresql",
    auto_id="BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    begin="BEGIN",
    table_exists="SELECT to_regclass($1) IS NOT NULL",
    migration_lock="SELECT pg_advisory_xact_lock(4707423186208973177)",  # b"AT relay" as a number; never change it
)

# SQLSTATE prefixes (PostgreSQL, appendix A) of what may be gone at the next attempt: connection, read-only (a standby),
# rolled back by a deadlock, resources, lock not available, operator intervention and cancelled, system errors.
_OUTAGES = ("08", "25006", "40", "53", "55P03", "57", "58")

_FAILURES = (
    OSError,
    trio.TooSlowError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)

_CLOSE_SECONDS = 1.0

_log = logging.getLogger(__name__)


@asynccontextmanager
async def open_postgres(
    url: str, *, pool_size: int, statement_seconds: float, reconnect_seconds: float
) -> AsyncIterator["PostgresEngine"]:
    """The engine, for the length of the block. Connects at the first use, not here."""
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        # In a task of its own, so that no other task sees an asyncio loop in its context. Shielded, as is the task:
        # a cancellation from outside must not take the loop away before the connections are closed.
        closed = trio.Event()
        with trio.CancelScope(shield=True):
            loop = await nursery.start(_hold_loop, closed)
        engine = PostgresEngine(
            url,
            loop=loop,
            pool_size=pool_size,
            statement_seconds=statement_seconds,
            reconnect_seconds=reconnect_seconds,
        )
        try:
            yield engine
        except BaseException as error:  # noqa: BLE001 -- raised below: the nursery would wrap it in a group
            failure = error
        with trio.CancelScope(shield=True):
            await engine.close()
        closed.set()
    if failure is not None:
        raise failure


async def _hold_loop(closed: trio.Event, task_status: trio.TaskStatus[Any]) -> None:
    with trio.CancelScope(shield=True):
        async with trio_asyncio.open_loop() as loop:
            loop.set_exception_handler(_log_stray)
            loop.set_default_executor(_AbandonableThreads())
            task_status.started(loop)
            await closed.wait()


def _log_stray(_loop: object, context: dict[str, Any]) -> None:
    # Without this trio-asyncio would end the whole run over an error in a callback of one connection.
    _log.warning("PostgreSQL client: %s", context.get("message"), exc_info=context.get("exception"))


class _AbandonableThreads(trio_asyncio.TrioExecutor):  # type: ignore[misc]
    """For resolving names, which has no time limit of its own; trio-asyncio would wait for the thread's end."""

    async def submit(self, func: Callable[..., object], *args: object) -> object:
        return await trio.to_thread.run_sync(func, *args, abandon_on_cancel=True)


class PostgresEngine:
    """At most `pool_size` connections, each used by one task at a time."""

    dialect = DIALECT

    def __init__(
        self, url: str, *, loop: Any, pool_size: int, statement_seconds: float, reconnect_seconds: float
    ) -> None:
        self._url = url
        self._loop = loop
        self._seconds = statement_seconds
        self._reconnect_seconds = reconnect_seconds
        self._places = trio.CapacityLimiter(pool_size)
        self._idle: list[_Connection] = []
        self._not_before = -float("inf")
        self._refusal = ""

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Executor]:
        """One of the connections. Raises StateUnavailable if none gets free or the server can't be reached."""
        try:
            with trio.fail_after(self._seconds):
                await self._places.acquire()
        except trio.TooSlowError:
            raise StateUnavailable(f"other statements took longer than {self._seconds} s") from None
        try:
            connection = self._take_idle() or await self._connect()
            try:
                yield connection
            finally:
                self._give_back(connection)
        finally:
            self._places.release()

    async def close(self) -> None:
        """Says goodbye on every idle connection; those that don't get it in time are cut."""
        with trio.move_on_after(_CLOSE_SECONDS):
            for connection in self._idle:
                await connection.close()
        self._drop_idle()

    def _take_idle(self) -> "_Connection | None":
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        return None

    def _give_back(self, connection: "_Connection") -> None:
        self._idle.append(connection)
        if connection.closed:
            self._drop_idle()

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().cut()

    async def _connect(self) -> "_Connection":
        if trio.current_time() < self._not_before:
            raise StateUnavailable(f"PostgreSQL: {self._refusal} (the next attempt comes shortly)")
        try:
            with trio.fail_after(self._seconds):
                client = await trio_asyncio.aio_as_trio(self._dial, loop=self._loop)()
        except asyncpg.ClientConfigurationError:
            raise  # the URL is wrong, and stays so
        except _FAILURES as error:
            self._refusal = _text(error)
            self._not_before = trio.current_time() + self._reconnect_seconds
            raise StateUnavailable(f"PostgreSQL: {self._refusal}") from error
        return _Connection(client, loop=self._loop, statement_seconds=self._seconds)

    async def _dial(self) -> Any:
        """Runs as asyncio."""
        client = await asyncpg.connect(self._url, server_settings={"application_name": "atproto-relay"})
        try:
            # Not among the start-up settings: connection poolers refuse to pass it on.
            await client.execute(f"SET statement_timeout = {round(self._seconds * 1000)}")
        except BaseException:
            client.terminate()
            raise
        return client


class _Connection(Executor):
    def __init__(self, client: Any, *, loop: Any, statement_seconds: float) -> None:
        self._client = client
        self._loop = loop
        self._seconds = statement_seconds

    @property
    def closed(self) -> bool:
        return bool(self._client.is_closed())

    async def fetch(self, sql: str, *params: SqlValue) -> list[Row]:
        if self.closed:
            raise StateUnavailable("PostgreSQL: the connection is closed")
        try:
            with trio.fail_after(self._seconds):
                records = await trio_asyncio.aio_as_trio(self._client.fetch, loop=self._loop)(sql, *params)
        except _FAILURES as error:
            if not (self.closed or _is_outage(error)):
                raise
            self.cut()
            raise StateUnavailable(f"PostgreSQL: {_text(error)}") from error
        except BaseException:
            self.cut()  # cancelled: an answer may still be on its way
            raise
        return [tuple(record) for record in records]

    async def close(self) -> None:
        with suppress(*_FAILURES):
            await trio_asyncio.aio_as_trio(self._client.close, loop=self._loop)()

    def cut(self) -> None:
        self._client.terminate()


def _is_outage(error: BaseException) -> bool:
    if isinstance(error, asyncpg.PostgresError):
        return bool(str(error.sqlstate).startswith(_OUTAGES))
    return not isinstance(error, asyncpg.InterfaceError)  # which means wrong use, while the connection is open


def _text(error: BaseException) -> str:
    if isinstance(error, trio.TooSlowError):
        return "no answer in time"
    if isinstance(error, FileNotFoundError):  # whose text doesn't say which
        return "a file that the URL names (socket, certificate) does not exist"
    return str(error) or type(error).__name__
