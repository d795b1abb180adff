"""Statements, transactions, waiting and opening, on both engines."""

import sqlite3
from functools import partial

import pytest
import trio

from relay.state.database import Database, Executor, StateUnavailable
from relay.state.opening import SQLITE_FILE, check_url, open_database
from tests.state.conftest import Target
from tests.state.rows import migrated

INSERT = "INSERT INTO schema_version (version) VALUES ($1)"


async def versions(database: Database) -> list[int]:
    return [version for (version,) in await database.fetch("SELECT version FROM schema_version WHERE version > 100")]


async def test_a_wrong_statement_is_our_bug_and_not_an_outage(target: Target) -> None:
    """It is raised as the engine raises it, and the connection is good for the next."""
    async with migrated(target) as database:
        with pytest.raises(Exception, match="no_such_table") as raised:
            await database.fetch("SELECT * FROM no_such_table")
        assert not isinstance(raised.value, StateUnavailable)
        await database.execute(INSERT, 101)
        with pytest.raises(Exception, match=r"(?i)unique") as raised:
            await database.execute(INSERT, 101)
        assert not isinstance(raised.value, StateUnavailable)
        assert await versions(database) == [101]


async def test_a_cancelled_transaction_leaves_nothing_and_its_place(target: Target) -> None:
    """After more cancelled transactions than connections the database still works."""
    async with migrated(target, pool_size=2) as database:
        for number in range(101, 106):
            with trio.CancelScope() as scope:
                async with database.transaction() as transaction:
                    await transaction.execute(INSERT, number)
                    scope.cancel()
                    await transaction.execute(INSERT, number + 100)
            assert scope.cancelled_caught
        assert await versions(database) == []
        await database.execute(INSERT, 150)
        assert await versions(database) == [150]


async def test_waiting_for_a_lock_holds_up_only_the_waiting_task(target: Target) -> None:
    """The loop runs while a statement waits: the task that ends the wait is on the same loop."""
    async with migrated(target, statement_seconds=30) as database, migrated(target) as other:
        finished = trio.Event()

        async def wait() -> None:
            await database.execute(INSERT, 102)
            finished.set()

        async with trio.open_nursery() as nursery:
            async with other.transaction() as holder:
                await lock(holder, target)
                nursery.start_soon(wait)
                for _ in range(20):
                    await trio.sleep(0.01)
                assert not finished.is_set()
            with trio.fail_after(20):
                await finished.wait()
        assert sorted(await versions(database)) == [101, 102]


async def lock(holder: Executor, target: Target) -> None:
    """Keeps everyone else from writing until the transaction ends."""
    if target.engine == "postgresql":
        await holder.execute("LOCK TABLE schema_version")
    await holder.execute(INSERT, 101)


async def test_a_lock_held_too_long_is_an_outage(target: Target) -> None:
    """Whoever waits longer than the time limit is told so; afterwards everything works."""
    async with migrated(target) as patient, migrated(target, statement_seconds=0.3) as hasty:
        async with patient.transaction() as holder:
            await lock(holder, target)
            with trio.fail_after(10), pytest.raises(StateUnavailable):
                await hasty.execute(INSERT, 102)
        await hasty.execute(INSERT, 103)
        assert sorted(await versions(hasty)) == [101, 103]


async def test_no_free_connection_is_an_outage(target: Target) -> None:
    """A transaction that takes too long doesn't hang the others."""
    async with migrated(target, pool_size=1, statement_seconds=0.3) as database:
        async with trio.open_nursery() as nursery:

            async def hold(task_status: trio.TaskStatus[None]) -> None:
                async with database.transaction():
                    task_status.started()
                    await trio.sleep_forever()

            await nursery.start(hold)
            with trio.fail_after(10), pytest.raises(StateUnavailable, match="longer than"):
                await database.execute(INSERT, 101)
            nursery.cancel_scope.cancel()
        await database.execute(INSERT, 102)
        assert await versions(database) == [102]


async def test_the_database_within_its_own_transaction_is_refused(target: Target) -> None:
    """It would wait for itself; said at once instead."""
    async with migrated(target) as database, database.transaction():
        with pytest.raises(RuntimeError):
            await database.fetch("SELECT 1")


async def test_an_exception_leaves_the_block_as_it_is(target: Target) -> None:
    """No group around it, so that the command line can name it."""
    with pytest.raises(ZeroDivisionError):
        async with target.open():
            raise ZeroDivisionError


async def test_a_block_can_be_cancelled(target: Target) -> None:
    """Closing doesn't hang and doesn't swallow the cancellation."""
    with trio.fail_after(10), trio.CancelScope() as scope:
        async with migrated(target) as database:
            await database.fetch("SELECT 1")
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_many_tasks_share_few_connections(target: Target) -> None:
    """Every transaction reads and writes; none is lost."""
    async with migrated(target, pool_size=2) as database:

        async def add(number: int) -> None:
            async with database.transaction() as transaction:
                await transaction.execute(INSERT, number)
                await transaction.fetch("SELECT 1")

        async with trio.open_nursery() as nursery:
            for number in range(101, 121):
                nursery.start_soon(add, number)
        assert sorted(await versions(database)) == list(range(101, 121))


async def test_sqlite_is_durable_and_shared(sqlite_target: Target) -> None:
    """Write-ahead log, a sync at every commit, and no side files left behind."""
    async with migrated(sqlite_target) as database:
        assert await database.fetch("PRAGMA journal_mode") == [("wal",)]
        assert await database.fetch("PRAGMA synchronous") == [(2,)]
    assert [path.name for path in sqlite_target.data_dir.iterdir()] == [SQLITE_FILE]


async def test_a_full_disk_is_an_outage(sqlite_target: Target) -> None:
    """Simulated by a limit of the connection, which the next connection doesn't have any more."""
    async with migrated(sqlite_target) as database:
        await database.fetch("PRAGMA max_page_count = 1")
        fill = "INSERT INTO pulls (source, cursor, hosts_seen, updated_at_us, finished) VALUES ('x', $1, 0, 0, FALSE)"
        with pytest.raises(StateUnavailable, match="full"):
            await database.execute(fill, "x" * 100_000)
        await database.execute(fill, "x" * 100_000)


async def test_sqlite_without_its_folder_is_an_outage(sqlite_target: Target) -> None:
    """Told at opening."""
    with pytest.raises(StateUnavailable, match="unable to open"):
        async with Target(None, sqlite_target.data_dir / "missing").open():
            pytest.fail("opened")


async def test_a_file_that_is_no_database_is_corruption(sqlite_target: Target) -> None:
    """Not something to wait for: it is raised as it is."""
    (sqlite_target.data_dir / SQLITE_FILE).write_bytes(b"not a database" * 100)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        async with sqlite_target.open():
            pytest.fail("opened")


@pytest.mark.parametrize("url", ["mysql://host/db", "postgresql+asyncpg://host/db", "state.sqlite", "", "//["])
def test_only_postgresql_urls_are_taken(url: str) -> None:
    """Anything else is named as wrong, at once."""
    with pytest.raises(ValueError, match=r"URL|expected postgres"):
        check_url(url)


async def test_a_bad_url_is_refused_without_its_password(sqlite_target: Target) -> None:
    """A password with a raw slash makes the port unreadable; the message must not repeat it."""
    opening = partial(open_database, data_dir=sqlite_target.data_dir, pool_size=1, statement_seconds=1)
    with pytest.raises(ValueError, match="percent-encoded") as raised:
        async with opening("postgres://relay:secret/word@127.0.0.1/relay", reconnect_seconds=1):
            pytest.fail("opened")
    assert "secret" not in repr(raised.value)
    assert raised.value.__cause__ is None
