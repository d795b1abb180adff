"""The two engines, each behind a target that can be opened again and again."""

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from relay.state.database import Database
from relay.state.opening import open_database
from tests.state.postgres_server import PostgresServer, find_programs

MISSING = "PostgreSQL is not installed (Debian: apt-get install postgresql)"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a test's database is."""

    url: str | None
    data_dir: Path

    @property
    def engine(self) -> str:
        return "postgresql" if self.url else "sqlite"

    def open(self, *, pool_size: int = 4, statement_seconds: float = 10.0) -> AbstractAsyncContextManager[Database]:
        return open_database(
            self.url,
            data_dir=self.data_dir,
            pool_size=pool_size,
            statement_seconds=statement_seconds,
            reconnect_seconds=0.05,
        )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips PostgreSQL's half where it is not installed; from here, so that pytest reports it in one line."""
    assert isinstance(item, pytest.Function)
    chosen = item.callspec.params.get("target") if hasattr(item, "callspec") else None
    if (chosen == "postgres" or "postgres_programs" in item.fixturenames) and find_programs() is None:
        pytest.skip(MISSING)


@pytest.fixture(scope="session")
def postgres_programs() -> Path:
    programs = find_programs()
    assert programs is not None
    return programs


@pytest.fixture(scope="session")
def postgres_cluster(postgres_programs: Path) -> Iterator[PostgresServer]:
    with PostgresServer(postgres_programs) as server:
        yield server


@pytest.fixture
def postgres(postgres_cluster: PostgresServer) -> PostgresServer:
    """The session's server, running, whatever the test before did to it."""
    if not postgres_cluster.running:
        postgres_cluster.start()
    postgres_cluster.resume()
    return postgres_cluster


@pytest.fixture
def postgres_target(postgres: PostgresServer, tmp_path: Path) -> Target:
    """A new empty database on the server."""
    return Target(postgres.url(postgres.create_database()), tmp_path)


@pytest.fixture
def sqlite_target(tmp_path: Path) -> Target:
    """A folder without a database yet."""
    return Target(None, tmp_path)


@pytest.fixture(params=["sqlite", "postgres"])
def target(request: pytest.FixtureRequest) -> Target:
    """An empty place for a database, of each engine in turn."""
    found = request.getfixturevalue(f"{request.param}_target")
    assert isinstance(found, Target)
    return found
