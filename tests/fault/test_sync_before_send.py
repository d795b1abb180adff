"""Persist, then publish: under strace, a sync of the log stands between each event's write and its first send."""

import shutil
import subprocess
import time
from pathlib import Path

import httpx
import pytest
import trio

from tests.fault import syscalls
from tests.fault.syscalls import Call, parse, publishing_faults
from tests.fault.victim import COMMAND, Victim
from tests.world import records
from tests.world.frames import Parsed
from tests.world.frames import parse as parse_message
from tests.world.ipld import unlink
from tests.world.network import World
from tests.world.watch import Watch

_ROUNDS, _ROUND_EVENTS, _ACCOUNTS = 12, 20, 8

WAL = r"\x2f\x64\x2f\x31\x2e\x6c\x6f\x67"  # /d/1.log
ELSEWHERE = r"\x2f\x64\x2f\x32\x2e\x6c\x6f\x67"  # /d/2.log
CONSUMER = "TCP:[127.0.0.1:3000->127.0.0.1:5]"
WRITE = rf'7 write(4<{WAL}>, "\x00\x61\x62\x63\x00", 5) = 5'  # .abc.
SYNC = f"8 fdatasync(4<{WAL}>) = 0"
SEND = rf'7 sendto(5<{CONSUMER}>, "\x61\x62\x63", 3, 0, NULL, 0) = 3'

GOOD = {
    "in order": [WRITE, SYNC, SEND],
    "fsync": [WRITE, SYNC.replace("fdatasync", "fsync"), SEND],
    "sync and send in pieces": [
        WRITE, f"8 fdatasync(4<{WAL}> <unfinished ...>", '7 write(2<pipe:[1]>, "\\x2e", 1) = 1',
        "8 <... fdatasync resumed>) = 0", SEND.replace(") = 3", " <unfinished ...>"), "7 <... sendto resumed>) = 3",
    ],
    "sendmsg": [
        WRITE, SYNC, rf'7 sendmsg(5<{CONSUMER}>, {{msg_name=NULL, msg_iov=[{{iov_base="\x61", iov_len=1}}, '
        r'{iov_base="\x62\x63", iov_len=2}], msg_iovlen=2}, 0) = 3',
    ],
    "synced twice": [WRITE, SYNC, SEND, SYNC, SEND],
}  # fmt: skip
BAD = {
    "no sync": [WRITE, SEND],
    "sync before the write": [SYNC, WRITE, SEND],
    "sync after the send": [WRITE, SEND, SYNC],
    "sync of another file": [WRITE, f"8 fdatasync(4<{ELSEWHERE}>) = 0", SEND],
    "sync failed": [WRITE, f"8 fdatasync(4<{WAL}>) = -1 EIO (Input/output error)", SEND],
    "sync begun before the write": [
        f"8 fdatasync(4<{WAL}> <unfinished ...>", WRITE, "8 <... fdatasync resumed>) = 0", SEND,
    ],
    "sync begun within the write": [
        WRITE.replace(") = 5", " <unfinished ...>"), SYNC, "7 <... write resumed>) = 5", SEND,
    ],
    "sync not ended at the send": [
        WRITE, f"8 fdatasync(4<{WAL}> <unfinished ...>", SEND, "8 <... fdatasync resumed>) = 0",
    ],
    "sent twice, once too early": [WRITE, SEND, SYNC, SEND],
    "never written": [SYNC, SEND],
    "never written to the log": [WRITE.replace(WAL, r"\x2f\x64\x2f\x31\x2e\x73\x73\x74"), SYNC, SEND],
    "never sent": [WRITE, SYNC],
    "never sent to a consumer": [WRITE, SYNC, SEND.replace(":3000->", ":4000->")],
}  # fmt: skip


def faults(lines: list[str]) -> list[str]:
    return publishing_faults(parse(lines), events=[b"abc"], log_directory="/d", port=3000)


@pytest.mark.parametrize("name", GOOD)
def test_a_trace_in_order_has_no_fault(name: str) -> None:
    assert faults(GOOD[name]) == []


@pytest.mark.parametrize("name", BAD)
def test_a_trace_with_the_fault_is_found_out(name: str) -> None:
    found = faults(BAD[name])
    assert len(found) == 1
    assert (": never " in found[0]) == name.startswith("never")


def test_calls_are_read_with_their_results() -> None:
    lines = [WRITE, "9 +++ exited with 0 +++", "8 write(2</x> <unfinished ...>", SYNC]
    assert parse(lines) == [
        Call("write", "/d/1.log", b"\0abc\0", 0, 0, 5),
        Call("write", "/x", b"", 2),
        Call("fdatasync", "/d/1.log", b"", 3, 3, 0),
    ]


def may_trace() -> bool:
    strace = shutil.which("strace")
    return strace is not None and subprocess.run([strace, "-o", "/dev/null", "true"], check=False).returncode == 0


@pytest.mark.skipif(not may_trace(), reason="strace is not installed, or may not trace")
async def test_no_event_is_sent_before_its_write_is_synced(nursery: trio.Nursery, tmp_path: Path) -> None:
    world = await World.open(seed=41, hosts=2, now_microseconds=time.time_ns() // 1000)
    await nursery.start(world.serve)
    trace = tmp_path / "trace"
    command = ("strace", *syscalls.OPTIONS, "-o", str(trace), *COMMAND)
    async with httpx.AsyncClient() as http:
        relay = Victim(command=command, directory=tmp_path / "relay", plc=world.directory.url, http=http)
        try:
            with trio.fail_after(60):
                await relay.start()
                await flood(world, relay, nursery)
                await relay.terminate()
                while not trace.read_bytes().endswith(b" +++ exited with 0 +++\n"):
                    await trio.sleep(0.05)
        finally:
            await relay.kill()
    with trace.open() as lines:
        calls = parse(lines)
    commits = [unlink(event.payload["commit"])[4:] for event in parsed_commits(world)]
    directory = str(tmp_path / "relay" / "data" / "log")
    assert len(commits) == _ROUNDS * _ROUND_EVENTS
    assert publishing_faults(calls, events=commits, log_directory=directory, port=relay.firehose_port) == []
    syncs = [call for call in calls if call.name in syscalls.SYNCS and call.target.endswith(".log")]
    print(f"{len(commits)} commits, {len(syncs)} syncs of the log")
    assert len(syncs) >= _ROUNDS
    # The same trace without its syncs would not have passed.
    unsynced = [call for call in calls if call.name not in syscalls.SYNCS]
    found = publishing_faults(unsynced, events=commits, log_directory=directory, port=relay.firehose_port)
    assert len(found) == len(commits)


def parsed_commits(world: World) -> list[Parsed]:
    return [parse_message(event.message) for event in world.emitted if event.kind == "#commit"]


async def flood(world: World, relay: Victim, nursery: trio.Nursery) -> None:
    """Commits in rounds, each as fast as it goes, to one live consumer."""
    for host in world.hosts:
        await relay.request_crawl(host.name)
    accounts = [world.create_account(world.hosts[index % 2], preload=10) for index in range(_ACCOUNTS)]
    watch = Watch(world=world, port=relay.firehose_port, retry_seconds=0.05)
    nursery.start_soon(watch.run)
    for _ in range(_ROUNDS):
        for index in range(_ROUND_EVENTS):
            account = accounts[index % _ACCOUNTS]
            world.commit(account, records.writes(world.rng, account.repo))
        await watch.complete()
    assert watch.rejected == []
