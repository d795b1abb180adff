"""A real PostgreSQL server that stops, comes back, stands still or was never there."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import trio

from relay.state.database import Database, StateUnavailable
from relay.state.decisions import DecisionKind, Decisions
from relay.state.migrations import check_schema
from tests.state.conftest import Target
from tests.state.postgres_server import PostgresServer
from tests.state.rows import migrated

BAN = DecisionKind.HOST_BAN


async def wait_available(database: Database) -> None:
    """Returns once the database answers again."""
    with trio.fail_after(20):
        while True:
            try:
                await check_schema(database)
            except StateUnavailable:
                await trio.sleep(0.02)
            else:
                return


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_the_server_stops_and_comes_back(postgres: PostgresServer, postgres_target: Target, mode: str) -> None:
    """StateUnavailable while it is away, at once; then work goes on by itself, with nothing lost."""
    async with migrated(postgres_target) as database:
        decisions = Decisions(database)
        before = await decisions.decide(BAN, "a.example", True, by="admin", at_us=1)
        postgres.stop(mode)
        for _ in range(3):
            with trio.fail_after(5), pytest.raises(StateUnavailable):
                await decisions.pending()
        postgres.start()
        await wait_available(database)
        after = await decisions.decide(BAN, "b.example", True, by="admin", at_us=2)
        assert await decisions.pending() == [before, after]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_restart_between_two_uses_goes_unnoticed(
    postgres: PostgresServer, postgres_target: Target, mode: str
) -> None:
    """Idle connections that the server closed are replaced before they are used."""
    async with migrated(postgres_target) as database:
        await Decisions(database).pending()
        postgres.stop(mode)
        postgres.start()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert await Decisions(database).pending() == []


async def test_the_server_stops_under_statements(postgres: PostgresServer, postgres_target: Target) -> None:
    """Running statements, a transaction and waiting tasks all end with StateUnavailable."""
    async with migrated(postgres_target, pool_size=3) as database:
        ended: list[str] = []

        async def sleep_there(number: int) -> None:
            with pytest.raises(StateUnavailable):
                await database.fetch("SELECT pg_sleep(60)")
            ended.append(f"statement {number}")

        async def hold(task_status: trio.TaskStatus[trio.Event]) -> None:
            stopped = trio.Event()
            try:
                async with database.transaction() as transaction:
                    await Decisions(transaction).decide(BAN, "a.example", True, by="admin", at_us=1)
                    task_status.started(stopped)
                    await stopped.wait()
            except StateUnavailable:
                ended.append("transaction")

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                stopped = await nursery.start(hold)
                for number in range(5):
                    nursery.start_soon(sleep_there, number)
                await wait_busy(postgres_target, 2)
                await trio.to_thread.run_sync(postgres.stop, "fast")
                stopped.set()
        assert sorted(ended) == [*(f"statement {number}" for number in range(5)), "transaction"]
        postgres.start()
        await wait_available(database)
        assert await Decisions(database).pending() == []


async def wait_busy(target: Target, statements: int) -> None:
    """Returns once that many statements sleep in the server."""
    async with target.open(pool_size=1) as database:
        with trio.fail_after(10):
            while True:
                rows = await database.fetch(
                    "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND state = 'active'"
                )
                if rows[0][0] >= statements:
                    return
                await trio.sleep(0.02)


async def test_a_server_that_stands_still_is_an_outage(postgres: PostgresServer, postgres_target: Target) -> None:
    """Neither a statement nor a new connection waits beyond the limit; afterwards all is well."""
    async with migrated(postgres_target) as patient:
        before = await Decisions(patient).decide(BAN, "a.example", True, by="admin", at_us=1)
    async with postgres_target.open(statement_seconds=0.3) as database:
        assert await Decisions(database).pending() == [before]
        postgres.pause()
        try:
            for _ in range(2):
                with trio.fail_after(5), pytest.raises(StateUnavailable, match="no answer in time"):
                    await Decisions(database).pending()
        finally:
            postgres.resume()
        await wait_available(database)
        assert await Decisions(database).pending() == [before]


async def test_closing_does_not_wait_for_a_server_that_stands_still(
    postgres: PostgresServer, postgres_target: Target
) -> None:
    """A relay that stops while PostgreSQL hangs does stop."""
    with trio.fail_after(10):
        async with migrated(postgres_target) as database:
            await Decisions(database).pending()
            postgres.pause()
    postgres.resume()


async def test_a_slow_statement_is_stopped_in_the_server_too(postgres_target: Target) -> None:
    """It doesn't go on, and holds no lock, after we gave up on it."""
    async with postgres_target.open(statement_seconds=0.3) as database:
        with trio.fail_after(5), pytest.raises(StateUnavailable):
            await database.fetch("SELECT pg_sleep(60)")
    async with postgres_target.open() as database:
        with trio.fail_after(10):
            while (await database.fetch("SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))[0][0]:
                await trio.sleep(0.02)


async def test_a_connection_ended_by_the_server_is_replaced(postgres_target: Target) -> None:
    """An administrator's pg_terminate_backend during a statement costs that statement only."""
    async with migrated(postgres_target, pool_size=1) as database, postgres_target.open() as other:
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"

        async def fail() -> None:
            with pytest.raises(StateUnavailable):
                await database.fetch("SELECT pg_sleep(60)")

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)
                while not await other.fetch(end):
                    await trio.sleep(0.02)
        await check_schema(database)


async def test_a_standby_is_an_outage_for_writes(postgres_target: Target) -> None:
    """During a switch-over the server may be read-only for a while."""
    async with migrated(postgres_target) as database:
        (name,) = (await database.fetch("SELECT current_database()"))[0]
        await database.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    async with postgres_target.open() as database:
        with pytest.raises(StateUnavailable, match="read-only"):
            await Decisions(database).decide(BAN, "a.example", True, by="admin", at_us=1)
        assert await Decisions(database).pending() == []


async def test_a_cancelled_transaction_does_not_wait_for_a_server_that_stands_still(
    postgres: PostgresServer, postgres_target: Target
) -> None:
    """A request that is given up, or a relay that stops, isn't held by a rollback nobody will answer."""
    async with migrated(postgres_target, statement_seconds=60) as database:
        with trio.fail_after(10):
            with trio.CancelScope() as scope:
                async with database.transaction() as transaction:
                    await Decisions(transaction).decide(BAN, "a.example", True, by="admin", at_us=1)
                    postgres.pause()
                    scope.deadline = trio.current_time() + 0.1
                    await transaction.fetch("SELECT 1")
            assert scope.cancelled_caught
        postgres.resume()
        assert await Decisions(database).pending() == []


LOGGED_IN = b"NR\0\0\0\x08\0\0\0\0" + b"S\0\0\0\x18server_version\x0015.0\0" + b"Z\0\0\0\x05I"


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"N", id="no TLS and no more"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="HTTP"),
        pytest.param(b"S\x15\x03\x01\0\x02\x02\x28", id="a TLS alert"),
        pytest.param(b"NR\0\0\0\x03", id="a message shorter than its length"),
        pytest.param(b"NR\xff\xff\xff\xff" + b"\0" * 50, id="a negative length"),
        pytest.param(b"NR\0\0\0\x08\0\0\0\x63", id="an unknown way to authenticate"),
        pytest.param(b"NE\0\0\0\x0bSFATAL\0" + b"\0" * 9, id="an error without its fields"),
        pytest.param(LOGGED_IN, id="silence after the login"),
        pytest.param(LOGGED_IN + b"D\0\0\0\x06\0\x01" * 9, id="rows nobody asked for"),
    ],
)
async def test_a_port_that_speaks_something_else_is_an_outage(
    postgres_programs: object, sqlite_target: Target, words: bytes
) -> None:
    """Whatever is said there, the relay runs on."""

    async def talk(stream: trio.SocketStream) -> None:
        async with stream:
            for word in (words[:1], words[1:]):
                if await stream.receive_some() and word:
                    await stream.send_all(word)
            await stream.receive_some()

    async with trio.open_nursery() as nursery:
        (place,) = await nursery.start(partial(trio.serve_tcp, talk, 0, host="127.0.0.1"))
        port = place.socket.getsockname()[1]
        url = f"postgres://relay@127.0.0.1:{port}/relay"
        async with Target(url, sqlite_target.data_dir).open(statement_seconds=0.5) as database:
            with trio.fail_after(10), pytest.raises(StateUnavailable):
                await database.fetch("SELECT 1")
        nursery.cancel_scope.cancel()


@contextmanager
def listener() -> Iterator[int]:
    """The port of a socket that takes connections and never says a word."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        yield silent.getsockname()[1]


async def test_a_port_that_says_nothing_is_an_outage(postgres_programs: object, sqlite_target: Target) -> None:
    """Connecting is bounded like a statement; until the next attempt the answer is immediate."""
    with listener() as port:
        target = Target(f"postgres://relay:secretword@127.0.0.1:{port}/relay", sqlite_target.data_dir)
        async with target.open(statement_seconds=0.3) as database:
            with trio.fail_after(5), pytest.raises(StateUnavailable, match="no answer in time"):
                await database.fetch("SELECT 1")
            with trio.fail_after(5), pytest.raises(StateUnavailable, match="next attempt") as raised:
                await database.fetch("SELECT 1")
            assert "secretword" not in str(raised.value)


async def test_a_server_that_is_not_there_when_we_start(postgres: PostgresServer, postgres_target: Target) -> None:
    """Opening succeeds, using fails, and once the server is there it works."""
    async with migrated(postgres_target):
        pass
    postgres.stop()
    async with postgres_target.open() as database:
        with trio.fail_after(5), pytest.raises(StateUnavailable):
            await check_schema(database)
        postgres.start()
        await wait_available(database)
        assert await Decisions(database).pending() == []
