"""Kinds of forged and broken events: how each is made, and why a strict relay drops it. Pure.

Every kind starts from an account's real next commit (`Stage`), breaks one thing, and keeps the rest valid, so that
the one broken thing is what is judged. The counted reason tells whether it was.
"""

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from relay.eventlog.verdict import DropReason
from tests.world import frames, websocket
from tests.world.frames import Payload
from tests.world.ipld import cid_of, decode, encode, link, unlink, varint, write_car
from tests.world.keys import ORDER, SigningKey
from tests.world.repo import MadeCommit, Repo, Write, sign_commit, unsigned_commit

R = DropReason


@dataclass(frozen=True, slots=True)
class Stage:
    """An account's next commit, not emitted: `made` with its `payload` (right `seq` and all)."""

    made: MadeCommit
    payload: Payload
    repo: Repo
    previous: Payload
    other_did: str
    stranger: SigningKey

    @property
    def message(self) -> bytes:
        return frames.frame("#commit", self.payload)

    def commit(self, **changes: Any) -> bytes:
        """The message with other fields."""
        return frames.frame("#commit", self.payload | changes)

    def without(self, name: str) -> bytes:
        """The message without a field."""
        return frames.frame("#commit", {key: value for key, value in self.payload.items() if key != name})

    def carrying(self, blocks: Mapping[bytes, bytes] | list[tuple[bytes, bytes]]) -> bytes:
        """The message with another CAR of these blocks."""
        pairs = list(blocks.items()) if isinstance(blocks, Mapping) else blocks
        return self.commit(blocks=write_car([self.made.commit], pairs))

    def block_of(self, op: int) -> bytes:
        """The CID of the record that an operation writes."""
        cid = self.made.ops[op].cid
        assert cid is not None
        return cid

    def signed(self, block: bytes, blocks: list[tuple[bytes, bytes]] | None = None) -> bytes:
        """The message with another commit block, named as the root."""
        kept = self.made.blocks[:-1] if blocks is None else blocks
        root = cid_of(block)
        return self.commit(commit=link(root), blocks=write_car([root], [*kept, (root, block)]))

    def resigned(self, *, key: SigningKey | None = None, **changes: Any) -> bytes:
        """The message with a commit object of other fields, signed."""
        made = self.made
        fields = unsigned_commit(did=made.did, rev=made.rev, data=made.data) | changes
        return self.signed(sign_commit(key or self.repo.key, fields))

    def regrown(self, change: Callable[[list[dict[str, Any]]], None]) -> bytes:
        """The message with the entries of a written key's node changed, hashed up to the root and signed."""
        blocks = dict(self.made.blocks[:-1])
        found = self._crowded_node(blocks)
        assert found is not None
        cid, node = found
        change(node["e"])
        while True:
            block = encode(node)
            del blocks[cid]
            new = cid_of(block)
            blocks[new] = block
            if cid == self.made.data:
                break
            cid, node = self._relink(blocks, cid, new)
        fields = unsigned_commit(did=self.made.did, rev=self.made.rev, data=new)
        return self.signed(sign_commit(self.repo.key, fields), list(blocks.items()))

    @property
    def has_company(self) -> bool:
        """Whether the created key shares its node with others, as `regrown` needs it."""
        return self._crowded_node(dict(self.made.blocks[:-1])) is not None

    def _crowded_node(self, blocks: Mapping[bytes, bytes]) -> tuple[bytes, dict[str, Any]] | None:
        written = self.block_of(0)
        for cid, block in blocks.items():
            node = decode(block)
            if "e" in node and len(node["e"]) > 1 and any(unlink(entry["v"]) == written for entry in node["e"]):
                return cid, node
        return None

    def _relink(self, blocks: Mapping[bytes, bytes], old: bytes, new: bytes) -> tuple[bytes, dict[str, Any]]:
        for cid, block in blocks.items():
            if cid != new and (node := decode(block)).keys() == {"e", "l"}:
                slots = [(node, "l"), *((entry, "t") for entry in node["e"])]
                for holder, name in slots:
                    if holder[name] is not None and unlink(holder[name]) == old:
                        holder[name] = link(new)
                        return cid, node
        raise AssertionError("no parent")

    def ops(self, change: Callable[[list[Payload]], None]) -> bytes:
        """The message with its list of operations changed."""
        ops = [dict(op) for op in self.payload["ops"]]
        change(ops)
        return self.commit(ops=ops)

    def header(self, header: bytes) -> bytes:
        """The payload behind another header."""
        return header + encode(self.payload)

    def swapped(self, old: bytes, new: bytes) -> bytes:
        """The message with some of its bytes changed, which occur once."""
        assert self.message.count(old) == 1
        return self.message.replace(old, new)

    def with_field(self, encoded: bytes) -> bytes:
        """The message with one more field `zzzzzzzzzzzz` (the last in order) of these bytes."""
        header = len(encode({"op": 1, "t": "#commit"}))
        assert self.message[header] == 0xA0 + len(self.payload)
        grown = bytearray(self.message)
        grown[header] += 1
        return bytes(grown) + encode("z" * 12) + encoded


@dataclass(frozen=True, slots=True)
class Forgery:
    """A way to break an event. `text` frames go out as WebSocket text messages."""

    name: str
    reason: DropReason
    forge: Callable[[Stage], bytes]
    text: bool = False

    def wire(self, stage: Stage) -> bytes:
        """As it goes on the socket."""
        if self.text:
            return websocket.frame(1, self.forge(stage))
        return websocket.binary(self.forge(stage))


def _high_s(stage: Stage) -> bytes:
    fields = unsigned_commit(did=stage.made.did, rev=stage.made.rev, data=stage.made.data)
    signature = stage.repo.key.sign(encode(fields))
    s = ORDER[stage.repo.key.curve] - int.from_bytes(signature[32:], "big")
    return stage.signed(encode(fields | {"sig": signature[:32] + s.to_bytes(32, "big")}))


def _with_signature(signature: bytes) -> Callable[[Stage], bytes]:
    def forge(stage: Stage) -> bytes:
        fields = unsigned_commit(did=stage.made.did, rev=stage.made.rev, data=stage.made.data)
        return stage.signed(encode(fields | {"sig": signature}))

    return forge


def _tampered(cid_of_stage: Callable[[Stage], bytes]) -> Callable[[Stage], bytes]:
    def forge(stage: Stage) -> bytes:
        target = cid_of_stage(stage)
        return stage.carrying(
            [(cid, block[:-1] + bytes([block[-1] ^ 1]) if cid == target else block) for cid, block in stage.made.blocks]
        )

    return forge


def _lacking(cid_of_stage: Callable[[Stage], bytes]) -> Callable[[Stage], bytes]:
    def forge(stage: Stage) -> bytes:
        target = cid_of_stage(stage)
        return stage.carrying([pair for pair in stage.made.blocks if pair[0] != target])

    return forge


def _cut_car(stage: Stage) -> bytes:
    return stage.commit(blocks=stage.payload["blocks"][:-7])


def _car_header(header: Payload) -> Callable[[Stage], bytes]:
    def forge(stage: Stage) -> bytes:
        encoded = encode(header)
        _, blocks = stage.payload["blocks"][:59], stage.payload["blocks"][59:]
        return stage.commit(blocks=varint(len(encoded)) + encoded + blocks)

    return forge


def _crowded_car(stage: Stage) -> bytes:
    empty = b"\1\x55\x12\x20" + sha256(b"").digest()
    return stage.carrying([*stage.made.blocks, *[(empty, b"")] * 10_000])


def _future(stage: Stage) -> bytes:
    repo = copy(stage.repo)
    repo.clock = copy(repo.clock)
    repo.clock.advance(3600)
    rev = repo.clock.tid()
    fields = unsigned_commit(did=stage.made.did, rev=rev, data=stage.made.data)
    block = sign_commit(repo.key, fields)
    root = cid_of(block)
    blocks = write_car([root], [*stage.made.blocks[:-1], (root, block)])
    return stage.commit(rev=rev, commit=link(root), blocks=blocks)


def _replayed(stage: Stage) -> bytes:
    return frames.frame("#commit", stage.previous | {"seq": stage.payload["seq"]})


def _fat_record(stage: Stage) -> bytes:
    repo = copy(stage.repo)
    repo.records = dict(repo.records)
    made = repo.commit([Write("create", "app.bsky.feed.post/3fatfatfatfat", encode({"x": "y" * 1_000_001}))])
    payload = frames.commit_payload(made, seq=stage.payload["seq"], time=stage.payload["time"])
    # The stage's own commit is not known to the relay: begin from what it knows.
    return frames.frame("#commit", payload)


def _sync(stage: Stage, **changes: Any) -> bytes:
    payload = frames.sync_payload(stage.made, seq=stage.payload["seq"], time=stage.payload["time"])
    return frames.frame("#sync", payload | changes)


def _old_sync(stage: Stage) -> bytes:
    rev = stage.previous["rev"][:-3] + "222"
    fields = unsigned_commit(did=stage.made.did, rev=rev, data=stage.made.data)
    block = sign_commit(stage.repo.key, fields)
    return _sync(stage, rev=rev, blocks=write_car([cid_of(block)], [(cid_of(block), block)]))


def _sync_of_stranger(stage: Stage) -> bytes:
    fields = unsigned_commit(did=stage.made.did, rev=stage.made.rev, data=stage.made.data)
    block = sign_commit(stage.stranger, fields)
    return _sync(stage, blocks=write_car([cid_of(block)], [(cid_of(block), block)]))


def _account(stage: Stage, **changes: Any) -> bytes:
    payload = frames.account_payload(
        stage.made.did, seq=stage.payload["seq"], time=stage.payload["time"], active=False, status="deleted"
    )
    return frames.frame("#account", payload | changes)


def _identity(stage: Stage, **changes: Any) -> bytes:
    payload = frames.identity_payload(stage.made.did, seq=stage.payload["seq"], time=stage.payload["time"])
    return frames.frame("#identity", payload | changes)


def _set(position: int, **changes: Any) -> Callable[[list[Payload]], None]:
    return lambda ops: ops[position].update(changes)


def _remove(position: int, name: str) -> Callable[[list[Payload]], None]:
    return lambda ops: ops[position].__delitem__(name)


def _append(**op: Any) -> Callable[[list[Payload]], None]:
    return lambda ops: ops.append(op)


def _widen(entries: list[dict[str, Any]]) -> None:
    entry = entries[1]
    shared = entry["p"]
    assert shared > 0
    entry["p"], entry["k"] = shared - 1, entries[0]["k"][shared - 1 : shared] + entry["k"]


_OTHER = link(cid_of(b"something else"))
_EMPTY_ROOTS = {"version": 1, "roots": []}

# Of an account's own host. The first operation of a stage is a create, the second an update, the third a delete.
FORGERIES = (
    # messages
    Forgery("text message", R.TEXT_MESSAGE, lambda s: b'{"op": 1}', text=True),
    Forgery("nothing", R.UNDECODABLE, lambda s: b""),
    Forgery("garbage", R.UNDECODABLE, lambda s: bytes(range(256))),
    Forgery("header alone", R.UNDECODABLE, lambda s: encode({"op": 1, "t": "#commit"})),
    Forgery("header alone, cut", R.UNDECODABLE, lambda s: s.message[:5]),
    Forgery("cut in the payload", R.UNDECODABLE, lambda s: s.message[:-9]),
    Forgery("a byte too many", R.UNDECODABLE, lambda s: s.message + b"\0"),
    Forgery("a third item", R.UNDECODABLE, lambda s: s.message + encode({})),
    Forgery("header is no map", R.UNDECODABLE, lambda s: s.header(encode([1, "#commit"]))),
    Forgery("header's op is text", R.UNDECODABLE, lambda s: s.header(encode({"op": "1", "t": "#commit"}))),
    Forgery("header of indefinite length", R.UNDECODABLE, lambda s: s.header(b"\xbfatg#commitbop\x01\xff")),
    Forgery("payload is no map", R.UNDECODABLE, lambda s: encode({"op": 1, "t": "#commit"}) + encode([1])),
    Forgery("keys out of order", R.UNDECODABLE, lambda s: s.header(b"\xa2bop\x01atg#commit")),
    Forgery("key twice", R.UNDECODABLE, lambda s: s.header(b"\xa3atg#commitatg#commitbop\x01")),
    Forgery("integer not in its shortest form", R.UNDECODABLE, lambda s: s.with_field(b"\x18\x01")),
    Forgery("length not in its shortest form", R.UNDECODABLE, lambda s: s.with_field(b"\x78\x01a")),
    Forgery("text of indefinite length", R.UNDECODABLE, lambda s: s.with_field(b"\x7f\x61a\xff")),
    Forgery("half float", R.UNDECODABLE, lambda s: s.with_field(b"\xf9\x3c\x00")),
    Forgery("double", R.UNDECODABLE, lambda s: s.with_field(b"\xfb\x3f\xf1\x99\x99\x99\x99\x99\x9a")),
    Forgery("not a number", R.UNDECODABLE, lambda s: s.with_field(b"\xf9\x7e\x00")),
    Forgery("undefined", R.UNDECODABLE, lambda s: s.with_field(b"\xf7")),
    Forgery("simple value", R.UNDECODABLE, lambda s: s.with_field(b"\xf8\xff")),
    Forgery("bignum", R.UNDECODABLE, lambda s: s.with_field(b"\xc2\x49\x01" + bytes(8))),
    Forgery("date tag", R.UNDECODABLE, lambda s: s.with_field(b"\xc0\x74" + b"2026-01-01T00:00:00Z")),
    Forgery("shared reference tag", R.UNDECODABLE, lambda s: s.with_field(b"\xd8\x1c\x81\xd8\x1d\x00")),
    Forgery("link without its zero byte", R.UNDECODABLE, lambda s: s.with_field(b"\xd8\x2a\x41\x01")),
    Forgery("link that is text", R.UNDECODABLE, lambda s: s.with_field(b"\xd8\x2a\x61a")),
    Forgery("integer below the model", R.UNDECODABLE, lambda s: s.with_field(b"\x3b" + b"\xff" * 8)),
    Forgery("text that is not UTF-8", R.UNDECODABLE, lambda s: s.with_field(b"\x61\xff")),
    Forgery("key that is an integer", R.UNDECODABLE, lambda s: s.with_field(b"\xa1\x01\x01")),
    Forgery("nested too deep", R.UNDECODABLE, lambda s: s.with_field(b"\x81" * 500 + b"\x01")),
    Forgery("a list that claims 2^60 entries", R.UNDECODABLE, lambda s: s.with_field(b"\x9b\x10" + bytes(7))),
    Forgery("20,000 empty lists", R.UNDECODABLE, lambda s: s.with_field(encode([[]] * 20_000))),
    Forgery("over 5 MB", R.MESSAGE_TOO_BIG, lambda s: s.with_field(encode(bytes(5_000_000)))),
    # seq
    Forgery("seq is text", R.INVALID_EVENT, lambda s: s.commit(seq="17")),
    Forgery("seq is negative", R.INVALID_EVENT, lambda s: s.commit(seq=-1)),
    Forgery("seq is zero", R.INVALID_EVENT, lambda s: s.commit(seq=0)),
    Forgery("seq is 2^53", R.INVALID_EVENT, lambda s: s.commit(seq=1 << 53)),
    Forgery("seq is absent", R.INVALID_EVENT, lambda s: s.without("seq")),
    Forgery("seq repeated", R.SEQ_NOT_INCREASING, lambda s: s.commit(seq=s.payload["seq"] - 1)),
    Forgery("seq goes back", R.SEQ_NOT_INCREASING, lambda s: s.commit(seq=1)),
    # fields of #commit
    Forgery("repo is no DID", R.INVALID_EVENT, lambda s: s.commit(repo="did:plc:")),
    Forgery("repo is absent", R.INVALID_EVENT, lambda s: s.without("repo")),
    Forgery("repo is another account", R.FIELD_MISMATCH, lambda s: s.commit(repo=s.other_did)),
    Forgery("rev is no TID", R.INVALID_EVENT, lambda s: s.commit(rev="3" * 12)),
    Forgery("rev is another", R.FIELD_MISMATCH, lambda s: s.commit(rev=s.made.rev[:-1] + "3")),
    Forgery("an old commit again", R.REV_NOT_NEWER, _replayed),
    Forgery("rev in the future", R.REV_IN_FUTURE, _future),
    Forgery("since is an integer", R.INVALID_EVENT, lambda s: s.commit(since=4)),
    Forgery("since is absent", R.INVALID_EVENT, lambda s: s.without("since")),
    Forgery("commit is another", R.FIELD_MISMATCH, lambda s: s.commit(commit=_OTHER)),
    Forgery("commit is text", R.INVALID_EVENT, lambda s: s.commit(commit="bafy")),
    Forgery("commit is null", R.INVALID_EVENT, lambda s: s.commit(commit=None)),
    Forgery("prevData is another", R.INVERSION_CONTRADICTION, lambda s: s.commit(prevData=_OTHER)),
    Forgery("prevData is the new tree", R.INVERSION_CONTRADICTION, lambda s: s.commit(prevData=link(s.made.data))),
    Forgery("prevData is absent", R.PREV_DATA_MISSING, lambda s: s.without("prevData")),
    Forgery("blocks are absent", R.INVALID_EVENT, lambda s: s.without("blocks")),
    Forgery("blocks are text", R.INVALID_EVENT, lambda s: s.commit(blocks="")),
    Forgery("blocks over 2 MB", R.INVALID_EVENT, lambda s: s.commit(blocks=bytes(2_000_001))),
    Forgery("tooBig", R.TOO_BIG, lambda s: s.commit(tooBig=True)),
    Forgery("tooBig is an integer", R.INVALID_EVENT, lambda s: s.commit(tooBig=0)),
    Forgery("rebase", R.REBASE, lambda s: s.commit(rebase=True)),
    Forgery("time is no datetime", R.INVALID_EVENT, lambda s: s.commit(time="yesterday")),
    Forgery("blobs are a map", R.INVALID_EVENT, lambda s: s.commit(blobs={})),
    # operations
    Forgery("ops are a map", R.INVALID_EVENT, lambda s: s.commit(ops={})),
    Forgery("201 ops", R.INVALID_EVENT, lambda s: s.commit(ops=[s.payload["ops"][0]] * 201)),
    Forgery("no ops", R.INVERSION_CONTRADICTION, lambda s: s.commit(ops=[])),
    Forgery("an op less", R.INVERSION_CONTRADICTION, lambda s: s.ops(lambda ops: ops.__delitem__(-1))),
    Forgery("an op twice", R.INVERSION_CONTRADICTION, lambda s: s.ops(lambda ops: ops.append(ops[0]))),
    Forgery(
        "a create that is not in the tree",
        R.INVERSION_CONTRADICTION,
        lambda s: s.ops(_append(action="create", path="app.bsky.feed.post/3zzzzzzzzzzzz", cid=link(s.block_of(0)))),
    ),
    Forgery("unknown action", R.INVALID_EVENT, lambda s: s.ops(_set(0, action="upsert"))),
    Forgery("path without a record key", R.INVALID_EVENT, lambda s: s.ops(_set(0, path="app.bsky.feed.post"))),
    Forgery("path of three parts", R.INVALID_EVENT, lambda s: s.ops(_set(0, path="app.bsky.feed.post/a/b"))),
    Forgery("path whose collection is no NSID", R.INVALID_EVENT, lambda s: s.ops(_set(0, path="post/abc"))),
    Forgery("create of another record", R.INVERSION_CONTRADICTION, lambda s: s.ops(_set(0, cid=_OTHER))),
    Forgery("create with prev", R.INVERSION_CONTRADICTION, lambda s: s.ops(_set(0, prev=_OTHER))),
    Forgery("create without cid", R.INVERSION_CONTRADICTION, lambda s: s.ops(_set(0, cid=None))),
    Forgery("create that has no cid key", R.INVALID_EVENT, lambda s: s.ops(_remove(0, "cid"))),
    Forgery("update without prev", R.INVERSION_CONTRADICTION, lambda s: s.ops(_remove(1, "prev"))),
    Forgery("update of another prev", R.INVERSION_CONTRADICTION, lambda s: s.ops(_set(1, prev=_OTHER))),
    Forgery("update shown as create", R.INVERSION_CONTRADICTION, lambda s: s.ops(_set(1, action="create"))),
    Forgery("delete with cid", R.INVERSION_CONTRADICTION, lambda s: s.ops(_set(2, cid=_OTHER))),
    Forgery("delete without prev", R.INVERSION_CONTRADICTION, lambda s: s.ops(_remove(2, "prev"))),
    Forgery("delete of another prev", R.INVERSION_CONTRADICTION, lambda s: s.ops(_set(2, prev=_OTHER))),
    # the CAR
    Forgery("empty CAR", R.CAR_INVALID, lambda s: s.commit(blocks=b"")),
    Forgery("cut CAR", R.CAR_INVALID, _cut_car),
    Forgery("CAR with trailing bytes", R.CAR_INVALID, lambda s: s.commit(blocks=s.payload["blocks"] + b"\xff")),
    Forgery("CAR of version 2", R.CAR_INVALID, _car_header({"version": 2, "roots": [_OTHER]})),
    Forgery("CAR without roots", R.CAR_INVALID, _car_header(_EMPTY_ROOTS)),
    Forgery("CAR with another root", R.CAR_INVALID, _car_header({"version": 1, "roots": [_OTHER]})),
    Forgery("CAR of over 10,000 sections", R.CAR_INVALID, _crowded_car),
    Forgery("tampered record", R.CAR_INVALID, _tampered(lambda s: s.block_of(0))),
    Forgery("tampered node", R.CAR_INVALID, _tampered(lambda s: s.made.data)),
    Forgery("tampered commit", R.CAR_INVALID, _tampered(lambda s: s.made.commit)),
    Forgery("commit block absent", R.CAR_INVALID, _lacking(lambda s: s.made.commit)),
    Forgery("record block absent", R.BLOCK_MISSING, _lacking(lambda s: s.block_of(0))),
    Forgery("root node absent", R.BLOCK_MISSING, _lacking(lambda s: s.made.data)),
    Forgery("record over 1 MB", R.TREE_INVALID, _fat_record),
    # the commit object
    Forgery("signed by a stranger", R.SIGNATURE_INVALID, lambda s: s.resigned(key=s.stranger)),
    Forgery("signature with a high s", R.SIGNATURE_INVALID, _high_s),
    Forgery("signature of zeros", R.SIGNATURE_INVALID, _with_signature(bytes(64))),
    Forgery("commit of another account", R.FIELD_MISMATCH, lambda s: s.resigned(did=s.other_did)),
    Forgery("commit of another rev", R.FIELD_MISMATCH, lambda s: s.resigned(rev=s.made.rev[:-1] + "3")),
    Forgery("commit of version 2", R.COMMIT_INVALID, lambda s: s.resigned(version=2)),
    Forgery("commit's data is raw", R.COMMIT_INVALID, lambda s: s.resigned(data=link(b"\1\x55\x12\x20" + bytes(32)))),
    Forgery("commit's data is null", R.COMMIT_INVALID, lambda s: s.resigned(data=None)),
    # the tree
    Forgery("entries swapped", R.TREE_INVALID, lambda s: s.regrown(lambda e: e.reverse())),
    Forgery("entry twice", R.TREE_INVALID, lambda s: s.regrown(lambda e: e.append(e[-1]))),
    Forgery("prefix not maximal", R.TREE_INVALID, lambda s: s.regrown(_widen)),
    Forgery("entry with another field", R.TREE_INVALID, lambda s: s.regrown(lambda e: e[0].update(x=1))),
    Forgery("first entry with a prefix", R.TREE_INVALID, lambda s: s.regrown(lambda e: e[0].update(p=1))),
    Forgery(
        "key of another layer",
        R.TREE_INVALID,
        lambda s: s.regrown(lambda e: e.append({"k": b"z/" + _high_key(), "p": 0, "t": None, "v": _OTHER})),
    ),
    # #sync, #account, #identity
    Forgery("#sync older than the state", R.SYNC_STALE, _old_sync),
    Forgery("#sync by a stranger", R.SIGNATURE_INVALID, _sync_of_stranger),
    Forgery("#sync over 10 kB", R.INVALID_EVENT, lambda s: _sync(s, blocks=bytes(10_001))),
    Forgery("#sync of another rev", R.FIELD_MISMATCH, lambda s: _sync(s, rev=s.made.rev[:-1] + "3")),
    Forgery("#account whose active is text", R.INVALID_EVENT, lambda s: _account(s, active="no")),
    Forgery("#account whose status has 66 bytes", R.INVALID_EVENT, lambda s: _account(s, status="é" * 33)),
    Forgery("#account without DID", R.INVALID_EVENT, lambda s: _account(s, did=None)),
    Forgery("#identity whose handle is a list", R.INVALID_EVENT, lambda s: _identity(s, handle=[])),
)

# Of a host that is not the account's.
FOREIGN = (
    Forgery("#commit of another host", R.WRONG_HOST, lambda s: s.message),
    Forgery("#sync of another host", R.WRONG_HOST, _sync),
    Forgery("#account of another host", R.WRONG_HOST, _account),
    Forgery("#identity of another host", R.IDENTITY_UNCHANGED, _identity),
)


def _high_key() -> bytes:
    """A key part that belongs four layers up or higher."""
    return next(b"%d" % n for n in range(1 << 24) if sha256(b"z/%d" % n).digest()[:1] == b"\0")
