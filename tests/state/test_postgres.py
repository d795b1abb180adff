"""Getting in: passwords, TLS by the URL's sslmode, names that don't resolve in time; and what a process imports."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from relay.state.database import Database, StateUnavailable
from relay.state.migrations import migrate
from tests.state.conftest import Target
from tests.state.postgres_server import PostgresServer

PASSWORD = "correct-horse"


def sign(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost that signed itself, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "9",
    ]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, "-keyout", key, "-out", certificate, *name], check=True, capture_output=True)
    return certificate, key


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return sign(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that the server doesn't have."""
    return sign(tmp_path_factory.mktemp("foreign"))[0]


@pytest.fixture(scope="module")
def strict(postgres_programs: Path, certificate: tuple[Path, Path]) -> Iterator[PostgresServer]:
    """A server that asks for a password and speaks TLS."""
    with PostgresServer(
        postgres_programs,
        auth="scram-sha-256",
        password=PASSWORD,
        settings=("ssl=on", "ssl_cert_file=../certificate.pem", "ssl_key_file=../key.pem"),
    ) as server:
        for path in certificate:
            server.adopt(path)
        server.start()
        yield server


def target(server: PostgresServer, folder: Path, options: str, password: str = PASSWORD) -> Target:
    url = server.url(password=password, options=options)
    return Target(url.replace("127.0.0.1", "localhost"), folder)


@pytest.mark.parametrize(
    ("options", "encrypted"),
    [
        ("", True),
        ("?sslmode=disable", False),
        ("?sslmode=require", True),
        ("?sslmode=verify-full&sslrootcert={certificate}", True),
    ],
)
async def test_the_url_decides_about_tls(
    strict: PostgresServer, tmp_path: Path, certificate: tuple[Path, Path], options: str, encrypted: bool
) -> None:
    """As with libpq: TLS where there is some, unless the URL says otherwise; verified if it says so."""
    async with target(strict, tmp_path, options.format(certificate=certificate[0])).open() as database:
        rows = await database.fetch("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert rows == [(encrypted,)]
        assert await migrate(database) in ([1], [])


async def test_a_certificate_of_nobody_we_know_is_an_outage(
    strict: PostgresServer, tmp_path: Path, foreign: Path
) -> None:
    """The operator may be replacing it; nothing is sent to that server."""
    async with target(strict, tmp_path, f"?sslmode=verify-full&sslrootcert={foreign}").open() as database:
        with pytest.raises(StateUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await database.fetch("SELECT 1")


async def test_a_missing_root_certificate_is_an_outage(strict: PostgresServer, tmp_path: Path) -> None:
    """It may be mounted later; the message says what kind of thing is missing."""
    async with target(strict, tmp_path, "?sslmode=verify-full&sslrootcert=/nowhere.pem").open() as database:
        with pytest.raises(StateUnavailable, match="certificate"):
            await database.fetch("SELECT 1")


async def test_a_wrong_setting_in_the_url_is_no_outage(strict: PostgresServer, tmp_path: Path) -> None:
    """Waiting would not help: a ValueError that names it."""
    async with target(strict, tmp_path, "?sslmode=nonsense").open() as database:
        with pytest.raises(ValueError, match="sslmode") as raised:
            await database.fetch("SELECT 1")
        assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize(("password", "database"), [("wrong-horse", "postgres"), (PASSWORD, "nowhere")])
async def test_being_refused_is_an_outage(strict: PostgresServer, tmp_path: Path, password: str, database: str) -> None:
    """A rotated password or a database not made yet can be put right without a restart. No password in the message."""
    url = strict.url(database, password=password)
    async with Target(url, tmp_path).open() as refused:
        with trio.fail_after(10), pytest.raises(StateUnavailable, match=r"authentication|does not exist") as raised:
            await refused.fetch("SELECT 1")
        assert password not in str(raised.value)


async def test_a_name_that_does_not_resolve_in_time(
    postgres_programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's resolver has no time limit that we could set; we don't wait for its thread."""
    over = threading.Event()

    def resolve(*_: object, **__: object) -> None:
        over.wait(20)
        raise socket.gaierror("over")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    try:
        with trio.fail_after(10):
            async with Target("postgres://relay@db.example/relay", tmp_path).open(statement_seconds=0.2) as database:
                with pytest.raises(StateUnavailable, match="no answer in time"):
                    await database.fetch("SELECT 1")
            assert not over.is_set()
    finally:
        over.set()


async def test_an_error_in_a_callback_is_logged_and_ends_nothing(
    postgres_target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    """trio-asyncio's own way is to end the whole run."""
    from relay.state.postgres import open_postgres

    def fail() -> None:
        raise ZeroDivisionError("stray")

    assert postgres_target.url is not None
    async with open_postgres(postgres_target.url, pool_size=1, statement_seconds=5, reconnect_seconds=1) as engine:
        engine._loop.call_soon(fail)
        assert await Database(engine).fetch("SELECT 1") == [(1,)]
    assert "ZeroDivisionError: stray" in caplog.text


def test_nothing_of_postgresql_is_loaded_without_a_url() -> None:
    """asyncpg costs memory, and trio-asyncio changes asyncio for the whole process."""
    check = (
        "import sys, relay.state.opening, relay.state.audit, relay.state.pulls;"
        "print(sorted({'asyncio', 'asyncpg', 'trio_asyncio', 'greenlet'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
