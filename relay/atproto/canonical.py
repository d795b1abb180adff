"""The fast road's reading: canonical `#commit` frames, CARs and commit objects, from their bytes. Pure.

Owns the exact-order patterns of the one form that well-behaved hosts send; those of tree nodes are in `splice_node.py`.
None always means "not proven canonical: ask the general road" (`frames.py`, `car.py`, `commit.py`), never "invalid".
What is given is what the general road would give, to the byte; nothing here raises on any bytes.
Source: protocol.md 1.2, 2.1, 3, 4.1; measurements.md 2 and 2.2.

A pattern can't count: every string is captured together with its head, and the head compared with the length of what
was captured. All patterns are anchored and bounded, so that nothing is searched for and odd input costs little.
"""

import re
from hashlib import sha256
from typing import Final

from relay.atproto.car import SECTIONS_MAX
from relay.atproto.commit import SignedCommit
from relay.atproto.events import CommitEvent, RepoOp

CID_PREFIX: Final = bytes.fromhex("01711220")
LINK_PREFIX: Final = bytes.fromhex("d82a582500") + CID_PREFIX
STRING_BYTES_MAX: Final = 255
MESSAGE_BYTES_MAX: Final = 5_000_000
BLOCKS_BYTES_MAX: Final = 2_000_000


def _heads(major: int) -> tuple[bytes, ...]:
    first = major << 5
    short = [bytes((first | count,)) for count in range(24)]
    return (*short, *(bytes((first | 24, count)) for count in range(24, STRING_BYTES_MAX + 1)))


# Minimal heads by value, length or count, 0 to 255.
UINT: Final = _heads(0)
BYTES_HEAD: Final = _heads(2)
TEXT_HEAD: Final = _heads(3)
ARRAY_HEAD: Final = _heads(4)

_TEXT = rb"([\x60-\x77]|\x78[\x18-\xff])"
_LINK = re.escape(LINK_PREFIX[:5]) + b"(" + re.escape(CID_PREFIX) + rb".{32})"
_BOOL = rb"([\xf4\xf5])"
_DID = rb"(did:(?:plc:[a-z2-7]{24}|web:[a-z0-9-]{1,50}(?:\.[a-z0-9-]{1,50}){1,3}))"
_TID = rb"\x6d([2-7a-j][2-7a-z]{12})"
_LABEL = rb"(?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_NSID = rb"[a-zA-Z]%b(?:\.[a-zA-Z0-9]%b){1,16}\.[a-zA-Z][a-zA-Z0-9]{0,62}" % (_LABEL, _LABEL)
# A record key that begins with a dot might be "." or "..": left to the general road.
_PATH = rb"(%b/[A-Za-z0-9_:~-][A-Za-z0-9._:~-]{0,254})" % _NSID
# Of minimal width, and 1 <= seq < 2^53.
_SEQ = (
    rb"([\x01-\x17]|\x18[\x18-\xff]|\x19(?!\x00).{2}|\x1a(?!\x00\x00).{4}"
    rb"|\x1b(?!\x00{4})\x00[\x00-\x1f].{6})"
)
# Days that exist, of the years 2000 to 2099.
_DATE = (
    rb"20(?:[0-9]{2}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)"
    rb"|(?:0[13578]|1[02])-31)|(?:[02468][048]|[13579][26])-02-29)"
)
_TIME = rb"(%bT(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:Z|\+00:00))" % _DATE
_BLOCKS_HEAD = rb"(\x58[\x18-\xff]|\x59(?!\x00).{2}|\x5a(?!\x00\x00).{4})"

_FRAME_START = re.compile(rb"\xa2atg#commitbop\x01([\xab\xac])cops([\x80-\x97]|\x98[\x18-\xc8])")
_FRAME_OP = re.compile(
    rb"(?:\xa3|(\xa4))ccid(?:\xf6|%b)dpath%b%b(?(1)dprev%b)faction(?:fcreate|f(update)|f(delete))"
    % (_LINK, _TEXT, _PATH, _LINK),
    re.DOTALL,
)
_FRAME_MIDDLE = re.compile(
    rb"crev%bcseq%bdrepo%b%bdtime%b%beblobs\x80esince(?:\xf6|%b)fblocks%b"
    % (_TID, _SEQ, _TEXT, _DID, _TEXT, _TIME, _TID, _BLOCKS_HEAD),
    re.DOTALL,
)
_FRAME_END = re.compile(rb"fcommit%bfrebase%bftooBig%b(?:hprevData%b)?" % (_LINK, _BOOL, _BOOL, _LINK), re.DOTALL)

_CAR_START = b"\x3a\xa2eroots\x81" + LINK_PREFIX
_CAR_END = b"gversion\x01"
# A size, a CID, and a byte.
_SECTION_BYTES_MIN = 38

_COMMIT = re.compile(
    rb"\xa6cdid%b%bcrev%b(csig\x58\x40(.{64}))ddata%bdprev\xf6gversion\x03" % (_TEXT, _DID, _TID, _LINK), re.DOTALL
)


def commit_event(message: bytes) -> CommitEvent | None:
    """The `#commit` in a whole binary WebSocket message: exactly what `frames.parse` gives, or None."""
    start = _FRAME_START.match(message)
    if start is None or len(message) > MESSAGE_BYTES_MAX:
        return None
    fields_head, count = start.groups()
    found = _ops(message, start.end(), count[-1] if len(count) == 2 else count[0] - 0x80)
    if found is None:
        return None
    ops, at = found
    middle = _FRAME_MIDDLE.match(message, at)
    if middle is None:
        return None
    rev, seq, did_head, did, time_head, time, since, blocks_head = middle.groups()
    blocks_start = middle.end()
    blocks_end = blocks_start + int.from_bytes(blocks_head[1:], "big")
    end = _FRAME_END.fullmatch(message, blocks_end)
    if end is None or blocks_end - blocks_start > BLOCKS_BYTES_MAX:
        return None
    commit, rebase, too_big, prev_data = end.groups()
    if (
        TEXT_HEAD[len(did)] != did_head
        or TEXT_HEAD[len(time)] != time_head
        or (fields_head == b"\xac") != (prev_data is not None)
    ):
        return None
    return CommitEvent(
        int.from_bytes(seq if len(seq) == 1 else seq[1:], "big"),
        did.decode(),
        rev.decode(),
        None if since is None else since.decode(),
        commit,
        prev_data,
        ops,
        message[blocks_start:blocks_end],
        time.decode(),
        too_big == b"\xf5",
        rebase == b"\xf5",
        message[: middle.start(2)],
        message[middle.end(2) :],
    )


def _ops(message: bytes, at: int, count: int) -> tuple[tuple[RepoOp, ...], int] | None:
    """The operations that stand from offset `at` on, and the offset behind them."""
    ops = []
    for _ in range(count):
        match = _FRAME_OP.match(message, at)
        if match is None:
            return None
        _, cid, path_head, path, prev, update, delete = match.groups()
        if len(path) > STRING_BYTES_MAX or TEXT_HEAD[len(path)] != path_head:
            return None
        action = "update" if update else "delete" if delete else "create"
        ops.append(RepoOp(action, path.decode(), cid, prev))
        at = match.end()
    return tuple(ops), at


def car_blocks(data: bytes) -> tuple[bytes, dict[bytes, bytes]] | None:
    """The root's digest, and the blocks by digest (32 bytes), of a CAR with one root and CIDs of DAG-CBOR and SHA-256
    alone: what `car.read` gives, or None. Always verifies the hash of every block."""
    if data[:18] != _CAR_START or data[50:59] != _CAR_END:
        return None
    blocks: dict[bytes, bytes] = {}
    at, end = 59, len(data)
    sections = 0
    while at <= end - _SECTION_BYTES_MIN:
        sections += 1
        if sections > SECTIONS_MAX:
            return None
        size = data[at]
        at += 1
        if size > 0x7F:
            size = size & 0x7F | data[at] << 7
            at += 1
            if size > 0x3FFF:
                size = size & 0x3FFF | data[at] << 14
                at += 1
                if not 0x3FFF < size < 0x200000:
                    return None
            elif size < 0x80:
                return None
        start, at = at, at + size
        block = data[start + 36 : at]
        digest = data[start + 4 : start + 36]
        if sha256(block).digest() != digest or data[start : start + 4] != CID_PREFIX or not block:
            return None
        blocks[digest] = block
    return (data[18:50], blocks) if at == end else None


def commit_object(block: bytes) -> SignedCommit | None:
    """The signed commit in a block, with `prev` null and `sig` of 64 bytes: exactly what `commit.parse` gives, or
    None. The unsigned bytes are the block's own with `sig` cut out."""
    match = _COMMIT.fullmatch(block)
    if match is None:
        return None
    did_head, did, rev, _field, sig, data = match.groups()
    if TEXT_HEAD[len(did)] != did_head:
        return None
    cut, resume = match.span(4)
    return SignedCommit(did.decode(), rev.decode(), data, None, sig, b"\xa5" + block[1:cut] + block[resume:])
