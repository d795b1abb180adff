"""The log as a whole against a list: what is written is read back, from anywhere, also after reopening."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trio

from relay.atproto.cbor import uint
from relay.eventlog import keys
from relay.eventlog.errors import StoreError
from relay.eventlog.keys import EventKind
from relay.eventlog.log import EventLog, LogSettings, open_log
from relay.eventlog.reader import CursorGone
from relay.eventlog.records import AccountRecord, HostStatus
from relay.eventlog.sequencer import SequencerLimits
from relay.eventlog.verdict import Accept, Drop, DropReason, Origin

LIMITS = SequencerLimits(sync_interval_seconds=0.0005, cursor_interval_seconds=0.01)
HOST = "pds.example.com"


@dataclass
class Clock:
    """Microseconds by hand."""

    us: int = 1_700_000_000_000_000

    def now(self) -> int:
        return self.us


@dataclass
class Harness:
    """Opens the same log again and again."""

    path: Path
    retention_hours: float = 72.0
    retention_bytes: int = 1 << 30
    settings: LogSettings = field(default_factory=lambda: LogSettings(tail_bytes_max=4096, limits=LIMITS))
    clock: Clock = field(default_factory=Clock)

    def open(self) -> EventLog:
        return open_log(
            self.path,
            retention_hours=self.retention_hours,
            retention_bytes=self.retention_bytes,
            settings=self.settings,
            now_us=self.clock.now,
        )

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[EventLog]:
        log = self.open()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(log.sequencer.run)
                yield log
                nursery.cancel_scope.cancel()
            await log.sequencer.flush()
        finally:
            log.store.close()


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return Harness(tmp_path / "log")


def accept(did: str, body: bytes, **changes: object) -> Accept:
    plain = Accept(EventKind.COMMIT, did, b"<", body + b">", AccountRecord(HOST, rev="r", commit=b"c", data=b"d"), None)
    return replace(plain, **changes)  # type: ignore[arg-type]


def socket_frame(seq: int, body: bytes) -> bytes:
    message = b"<" + uint(seq) + body + b">"
    return keys.socket_frame_head(len(message)) + message


async def read_all(log: EventLog, after: int, bytes_max: int) -> bytes:
    data = b""
    while True:
        segment = log.reader.read(after, bytes_max)
        if segment.last_seq == after:
            return data
        assert segment.last_seq > after
        data += segment.data
        after = segment.last_seq
        await trio.lowlevel.checkpoint()


async def append(log: EventLog, *accepts: Accept) -> None:
    target = log.reader.head + len(accepts)
    for each in accepts:
        log.sequencer.submit(each)
    with trio.fail_after(5):
        await log.reader.wait_beyond(target - 1)


async def test_events_are_framed_with_their_seq_and_read_from_any_cursor(harness: Harness) -> None:
    async with harness.opened() as log:
        bodies = [b"x" * n for n in (1, 200, 70_000)]
        await append(log, *(accept("did:plc:a", body) for body in bodies))
        expected = [socket_frame(seq, body) for seq, body in enumerate(bodies, 1)]
        for after in range(4):
            assert await read_all(log, after, 1000) == b"".join(expected[after:])


async def test_the_numbering_goes_on_after_reopening(harness: Harness) -> None:
    async with harness.opened() as log:
        await append(log, accept("did:plc:a", b"1"), accept("did:plc:b", b"2"))
    async with harness.opened() as log:
        assert log.reader.head == 2
        await append(log, accept("did:plc:c", b"3"))
        assert await read_all(log, 0, 10) == b"".join(
            socket_frame(seq, body) for seq, body in ((1, b"1"), (2, b"2"), (3, b"3"))
        )
        assert [did for did, _ in log.accounts.page(0, 10)] == ["did:plc:a", "did:plc:b", "did:plc:c"]


async def test_time_us_strictly_increases_when_the_clock_goes_back_and_ops_own_microseconds(harness: Harness) -> None:
    async with harness.opened() as log:
        await append(log, accept("did:plc:a", b"", ops=5), accept("did:plc:a", b""))
        harness.clock.us -= 1_000_000
        await append(log, accept("did:plc:a", b""))
    start = harness.clock.us = 1_600_000_000_000_000
    async with harness.opened() as log:
        await append(log, accept("did:plc:a", b""))
        rows = [keys.decode_event(value) for _, value in log.segments.newest().items()]
        times = [row.time_us for row in rows]
        assert times[1] == times[0] + 5
        assert times[2:] == [times[1] + 1, times[1] + 2]
        assert times[0] > start


async def test_a_batch_carries_the_host_row_of_exactly_its_events(harness: Harness) -> None:
    async with harness.opened() as log:
        await log.sequencer.add_host(HOST)
        progress = log.hosts.progress(HOST)
        progress.connect()
        for seq in (1, 2, 3):
            progress.receive(seq)
        await append(log, accept("did:plc:a", b"", origin=Origin(HOST, 1, progress, 0)))
        log.sequencer.submit(Drop(DropReason.WRONG_HOST, "", Origin(HOST, 3, progress, 0)))
        await log.sequencer.set_host_status(HOST, HostStatus.OFFLINE)
    async with harness.opened() as log:
        record = log.hosts.get(HOST)
        assert record is not None
        assert (record.last, record.unfinished, record.status) == (3, (2,), HostStatus.OFFLINE)
        assert record.accounts == 1
        assert log.hosts.progress(HOST).connect() == 1


async def test_cursors_reach_the_disk_without_events(harness: Harness) -> None:
    async with harness.opened() as log:
        await log.sequencer.add_host(HOST)
        progress = log.hosts.progress(HOST)
        progress.connect()
        progress.receive(8)
        log.sequencer.submit(Drop(DropReason.UNDECODABLE, "", Origin(HOST, 8, progress, 0)))
        with trio.fail_after(5):
            while log.sequencer.syncs < 2:  # the first was the host's
                await trio.sleep(0.005)
        stored = log.store.family(keys.HOSTS).get(HOST.encode())
        assert stored is not None
        assert keys.decode_host(stored).last == 8
        assert log.sequencer.drops[DropReason.UNDECODABLE] == 1


async def test_living_accounts_are_counted_per_host(harness: Harness) -> None:
    other = "other.example.com"
    async with harness.opened() as log:
        for host in (HOST, other):
            await log.sequencer.add_host(host)
        deleted = AccountRecord(other, upstream_active=False, upstream_status="deleted")
        await append(
            log,
            accept("did:plc:a", b""),
            accept("did:plc:b", b""),
            accept("did:plc:b", b"", account=AccountRecord(other)),
        )
        counts = [log.hosts.get(host).accounts for host in (HOST, other)]  # type: ignore[union-attr]
        assert counts == [1, 1]
        await append(log, accept("did:plc:b", b"", account=deleted))
        assert log.hosts.get(other).accounts == 0  # type: ignore[union-attr]


async def test_a_count_of_accounts_never_goes_below_zero(harness: Harness) -> None:
    """An account that came to a host before the host was known is not among those it can lose."""
    other = "other.example.com"
    async with harness.opened() as log:
        await log.sequencer.add_host(HOST)
        await append(log, accept("did:plc:a", b"", account=AccountRecord(other)))
        await log.sequencer.add_host(other)
        await append(log, accept("did:plc:a", b""), accept("did:plc:b", b"", account=AccountRecord(other)))
    async with harness.opened() as log:
        assert [(name, record.accounts) for name, record in log.hosts.page("", 9)] == [(other, 1), (HOST, 1)]


async def test_deletion_hides_earlier_content_everywhere_and_only_that(harness: Harness) -> None:
    async with harness.opened() as log:
        gone = AccountRecord(HOST, upstream_active=False, upstream_status="deleted")
        await append(
            log,
            accept("did:plc:a", b"1"),
            accept("did:plc:a", b"2", kind=EventKind.IDENTITY),
            accept("did:plc:b", b"3"),
            accept("did:plc:a", b"4", kind=EventKind.ACCOUNT, account=gone, hides=True),
            accept("did:plc:a", b"5"),
        )
        kept = b"".join(socket_frame(seq, str(seq).encode()) for seq in (2, 3, 4, 5))
        assert await read_all(log, 0, 10) == kept
    async with harness.opened() as log:
        assert await read_all(log, 0, 10) == kept


async def test_a_segment_that_is_entirely_hidden_does_not_end_a_read(harness: Harness) -> None:
    harness.retention_bytes = 40 * 400
    gone = AccountRecord(HOST, upstream_active=False, upstream_status="deleted")
    async with harness.opened() as log:
        for _ in range(6):
            await append(log, accept("did:plc:a", b"x" * 500))
        await append(log, accept("did:plc:a", b"end", kind=EventKind.ACCOUNT, account=gone, hides=True))
        assert len(log.segments.first_seqs) > 3
        assert await read_all(log, 0, 100) == socket_frame(7, b"end")


async def test_the_oldest_segments_go_when_the_bytes_are_used_up(harness: Harness) -> None:
    harness.retention_bytes = 40_000
    async with harness.opened() as log:
        for _ in range(100):
            await append(log, accept("did:plc:a", b"x" * 1000))
        assert log.segments.total_bytes <= 42_000
        assert log.reader.oldest > 50
        with pytest.raises(CursorGone):
            log.reader.read(log.reader.oldest - 2, 100)
        assert await read_all(log, log.reader.oldest - 1, 5000) == b"".join(
            socket_frame(seq, b"x" * 1000) for seq in range(log.reader.oldest, 101)
        )


async def test_events_leave_by_age(harness: Harness) -> None:
    harness.retention_hours = 2
    async with harness.opened() as log:
        for _ in range(6):
            await append(log, accept("did:plc:a", b"x"))
            harness.clock.us += 3_600_000_000
        await append(log, accept("did:plc:a", b"x"))
        assert log.reader.oldest == 6


async def test_another_format_is_refused_by_name(harness: Harness) -> None:
    async with harness.opened() as log:
        log.store.family(keys.META).put(keys.META_FORMAT, b"99")
    with pytest.raises(StoreError, match="format 99"):
        harness.open()


async def test_a_second_process_is_kept_out(harness: Harness) -> None:
    async with harness.opened():
        with pytest.raises(StoreError, match="lock"):
            harness.open()


@pytest.fixture(params=range(6))
def rng(request: pytest.FixtureRequest) -> random.Random:
    return random.Random(request.param)


async def test_random_appends_reopenings_and_cursors_against_a_list(harness: Harness, rng: random.Random) -> None:
    """Rows the model drops must be gone by retention, never by accident."""
    harness.retention_bytes = 60_000
    frames: list[bytes] = []
    for _ in range(4):
        async with harness.opened() as log:
            assert log.reader.head == len(frames)
            for _ in range(25):
                bodies = [rng.randbytes(rng.randrange(1, 600)) for _ in range(rng.randrange(1, 8))]
                frames += [socket_frame(len(frames) + n, body) for n, body in enumerate(bodies, 1)]
                await append(log, *(accept(f"did:plc:{rng.randrange(9)}", body) for body in bodies))
                after = rng.randrange(log.reader.oldest - 1, log.reader.head + 1)
                got = await read_all(log, after, rng.choice((1, 500, 5000)))
                assert got == b"".join(frames[after:])
            oldest = log.reader.oldest
    assert oldest > 1
