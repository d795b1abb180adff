"""What a relay does not start with, or go on with: it says so in one line, and ends with status 1."""

import os
from pathlib import Path

import httpx
import trio

from tests.fault.life import begun_life
from tests.relay_process import RELAY, RelayProcess, free_port
from tests.world.consumer import open_consumer

_SECONDS = 20
_NO_DIRECTORY = "http://127.0.0.1:1"


async def refusal(data_dir: Path, *, firehose_port: int | None = None, http_port: int | None = None) -> str:
    """Start a relay that must end by itself at once with status 1; returns the line that it says."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
    variables |= {
        "RELAY_DATA_DIR": str(data_dir),
        "RELAY_FIREHOSE_BIND": f"127.0.0.1:{firehose_port or free_port()}",
        "RELAY_HTTP_BIND": f"127.0.0.1:{http_port or free_port()}",
        "RELAY_BOOTSTRAP": "",
        "RELAY_PLC_URL": _NO_DIRECTORY,
        "RELAY_ALLOW_PRIVATE_HOSTS": "true",
    }
    with trio.fail_after(_SECONDS):
        ended = await trio.run_process(RELAY, env=variables, check=False, capture_stderr=True)
    assert ended.returncode == 1
    lines: list[str] = ended.stderr.decode().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


async def test_a_second_relay_and_damaged_data_are_refused(tmp_path: Path) -> None:
    async with httpx.AsyncClient() as http:
        relay = RelayProcess(command=RELAY, directory=tmp_path / "relay", plc=_NO_DIRECTORY, http=http)
        data_dir = tmp_path / "relay" / "data"
        await relay.start()
        try:
            assert await refusal(data_dir) == (
                f"relay: cannot open {data_dir}/log: another process uses it: IO error: "
                f"While lock file: {data_dir}/log/LOCK: Resource temporarily unavailable"
            )
            for ports in ({"firehose_port": relay.firehose_port}, {"http_port": relay.http_port}):
                said = await refusal(tmp_path / "other", **ports)
                assert said.endswith(f"cannot listen on 127.0.0.1:{next(iter(ports.values()))}: Address already in use")
            await relay.terminate()
        finally:
            await relay.kill()

        current = data_dir / "log" / "CURRENT"
        manifest = data_dir / "log" / current.read_text().strip()
        for victim, damage in ((current, b"garbage\n"), (manifest, b"\x07" * 100), (current, None)):
            intact = victim.read_bytes()
            victim.unlink() if damage is None else victim.write_bytes(damage)
            said = await refusal(data_dir)
            assert said.startswith(f"relay: cannot open {data_dir}/log: Corruption: "), said
            victim.write_bytes(intact)
        await relay.start()  # none of all that did any harm
        await relay.terminate()


async def test_a_data_directory_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert str(tmp_path / "file") in await refusal(tmp_path / "file")


async def test_an_unreadable_event_ends_the_process(tmp_path: Path) -> None:
    """Nothing may be passed over in silence: not even what the disk has lost."""
    async with begun_life(seed=61, hosts=1, accounts=10, directory=tmp_path / "relay") as life:
        with trio.fail_after(_SECONDS):
            await life.until(300)
            await life.watch.complete()
            await life.relay.terminate()
            tables = (tmp_path / "relay" / "data" / "log").glob("*.sst")
            largest = max(tables, key=lambda path: path.stat().st_size)
            data = largest.read_bytes()
            middle = len(data) // 2
            largest.write_bytes(data[:middle] + bytes(64) + data[middle + 64 :])
            await life.relay.start()
            async with open_consumer(life.relay.firehose_port, cursor=0) as consumer:
                assert await life.relay.ended() == 1
                await consumer.finished()
                assert 0 < consumer.last_seq < 300
            assert life.relay.log().splitlines()[-1].startswith("relay: read: Corruption: ")
