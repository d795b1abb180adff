"""Schema versions, on both engines."""

import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import trio

from relay.state.database import Database
from relay.state.decisions import DecisionKind, Decisions
from relay.state.migrations import LATEST, SchemaMismatch, check_schema, migrate
from relay.state.opening import SQLITE_FILE
from tests.state.conftest import Target
from tests.state.rows import migrated


async def test_migrating_again_changes_nothing(target: Target) -> None:
    """The second run finds nothing to do and keeps what is there."""
    async with migrated(target) as database:
        made = await Decisions(database).decide(DecisionKind.HOST_BAN, "pds.example", True, by="admin", at_us=1)
        assert await migrate(database) == []
        await check_schema(database)
        assert await Decisions(database).pending() == [made]


async def test_postgresql_waits_for_the_operator(postgres_target: Target) -> None:
    """An empty PostgreSQL database is refused with the command to run, and opening doesn't touch it."""
    async with postgres_target.open() as database:
        with pytest.raises(SchemaMismatch, match="is empty: run `relay migrate`"):
            await check_schema(database)
        assert await database.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == []
        assert await migrate(database) == list(range(1, LATEST + 1))
        await check_schema(database)


async def test_migrations_at_once_wait_for_each_other(postgres_target: Target) -> None:
    """One does the work, the others find it done; none sees half of it."""
    applied: list[list[int]] = []
    async with postgres_target.open(pool_size=5) as database:

        async def connect_and_migrate() -> None:
            applied.append(await migrate(database))

        for task in (partial(database.fetch, "SELECT pg_sleep(0.1)"), connect_and_migrate):
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(task)
        await check_schema(database)
    assert sorted(applied) == [[], [], [], [], list(range(1, LATEST + 1))]


async def test_sqlite_is_made_by_several_at_once(sqlite_target: Target) -> None:
    """SQLite refuses the switch to the write-ahead log at once when two make it together; we try again."""

    async def open_and_check(folder: Path) -> None:
        async with Target(None, folder).open() as database:
            await check_schema(database)

    for number in range(10):
        folder = sqlite_target.data_dir / str(number)
        folder.mkdir()
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(open_and_check, folder)


async def test_sqlite_migrates_itself(sqlite_target: Target) -> None:
    """Opening is enough."""
    async with sqlite_target.open() as database:
        await check_schema(database)


async def test_an_older_schema_is_refused(target: Target) -> None:
    """The message has both versions and the command."""
    async with migrated(target) as database:
        await database.execute("DELETE FROM schema_version WHERE version = $1", LATEST)
        await database.execute("INSERT INTO schema_version (version) VALUES (0)")
        with pytest.raises(SchemaMismatch, match="run `relay migrate`"):
            await check_schema(database)


async def test_a_newer_schema_is_refused(target: Target) -> None:
    """Neither serving nor migrating touches a database of a later relay."""
    async with migrated(target) as database:
        await database.execute("INSERT INTO schema_version (version) VALUES ($1)", LATEST + 1)
        for refused in (check_schema(database), migrate(database)):
            with pytest.raises(SchemaMismatch, match=f"version {LATEST + 1}, newer than this relay's {LATEST}"):
                await refused
    if target.engine == "sqlite":
        with pytest.raises(SchemaMismatch, match="newer"):
            async with target.open():
                pytest.fail("opened")


async def test_a_migration_that_fails_leaves_nothing(target: Target) -> None:
    """All statements of all missing versions are one transaction."""
    if target.engine == "sqlite":
        with closing(sqlite3.connect(target.data_dir / SQLITE_FILE)) as file:
            file.execute("CREATE TABLE pulls (mine TEXT)")
        with pytest.raises(sqlite3.OperationalError, match="pulls already exists"):
            async with target.open():
                pytest.fail("opened")
        with closing(sqlite3.connect(target.data_dir / SQLITE_FILE)) as file:
            assert file.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [("pulls",)]
        return
    async with target.open() as database:
        await database.execute("CREATE TABLE pulls (mine TEXT)")
        with pytest.raises(Exception, match='"pulls" already exists'):
            await migrate(database)
        assert await tables(database) == [("pulls",)]


async def tables(database: Database) -> list[tuple[str]]:
    rows = await database.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return [(name,) for (name,) in rows]
