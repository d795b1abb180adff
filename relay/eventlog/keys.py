"""Byte layouts of every column family (DESIGN 5). Pure.

Owns how keys and values become bytes and back. Bytes that don't decode here are our own corruption and raise
StoreError: that ends the process, it is never skipped.
"""

import struct
from collections.abc import Callable
from enum import IntEnum
from functools import wraps
from typing import NamedTuple, TypeVar

from relay.eventlog.errors import StoreError
from relay.eventlog.records import AccountRecord, HostRecord, HostStatus

FORMAT_VERSION = 1

ACCOUNTS = "accounts"
ROSTER = "roster"
HOSTS = "hosts"
IDENTITIES = "identities"
HIDDEN = "hidden"
META = "meta"
FIXED_FAMILIES = (ACCOUNTS, ROSTER, HOSTS, IDENTITIES, HIDDEN, META)

META_FORMAT = b"format"
META_COUNTERS = b"counters"
META_RETENTION_BYTES = b"retention_bytes"

_U64 = struct.Struct(">Q")
_EVENT_HEAD = struct.Struct(">QBH")  # time_us, kind, length of the DID
_ACCOUNT_HEAD = struct.Struct(">QBHHHHHH")  # ordinal, upstream_active, six lengths
_HOST_HEAD = struct.Struct(">BQI")  # status, last, accounts
_COUNTERS = struct.Struct(">QQQ")
_SEGMENT = struct.Struct(">QQQ")

_SEGMENT_FAMILY = "events-"
_STATUSES = tuple(HostStatus)


_T = TypeVar("_T")


def _decoder(decode: Callable[[bytes], _T]) -> Callable[[bytes], _T]:
    """Bytes of ours that don't decode are corruption."""

    @wraps(decode)
    def checked(value: bytes) -> _T:
        try:
            return decode(value)
        except (struct.error, ValueError, IndexError) as error:
            raise StoreError(f"{decode.__name__}: corrupt row of {len(value)} bytes: {error}") from error

    return checked


class EventKind(IntEnum):
    """What an event row holds; the low bits of its flags."""

    COMMIT = 1
    SYNC = 2
    IDENTITY = 3
    ACCOUNT = 4


class EventRow(NamedTuple):
    """A decoded event row; `frame` is framed for the socket."""

    time_us: int
    kind: int
    did: bytes
    frame: bytes


class Counters(NamedTuple):
    """What must never go back: the next seq, the next roster ordinal, the last time_us given out."""

    next_seq: int
    next_ordinal: int
    last_time_us: int


class SegmentSize(NamedTuple):
    """A segment's bytes of values, and the time_us of its first and last event (0: none yet)."""

    value_bytes: int
    first_time_us: int
    last_time_us: int


def u64(number: int) -> bytes:
    """A big-endian key, so that byte order is number order."""
    return _U64.pack(number)


@_decoder
def from_u64(key: bytes) -> int:
    """The number of such a key."""
    number: int = _U64.unpack(key)[0]
    return number


def segment_family(first_seq: int) -> str:
    """The column family of the segment that begins at `first_seq`."""
    return f"{_SEGMENT_FAMILY}{first_seq:020d}"


def segment_first_seq(family: str) -> int | None:
    """The first seq of a segment's family, None for any other family."""
    if not family.startswith(_SEGMENT_FAMILY):
        return None
    try:
        return int(family.removeprefix(_SEGMENT_FAMILY))
    except ValueError as error:
        raise StoreError(f"not a family of ours: {family}") from error


def segment_meta_key(first_seq: int) -> bytes:
    """The meta row that keeps a segment's `SegmentSize`."""
    return b"segment/" + _U64.pack(first_seq)


def socket_frame_head(length: int) -> bytes:
    """The head of an unmasked, final, binary WebSocket frame (RFC 6455 5.2) for a message of `length` bytes."""
    if length < 126:
        return bytes((0x82, length))
    if length < 65536:
        return b"\x82\x7e" + length.to_bytes(2, "big")
    return b"\x82\x7f" + length.to_bytes(8, "big")


def encode_event_head(time_us: int, kind: int, did: bytes) -> bytes:
    """What stands before the frame in an event row."""
    return _EVENT_HEAD.pack(time_us, kind, len(did)) + did


@_decoder
def decode_event(value: bytes) -> EventRow:
    """An event row's parts."""
    time_us, kind, did_length = _EVENT_HEAD.unpack_from(value)
    end = _EVENT_HEAD.size + did_length
    if end > len(value):
        raise ValueError("length")
    return EventRow(time_us, kind, value[_EVENT_HEAD.size : end], value[end:])


def encode_account(record: AccountRecord) -> bytes:
    """An accounts row."""
    host = record.host.encode()
    local = record.local_status.encode()
    upstream = record.upstream_status.encode()
    rev = record.rev.encode()
    head = _ACCOUNT_HEAD.pack(
        record.ordinal,
        record.upstream_active,
        len(host),
        len(local),
        len(upstream),
        len(rev),
        len(record.commit),
        len(record.data),
    )
    return b"".join((head, host, local, upstream, rev, record.commit, record.data))


@_decoder
def decode_account(value: bytes) -> AccountRecord:
    """An accounts row's record."""
    ordinal, upstream_active, *lengths = _ACCOUNT_HEAD.unpack_from(value)
    at = _ACCOUNT_HEAD.size
    parts = []
    for length in lengths:
        parts.append(value[at : at + length])
        at += length
    if at != len(value):
        raise ValueError("length")
    host, local, upstream, rev, commit, data = parts
    return AccountRecord(
        host=host.decode(),
        local_status=local.decode(),
        upstream_active=bool(upstream_active),
        upstream_status=upstream.decode(),
        rev=rev.decode(),
        commit=commit,
        data=data,
        ordinal=ordinal,
    )


def encode_host(record: HostRecord) -> bytes:
    """A hosts row."""
    head = _HOST_HEAD.pack(_STATUSES.index(record.status), record.last, record.accounts)
    return head + struct.pack(f">{len(record.unfinished)}Q", *record.unfinished)


@_decoder
def decode_host(value: bytes) -> HostRecord:
    """A hosts row's record."""
    status, last, accounts = _HOST_HEAD.unpack_from(value)
    count, over = divmod(len(value) - _HOST_HEAD.size, 8)
    if over:
        raise ValueError("length")
    unfinished = struct.unpack_from(f">{count}Q", value, _HOST_HEAD.size)
    return HostRecord(_STATUSES[status], last, unfinished, accounts)


def encode_counters(counters: Counters) -> bytes:
    """The counters row of meta."""
    return _COUNTERS.pack(*counters)


@_decoder
def decode_counters(value: bytes) -> Counters:
    """The counters row's numbers."""
    return Counters(*_COUNTERS.unpack(value))


def encode_segment_size(size: SegmentSize) -> bytes:
    """A segment's meta row."""
    return _SEGMENT.pack(*size)


@_decoder
def decode_segment_size(value: bytes) -> SegmentSize:
    """A segment's meta row's numbers."""
    return SegmentSize(*_SEGMENT.unpack(value))
