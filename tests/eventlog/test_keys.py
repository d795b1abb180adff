"""Rows and back, and rows that are not ours any more: each is a StoreError, which no task boundary takes for a peer's
doing."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.eventlog import keys
from relay.eventlog.errors import StoreError
from relay.eventlog.keys import Counters, EventKind, EventRow, SegmentSize
from relay.eventlog.records import AccountRecord, HostRecord, HostStatus

LONG = 60_000  # bytes; a length is a number of 16 bits
u64s = st.integers(0, 2**64 - 1)
texts = st.text(max_size=80) | st.just("é" * (LONG // 2))
blobs = st.binary(max_size=80) | st.just(bytes(LONG))

accounts = st.builds(
    AccountRecord,
    host=texts,
    local_status=texts,
    upstream_active=st.booleans(),
    upstream_status=texts,
    rev=texts,
    commit=blobs,
    data=blobs,
    ordinal=u64s,
)
hosts = st.builds(
    HostRecord,
    status=st.sampled_from(HostStatus),
    last=u64s,
    unfinished=st.lists(u64s, max_size=5).map(tuple),
    accounts=st.integers(0, 2**32 - 1),
)


@settings(deadline=None)
@given(accounts, hosts, st.builds(Counters, u64s, u64s, u64s), st.builds(SegmentSize, u64s, u64s, u64s))
def test_rows_survive(account: AccountRecord, host: HostRecord, counters: Counters, size: SegmentSize) -> None:
    """Whatever a host or an operator made of the texts."""
    assert keys.decode_account(keys.encode_account(account)) == account
    assert keys.decode_host(keys.encode_host(host)) == host
    assert keys.decode_counters(keys.encode_counters(counters)) == counters
    assert keys.decode_segment_size(keys.encode_segment_size(size)) == size


@settings(deadline=None)
@given(u64s, st.sampled_from(EventKind), blobs, blobs)
def test_event_rows_survive(time_us: int, kind: EventKind, did: bytes, frame: bytes) -> None:
    """The head and the frame behind it."""
    assert keys.decode_event(keys.encode_event_head(time_us, kind, did) + frame) == EventRow(time_us, kind, did, frame)
    assert keys.from_u64(keys.u64(time_us)) == time_us


ACCOUNT = keys.encode_account(AccountRecord("host", "", True, "status", "rev", b"commit", b"data", 7))
HOST = keys.encode_host(HostRecord(HostStatus.OFFLINE, 9, (3, 5), 2))
EVENT_HEAD = keys.encode_event_head(1, EventKind.SYNC, b"")

CORRUPT: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    **{f"account of {size} bytes": (keys.decode_account, ACCOUNT[:size]) for size in range(len(ACCOUNT))},
    "account and a byte": (keys.decode_account, ACCOUNT + b"\0"),
    "account that is not UTF-8": (keys.decode_account, ACCOUNT.replace(b"host", b"h\xffst")),
    **{f"host of {size} bytes": (keys.decode_host, HOST[:size]) for size in range(13)},
    "host of an unknown status": (keys.decode_host, b"\x05" + HOST[1:]),
    **{f"event of {size} bytes": (keys.decode_event, EVENT_HEAD[:size]) for size in range(len(EVENT_HEAD))},
    **{f"number of {size} bytes": (keys.from_u64, bytes(size)) for size in (0, 7, 9)},
    **{f"counters of {size} bytes": (keys.decode_counters, bytes(size)) for size in (0, 23, 25)},
    **{f"segment of {size} bytes": (keys.decode_segment_size, bytes(size)) for size in (0, 23, 25)},
}


@pytest.mark.parametrize(("decode", "row"), CORRUPT.values(), ids=CORRUPT.keys())
def test_a_corrupt_row_is_our_own_failure(decode: Callable[[bytes], object], row: bytes) -> None:
    """It says which kind of row it was."""
    with pytest.raises(StoreError, match="corrupt row"):
        decode(row)


def test_cut_rows_and_foreign_families_are_corruption() -> None:
    """None of them is read as something shorter."""
    with pytest.raises(StoreError):
        keys.decode_event(keys.encode_event_head(1, keys.EventKind.SYNC, b"did:plc:abc")[:-3])
    with pytest.raises(StoreError):
        keys.decode_host(keys.encode_host(HostRecord(HostStatus.ACTIVE, 9, (3, 5), 2))[:-1])
    with pytest.raises(StoreError):
        keys.segment_first_seq("events-x")
