"""`relay serve` with settings that can't be: everything wrong is named, and nothing is left running."""

import os
import socket
import subprocess
from pathlib import Path

import trio

from relay.config import TABLE
from tests.relay_process import RELAY

_SECONDS = 30


def environment(directory: Path, **settings: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
    binds = {"RELAY_FIREHOSE_BIND": "127.0.0.1:0", "RELAY_HTTP_BIND": "127.0.0.1:0"}
    named = {f"RELAY_{name.upper()}": value for name, value in settings.items()}
    return inherited | {"RELAY_DATA_DIR": str(directory)} | binds | named


async def ended(directory: Path, *flags: str, **settings: str) -> tuple[int, str]:
    """The exit code and the error output of a relay that can't start."""
    with trio.fail_after(_SECONDS):
        done = await trio.run_process(
            [*RELAY, *flags], env=environment(directory, **settings), capture_stderr=True, check=False
        )
    return done.returncode, done.stderr.decode()


async def test_every_bad_setting_is_named(tmp_path: Path) -> None:
    bad = {
        "http_bind": "foo",
        "firehose_bind": "127.0.0.1:65536",
        "plc_url": "ftp://plc.example",
        "allow_private_hosts": "maybe",
        "validation": "harsh",
        "retention_hours": "-1",
        "retention_bytes": "lots",
        "trusted_proxies": "10.0.0.0/8,somewhere",
        "reconnect_min_seconds": "nan",
        "log_level": "loud",
    }
    data = tmp_path / "data"
    code, errors = await ended(data, **bad)
    assert code == 2
    lines = errors.splitlines()
    assert len(lines) == len(bad)
    for name, value in bad.items():
        assert any(line.startswith(f"RELAY_{name.upper()}={value!r}: ") for line in lines)
    assert not await trio.Path(data).exists()


async def test_flags_win_over_the_environment(tmp_path: Path) -> None:
    code, errors = await ended(tmp_path, "--validation", "harsh", validation="strict")
    assert (code, errors.partition(":")[0]) == (2, "RELAY_VALIDATION='harsh'")


async def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        code, errors = await ended(tmp_path, http_bind=bind)
    assert code == 1
    assert f"cannot listen on {bind}" in errors
    assert "Traceback" not in errors


async def test_a_setting_that_does_not_exist_is_warned_about(tmp_path: Path) -> None:
    process = await trio.lowlevel.open_process(
        RELAY, env=environment(tmp_path, validatoin="lenient", bootstrap=""), stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    errors = b""
    with trio.fail_after(_SECONDS):
        async for data in process.stderr:
            listened = b" listens" in errors
            errors += data
            if b" listens" in errors and not listened:
                process.terminate()
        assert await process.wait() == 0
    assert b"RELAY_VALIDATOIN is set, but this version has no such setting" in errors
    assert b"RELAY_BOOTSTRAP" not in errors


async def test_help_names_every_setting() -> None:
    done = await trio.run_process([*RELAY, "--help"], capture_stdout=True)
    text = done.stdout.decode()
    assert all(setting.flag in text and setting.variable in text for setting in TABLE)
