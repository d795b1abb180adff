"""The log alone on a full disk, with small buffers: its end is met by flushes and by new segments too."""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from rocksdict import Options, Rdict

from relay.atproto.cbor import uint
from relay.eventlog import keys
from relay.eventlog.keys import EventKind
from relay.eventlog.log import EventLog, LogSettings, open_log
from relay.eventlog.records import AccountRecord
from relay.eventlog.sequencer import SequencerLimits
from relay.eventlog.verdict import Accept
from tests.fault.small_disk import SmallDisk, may_mount, mounted

pytestmark = pytest.mark.long  # RocksDB looks for space every 5 seconds

_SECONDS = 60
_DISK_BYTES = 96 << 20
_SETTINGS = LogSettings(
    write_buffer_bytes=1 << 20,
    tail_bytes_max=1 << 16,
    limits=SequencerLimits(sync_interval_seconds=0.0005, full_disk_retry_seconds=0.1),
)
_EVENT_BYTES = 5000
_SEGMENTS_PER_LIMIT = 40


class Filled:
    """A log on a small disk, and the frames that it must have."""

    def __init__(self, disk: SmallDisk, *, segment_bytes: int) -> None:
        self.disk = disk
        self.path = disk.path / "log"
        self.frames: list[bytes] = []
        self._retention_bytes = segment_bytes * _SEGMENTS_PER_LIMIT

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[EventLog]:
        log = open_log(
            self.path,
            retention_hours=72,
            retention_bytes=self._retention_bytes,
            settings=_SETTINGS,
            now_us=lambda: time.time_ns() // 1000,
        )
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(log.sequencer.run)
                yield log
                nursery.cancel_scope.cancel()
            await log.sequencer.flush()
        finally:
            log.store.close()

    def submit(self, log: EventLog) -> None:
        """One more event."""
        body = (len(self.frames).to_bytes(4, "big") + bytes(range(256))) * (_EVENT_BYTES // 260)
        message = b"<" + uint(len(self.frames) + 1) + body + b">"
        self.frames.append(keys.socket_frame_head(len(message)) + message)
        record = AccountRecord("pds.example.com")
        log.sequencer.submit(Accept(EventKind.COMMIT, "did:plc:a", b"<", body + b">", record, None))

    async def append(self, log: EventLog, count: int) -> None:
        for _ in range(count):
            self.submit(log)
            await log.reader.wait_beyond(len(self.frames) - 1)

    async def check(self, log: EventLog) -> None:
        """All that the log says it has is there."""
        data, after, oldest = b"", log.reader.oldest - 1, log.reader.oldest
        while after < log.reader.head:
            segment = log.reader.read(after, 1 << 20)
            data, after = data + segment.data, segment.last_seq
        assert data == b"".join(self.frames[oldest - 1 : log.reader.head])


@pytest.fixture
def disk_path(tmp_path: Path) -> Path:
    """Where a disk can be mounted."""
    if not may_mount(tmp_path / "tried"):
        pytest.skip("mounting is not permitted")
    return tmp_path / "disk"


async def full(caplog: pytest.LogCaptureFixture) -> str:
    """Return what was said of the full disk, once it was."""
    while True:
        for record in caplog.records:
            if "disk full, ingest waits" in record.getMessage():
                return record.getMessage()
        await trio.sleep(0.001)


@pytest.mark.parametrize("bytes_left", [1_000_000, 3_000_000, 4_000_000])
async def test_the_end_of_the_disk_may_be_met_by_a_flush(
    disk_path: Path, bytes_left: int, caplog: pytest.LogCaptureFixture
) -> None:
    with mounted(disk_path, size_bytes=_DISK_BYTES) as disk, trio.fail_after(_SECONDS):
        filled = Filled(disk, segment_bytes=1 << 30)
        async with filled.opened() as log:
            await filled.append(log, 50)
            disk.fill_but(bytes_left)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(filled.append, log, 20_000)
                    said = await full(caplog)
                    scope.cancel()
            assert f"{filled.path}/" in said
            print(said)
            head = log.reader.head
            assert head < len(filled.frames)
            await filled.check(log)
            assert log.store.family(keys.META).get(keys.META_FORMAT) == b"1"
            disk.empty()
            await log.reader.wait_beyond(head)
            await filled.append(log, 50)
            await filled.check(log)
        async with filled.opened() as log:
            assert log.reader.head == len(filled.frames)
            await filled.check(log)


async def test_a_segment_that_can_not_begin_on_a_full_disk_begins_later(
    disk_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with mounted(disk_path, size_bytes=_DISK_BYTES) as disk, trio.fail_after(_SECONDS):
        filled = Filled(disk, segment_bytes=_EVENT_BYTES * 10)
        async with filled.opened() as log:
            begun: list[int] = []
            while log.segments.first_seqs[-1] != len(filled.frames) or len(begun) < 4:
                await filled.append(log, 1)
                begun = log.segments.first_seqs[:]
            await filled.append(log, begun[-1] - begun[-2] - 1)  # the next event needs a new segment
            half_begun = len(filled.frames) + 1
            disk.fill()
            filled.submit(log)
            await full(caplog)
            assert "begin a segment" in caplog.text
            disk.empty()
            await log.reader.wait_beyond(half_begun - 1)
            await filled.append(log, 100)
            await filled.check(log)
            assert half_begun not in log.segments.first_seqs
            assert len(log.segments.first_seqs) > len(begun) + 5
        assert keys.segment_family(half_begun) in Rdict.list_cf(str(filled.path), Options(raw_mode=True))
        for _ in range(2):
            async with filled.opened() as log:
                assert half_begun not in log.segments.first_seqs
                await filled.append(log, 30)
                await filled.check(log)
