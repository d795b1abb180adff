"""The schema and its versions. Trio shell.

A version adds and never takes away or changes a meaning, so that a relay of the version before runs on during an
upgrade. The table `schema_version` has one row per applied version. SQLite migrates itself when it is opened,
PostgreSQL only through `relay migrate`.
"""

from relay.state.database import Database, Executor

# One tuple of statements per version. `{auto_id}` is the engine's way to number rows.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE decisions (
            kind TEXT NOT NULL,
            subject TEXT NOT NULL,
            value TEXT NOT NULL,
            decided_at_us BIGINT NOT NULL,
            decided_by TEXT NOT NULL,
            applied_seq BIGINT NULL,
            PRIMARY KEY (kind, subject)
        )
        """,
        "CREATE INDEX decisions_pending ON decisions (decided_at_us) WHERE applied_seq IS NULL",
        """
        CREATE TABLE audit (
            id {auto_id},
            at_us BIGINT NOT NULL,
            actor TEXT NOT NULL,
            action TEXT NOT NULL,
            subject TEXT NOT NULL,
            detail TEXT NOT NULL,
            outcome TEXT NOT NULL
        )
        """,
        """
        CREATE TABLE pulls (
            source TEXT NOT NULL PRIMARY KEY,
            cursor TEXT NOT NULL,
            hosts_seen BIGINT NOT NULL,
            updated_at_us BIGINT NOT NULL,
            finished BOOLEAN NOT NULL
        )
        """,
    ),
)
LATEST = len(MIGRATIONS)


class SchemaMismatch(Exception):
    """The database's schema is not the one this program works with; the text says what to do."""


async def migrate(database: Database) -> list[int]:
    """Applies the versions that are missing, all or none, and gives their numbers.

    Of several processes that migrate at once one does it and the others wait.

    Raises:
        SchemaMismatch: the schema is newer than this program; nothing was changed.
        StateUnavailable: an outage; nothing was changed, or (a lost answer) everything was.
    """
    dialect = database.dialect
    async with database.transaction() as transaction:
        if dialect.migration_lock is not None:
            await transaction.execute(dialect.migration_lock)
        version = await _version(transaction, dialect.table_exists)
        if version is None:
            await transaction.execute("CREATE TABLE schema_version (version BIGINT NOT NULL PRIMARY KEY)")
        _refuse_newer(version or 0)
        missing = list(range((version or 0) + 1, LATEST + 1))
        for number in missing:
            for statement in MIGRATIONS[number - 1]:
                await transaction.execute(statement.format(auto_id=dialect.auto_id))
            await transaction.execute("INSERT INTO schema_version (version) VALUES ($1)", number)
    return missing


async def check_schema(database: Database) -> None:
    """Returns if the schema is exactly this program's.

    Raises:
        SchemaMismatch: it is older, newer or not there.
        StateUnavailable: an outage: not known yet.
    """
    version = await _version(database, database.dialect.table_exists)
    if not version:
        raise SchemaMismatch("the state database is empty: run `relay migrate` once")
    _refuse_newer(version)
    if version < LATEST:
        raise SchemaMismatch(
            f"the state database has schema version {version}, this relay needs {LATEST}: run `relay migrate`"
        )


async def _version(executor: Executor, table_exists: str) -> int | None:
    """The schema's version; 0 if none was applied, None if there isn't even a place to note it."""
    if not (await executor.fetch(table_exists, "schema_version"))[0][0]:
        return None
    return int((await executor.fetch("SELECT COALESCE(MAX(version), 0) FROM schema_version"))[0][0])


def _refuse_newer(version: int) -> None:
    if version > LATEST:
        raise SchemaMismatch(
            f"the state database has schema version {version}, newer than this relay's {LATEST}: "
            "run the relay version that made it, or restore the database from before the upgrade"
        )
