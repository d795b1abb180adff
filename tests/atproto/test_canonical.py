"""The fast road's patterns: which forms are read, which are left to the general road, and that both agree.

Random bytes and mutations are held against the general road in tests/property/test_fast_road.py.
"""

from collections.abc import Mapping

import pytest

from relay.atproto import canonical, car, commit, frames
from relay.atproto.cbor import CborValue, Link, encode, uint
from relay.atproto.cid import DAG_CBOR_PREFIX, RAW_PREFIX, dag_cbor_cid, write_varint
from relay.atproto.errors import InvalidData
from relay.atproto.events import CommitEvent

DID = "did:plc:7iza6de2dwap2sbkpav7c6c6"
COMMIT, PREV_DATA, RECORD, OLD = (dag_cbor_cid(name) for name in (b"commit", b"prev", b"record", b"old"))
CREATE: Mapping[str, CborValue] = {"action": "create", "path": "app.bsky.feed.post/3jzfcijpj2z2a", "cid": Link(RECORD)}
UPDATE: Mapping[str, CborValue] = {**CREATE, "action": "update", "path": "a.b.c/self", "prev": Link(OLD)}
DELETE: Mapping[str, CborValue] = {**UPDATE, "action": "delete", "path": "x-y.9z.c/a:~._-B", "cid": None}
PAYLOAD: Mapping[str, CborValue] = {
    "seq": 7,
    "rebase": False,
    "tooBig": False,
    "repo": DID,
    "commit": Link(COMMIT),
    "rev": "3jzfcijpj2z2a",
    "since": "3jzfcijpj2y2a",
    "blocks": bytes(300),
    "ops": [dict(CREATE)],
    "blobs": [],
    "prevData": Link(PREV_DATA),
    "time": "2026-11-21T12:00:00.123Z",
}
SEQS = (1, 23, 24, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**53 - 1)


def _message(**changes: CborValue) -> bytes:
    return frames.message("#commit", {**PAYLOAD, **changes})


def _op(op: Mapping[str, CborValue], **changes: CborValue) -> bytes:
    return _message(ops=[{**op, **changes}])


def _without(name: str) -> bytes:
    return frames.message("#commit", {key: value for key, value in PAYLOAD.items() if key != name})


def _wide_forms(seq: int) -> list[bytes]:
    """The forms of a number with a longer head than it needs."""
    forms = [bytes((0x18 + at,)) + seq.to_bytes(2**at, "big") for at in range(4) if seq < 2 ** (8 * 2**at)]
    return [form for form in forms if len(form) > len(uint(seq))]


READ = {
    "usual": _message(),
    "first": _message(since=None),
    "no prevData": _without("prevData"),
    "every action": _message(ops=[dict(CREATE), dict(UPDATE), dict(DELETE)]),
    "create with prev": _op(CREATE, prev=Link(OLD)),
    "delete without prev": _op(CREATE, action="delete", cid=None),
    "no ops": _message(ops=[]),
    "24 ops": _message(ops=[dict(CREATE)] * 24),
    "200 ops": _message(ops=[dict(UPDATE)] * 200),
    "flags": _message(rebase=True, tooBig=True),
    "path of 23": _op(CREATE, path="a.b.c/" + "k" * 17),
    "path of 24": _op(CREATE, path="a.b.c/" + "k" * 18),
    "path of 255": _op(CREATE, path="a.b.c/" + "k" * 249),
    "long labels": _op(CREATE, path=f"{'a' * 63}.{'b' * 63}.{'c' * 63}/k"),
    "path that imitates its end": _op(CREATE, path="a.b.c/dprevfaction"),
    "path that ends like an op": _op(CREATE, path="a.b.c/kfactionfcreate"),
    "did:web": _message(repo="did:web:pds.example.com"),
    "did:web of 23": _message(repo="did:web:" + "a" * 11 + ".com"),
    "24 bytes of blocks": _message(blocks=bytes(24)),
    "256 bytes of blocks": _message(blocks=bytes(256)),
    "65,536 bytes of blocks": _message(blocks=bytes(65_536)),
    "2,000,000 bytes of blocks": _message(blocks=bytes(2_000_000)),
    "blocks that imitate their end": _message(blocks=_message()[-200:] * 2),
    "whole second": _message(time="2026-11-21T12:00:00Z"),
    "microseconds": _message(time="2026-11-21T12:00:00.123456Z"),
    "offset of zero": _message(time="2026-11-21T23:59:59.9+00:00"),
    "leap day": _message(time="2028-02-29T00:00:00Z"),
    **{f"seq {seq}": _message(seq=seq) for seq in SEQS},
}
# What is right but unusual, and costs the general road's time.
LEFT = {
    "unknown field": _message(x=1),
    "blobs": _message(blobs=[Link(RECORD)]),
    "dotted record key": _op(CREATE, path="a.b.c/.k"),
    "path of 256": _op(CREATE, path="a.b.c/" + "k" * 250),
    "record of another codec": _op(CREATE, cid=Link(RAW_PREFIX + RECORD[4:])),
    "unknown field of an op": _op(CREATE, x=1),
    "other DID method": _message(repo="did:example:abc"),
    "long did:web": _message(repo="did:web:" + "a" * 63 + ".com"),
    "other offset": _message(time="2026-11-21T12:00:00+02:00"),
    "other century": _message(time="1999-11-21T12:00:00Z"),
    "few blocks": _message(blocks=b"a CAR"),
}
REFUSED = {
    "nothing": b"",
    "header alone": _message()[:14],
    "cut short": _message()[:-1],
    "byte behind": _message() + b"\x00",
    "other kind": frames.message("#sync", dict(PAYLOAD)),
    "seq 0": _message(seq=0),
    "seq 2^53": _message(seq=2**53),
    "seq -1": _message(seq=-1),
    "201 ops": _message(ops=[dict(UPDATE)] * 201),
    "2,000,001 bytes of blocks": _message(blocks=bytes(2_000_001)),
    "null prevData": _message(prevData=None),
    "null prev": _op(UPDATE, prev=None),
    "unknown action": _op(CREATE, action="upsert"),
    "no slash": _op(CREATE, path="a.b.c"),
    "two segments": _op(CREATE, path="a.b/k"),
    "digit first": _op(CREATE, path="1a.b.c/k"),
    "label of 64": _op(CREATE, path=f"{'a' * 64}.b.c/k"),
    "hyphen last": _op(CREATE, path="a.b-.c/k"),
    "name with a hyphen": _op(CREATE, path="a.b.c-d/k"),
    "record key .": _op(CREATE, path="a.b.c/."),
    "rev over the range": _message(rev="zzzzzzzzzzzzz"),
    "since no TID": _message(since="3jzfcijpj2z21"),
    "commit of another codec": _message(commit=Link(RAW_PREFIX + COMMIT[4:])),
    "no since": _without("since"),
    "30 February": _message(time="2028-02-30T00:00:00Z"),
    "29 February of a usual year": _message(time="2026-02-29T00:00:00Z"),
    "31 April": _message(time="2026-04-31T00:00:00Z"),
    "hour 24": _message(time="2026-04-30T24:00:00Z"),
    "second 60": _message(time="2026-04-30T23:59:60Z"),
    "local time": _message(time="2026-04-30T23:59:59"),
    "other order": _message().replace(b"frebase\xf4ftooBig\xf4", b"ftooBig\xf4frebase\xf4"),
    "wide text head": _message().replace(b"drepox\x20", b"drepoy\x00\x20"),
    "DID longer than its head": _message().replace(b"drepox\x20", b"drepox\x1f"),
    "DID shorter than its head": _message().replace(b"drepox\x20", b"drepox\x21"),
    "time longer than its head": _message().replace(b"dtimex\x18", b"dtime\x77"),
    "time shorter than its head": _message().replace(b"dtimex\x18", b"dtimex\x19"),
    "wide blocks head": _message().replace(b"fblocks\x59\x01\x2c", b"fblocks\x5a\x00\x00\x01\x2c"),
    "field count too small": _message().replace(b"bop\x01\xac", b"bop\x01\xab"),
    "field count too large": _without("prevData").replace(b"bop\x01\xab", b"bop\x01\xac"),
    "op's field count": _op(UPDATE).replace(b"cops\x81\xa4", b"cops\x81\xa3"),
    "op count": _message().replace(b"cops\x81", b"cops\x82"),
    "wide op count": _message().replace(b"cops\x81", b"cops\x98\x01"),
    "path longer than its head": _op(UPDATE).replace(b"dpath\x6aa.b.c/self", b"dpath\x69a.b.c/self"),
    "path shorter than its head": _op(UPDATE).replace(b"dpath\x6aa.b.c/self", b"dpath\x6ba.b.c/self"),
    "blocks longer than their head": _message().replace(b"fblocks\x59\x01\x2c", b"fblocks\x59\x01\x2b"),
    "blocks shorter than their head": _message().replace(b"fblocks\x59\x01\x2c", b"fblocks\x59\x01\x2d"),
    "blocks far over the end": _message().replace(b"fblocks\x59\x01\x2c", b"fblocks\x5a\xff\xff\xff\xff"),
    **{
        f"seq {seq} in {len(wide)} bytes": _message().replace(b"cseq\x07", b"cseq" + wide)
        for seq in SEQS
        for wide in _wide_forms(seq)
    },
}


@pytest.mark.parametrize("message", READ.values(), ids=READ.keys())
def test_usual_frames(message: bytes) -> None:
    """Read, and to the same values as by the general road."""
    event = canonical.commit_event(message)
    assert isinstance(event, CommitEvent)
    assert event == frames.parse(message)
    assert event.head + uint(event.seq) + event.tail == message


@pytest.mark.parametrize("message", LEFT.values(), ids=LEFT.keys())
def test_unusual_frames(message: bytes) -> None:
    """Left to the general road, which reads them."""
    assert isinstance(frames.parse(message), CommitEvent)
    assert canonical.commit_event(message) is None


@pytest.mark.parametrize("message", REFUSED.values(), ids=REFUSED.keys())
def test_wrong_frames(message: bytes) -> None:
    """Not read by either road."""
    assert canonical.commit_event(message) is None
    try:
        event = frames.parse(message)
    except InvalidData:
        return
    assert not isinstance(event, CommitEvent)


def test_endless_path() -> None:
    """A path of megabytes costs no more than one of a few hundred bytes: the patterns are bounded."""
    assert canonical.commit_event(_op(CREATE, path="a." * 2_000_000 + "b/k")) is None


def _section(cid: bytes, block: bytes) -> bytes:
    return write_varint(len(cid) + len(block)) + cid + block


def _block(size: int) -> bytes:
    return bytes(size)


ROOT = dag_cbor_cid(b"root")
HEADER = car.write(ROOT, [])
# The sizes around each length of the varint, which counts the CID too.
SIZES = (1, 91, 92, 2**14 - 37, 2**14 - 36, 2**21 - 37)


def test_car_of_every_size() -> None:
    """The same root and blocks as by the general road, duplicates included."""
    blocks = [(dag_cbor_cid(_block(size)), _block(size)) for size in (*SIZES, 1)]
    data = car.write(ROOT, blocks)
    found = canonical.car_blocks(data)
    assert found == (ROOT[4:], {cid[4:]: block for cid, block in blocks})
    assert car.read(data) == car.Car((ROOT,), dict(blocks))
    assert canonical.car_blocks(HEADER) == (ROOT[4:], {})


ODD_CARS = {
    "nothing": b"",
    "two roots": car.write(ROOT, []).replace(b"\x3a\xa2eroots\x81", b"\x63\xa2eroots\x82"),
    "root of another codec": HEADER.replace(ROOT, RAW_PREFIX + ROOT[4:]),
    "version 2": HEADER[:-1] + b"\x02",
    "raw block": HEADER + _section(RAW_PREFIX + dag_cbor_cid(b"a")[4:], b"a"),
    "wrong hash": HEADER + _section(ROOT, b"other"),
    "empty block": HEADER + _section(dag_cbor_cid(b""), b""),
    "section of nothing": HEADER + b"\x00" + bytes(40),
    "section shorter than its CID": HEADER + b"\x23" + ROOT + bytes(3),
    "varint of 2 bytes, not minimal": HEADER + b"\xa6\x00" + dag_cbor_cid(b"ab") + b"ab",
    "varint of 3 bytes, not minimal": HEADER + b"\xa6\x80\x00" + dag_cbor_cid(b"ab") + b"ab",
    "varint of 4 bytes": HEADER + _section(dag_cbor_cid(_block(2**21)), _block(2**21)),
    "cut short": car.write(ROOT, [(dag_cbor_cid(_block(100)), _block(100))])[:-1],
    "byte behind": car.write(ROOT, [(dag_cbor_cid(_block(100)), _block(100))]) + b"\x00",
}


@pytest.mark.parametrize("data", ODD_CARS.values(), ids=ODD_CARS.keys())
def test_other_cars(data: bytes) -> None:
    """Left to the general road, be they right or wrong."""
    assert canonical.car_blocks(data) is None


FIELDS: Mapping[str, CborValue] = {
    "did": DID,
    "rev": "3jzfcijpj2z2a",
    "sig": bytes(range(64)),
    "data": Link(PREV_DATA),
    "prev": None,
    "version": 3,
}


def test_commit_object() -> None:
    """Equal to what the general road gives, the bytes to sign included."""
    for did in (DID, "did:web:pds.example.com", "did:web:" + "a" * 11 + ".com"):
        block = encode({**FIELDS, "did": did})
        signed = canonical.commit_object(block)
        assert signed == commit.parse(block)
        assert signed.unsigned == encode({key: value for key, value in {**FIELDS, "did": did}.items() if key != "sig"})


ODD_COMMITS = {
    "nothing": b"",
    "field too many": encode({**FIELDS, "x": 1}),
    "prev": encode({**FIELDS, "prev": Link(OLD)}),
    "version 2": encode({**FIELDS, "version": 2}),
    "short sig": encode({**FIELDS, "sig": bytes(63)}),
    "long sig": encode({**FIELDS, "sig": bytes(65)}),
    "data of another codec": encode({**FIELDS, "data": Link(RAW_PREFIX + PREV_DATA[4:])}),
    "other DID method": encode({**FIELDS, "did": "did:example:abc"}),
    "rev no TID": encode({**FIELDS, "rev": "3jzfcijpj2z21"}),
    "DID shorter than its head": encode(dict(FIELDS)).replace(b"cdidx\x20", b"cdidx\x21"),
    "wide DID head": encode({**FIELDS, "did": "did:web:a.com"}).replace(b"cdid\x6d", b"cdidx\x0d"),
    "byte behind": encode(dict(FIELDS)) + b"\x00",
}


@pytest.mark.parametrize("block", ODD_COMMITS.values(), ids=ODD_COMMITS.keys())
def test_other_commit_objects(block: bytes) -> None:
    """Left to the general road, be they right or wrong."""
    assert canonical.commit_object(block) is None


def test_prefix() -> None:
    """The patterns' CIDs are those of the general road."""
    assert canonical.CID_PREFIX == DAG_CBOR_PREFIX
    assert encode(Link(ROOT)).startswith(canonical.LINK_PREFIX)


def test_cars_of_too_many_sections_go_the_general_road() -> None:
    """Which refuses them: both roads have the same bound."""
    block = (dag_cbor_cid(b"\0"), b"\0")
    assert canonical.car_blocks(car.write(block[0], [block] * car.SECTIONS_MAX)) is not None
    assert canonical.car_blocks(car.write(block[0], [block] * (car.SECTIONS_MAX + 1))) is None
