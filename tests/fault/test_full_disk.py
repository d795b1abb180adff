"""A full disk stops ingest and nothing else; with space the numbering goes on where it was (DESIGN 5)."""

from pathlib import Path

import httpx
import pytest
import trio

from tests.fault.life import begun_life
from tests.fault.small_disk import may_mount, mounted
from tests.fault.victim import Victim
from tests.world.consumer import open_consumer

_DISK_BYTES = 128 << 20


@pytest.fixture
def disk_path(tmp_path: Path) -> Path:
    """Where a disk can be mounted."""
    if not may_mount(tmp_path / "tried"):
        pytest.skip("mounting is not permitted")
    return tmp_path / "disk"


async def said(relay: Victim, text: str) -> None:
    while text not in relay.log():
        await trio.sleep(0.05)


@pytest.mark.long
async def test_a_full_disk_stops_ingest_and_nothing_else(tmp_path: Path, disk_path: Path) -> None:
    with mounted(disk_path, size_bytes=_DISK_BYTES) as disk, trio.fail_after(60):
        flags = ("--data-dir", str(disk_path / "data"))
        async with begun_life(seed=51, hosts=3, accounts=60, directory=tmp_path / "relay", flags=flags) as life:
            relay, watch = life.relay, life.watch
            await life.until(400)
            await watch.complete()
            disk.fill()
            life.burst(200)
            await said(relay, "disk full, ingest waits")
            before, head = len(watch.events), watch.verifier.last_seq
            assert life.lag > 100
            # Who is connected stays so, and is answered; who comes anew gets all that there is.
            async with open_consumer(relay.firehose_port, cursor=0) as consumer:
                await consumer.find(lambda event: event.seq == head)
                await consumer.ping(b"still there?")
                await consumer.changed.wait_until(lambda: consumer.pongs == [b"still there?"])
                async with httpx.AsyncClient() as http:
                    assert (await http.get(f"{relay.url}/_health")).status_code == 200
                    listed = await http.get(f"{relay.url}/xrpc/com.atproto.sync.listRepos")
                assert len(listed.json()["repos"]) >= 60
                assert (len(watch.events), watch.connections, consumer.last_seq) == (before, 1, head)
                assert not consumer.ended
                disk.empty()
                await said(relay, "disk has room again")
                await life.until(800)
                await consumer.find(lambda event: event.seq > head)
            await life.check()
            assert watch.connections == 1
            assert await relay.drops() == {}
            assert relay.log().count("disk full, ingest waits") == 1


@pytest.mark.long
async def test_a_relay_stops_and_dies_on_a_full_disk_and_comes_back(tmp_path: Path, disk_path: Path) -> None:
    with mounted(disk_path, size_bytes=_DISK_BYTES) as disk, trio.fail_after(120):
        flags = ("--data-dir", str(disk_path / "data"))
        async with begun_life(seed=52, hosts=3, accounts=60, directory=tmp_path / "relay", flags=flags) as life:
            relay = life.relay
            for number, end in enumerate((relay.terminate, relay.kill_hard), 1):
                await life.until(400 * number)
                disk.fill()
                life.burst(100)
                while relay.log().count("disk full, ingest waits") < number:
                    await trio.sleep(0.05)
                assert life.lag > 0
                await end()
                disk.empty()
                await relay.start()
            await life.until(1200)
            await life.check()
            assert life.watch.connections == 3
