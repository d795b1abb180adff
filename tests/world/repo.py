"""Repositories that make real signed commits. Pure.

Owns one account's tree and records, its signed commit objects and the CAR slice that proves each commit (protocol.md
4.1, 4.6, 4.8). Knows no hosts: who emits a commit, and under which number, is `frames.py` and `network.py`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tests.world import tree as mst
from tests.world.clock import Clock
from tests.world.ipld import cid_of, encode, link, write_car
from tests.world.keys import SigningKey

Action = Literal["create", "update", "delete"]
Proof = Literal["covering", "minimal"]


class Write(NamedTuple):
    """What to do at a path (`collection/rkey`); `record` is the record's block, None for a delete."""

    action: Action
    path: str
    record: bytes | None = None


class MadeOp(NamedTuple):
    """One operation as the commit tells it; CIDs are binary."""

    action: Action
    path: str
    cid: bytes | None
    prev: bytes | None


@dataclass(frozen=True, slots=True)
class MadeCommit:
    """A commit and its proof. CIDs are binary; `blocks` is the CAR's content in its order, the commit's block last.

    `prev_data` is None for a repository's first commit only.
    """

    did: str
    rev: str
    since: str | None
    commit: bytes
    data: bytes
    prev_data: bytes | None
    ops: tuple[MadeOp, ...]
    blocks: tuple[tuple[bytes, bytes], ...]
    commit_block: bytes

    @property
    def car(self) -> bytes:
        """The CAR slice, with the commit as its one root."""
        return write_car([self.commit], self.blocks)

    @property
    def commit_car(self) -> bytes:
        """A CAR of the commit's block alone, as `#sync` carries it."""
        return write_car([self.commit], [(self.commit, self.commit_block)])


def sign_commit(key: SigningKey, unsigned: dict[str, Any]) -> bytes:
    """The block of a commit object: `unsigned` (links as `link(cid)`) with its signature."""
    return encode({**unsigned, "sig": key.sign(encode(unsigned))})


def unsigned_commit(*, did: str, rev: str, data: bytes) -> dict[str, Any]:
    """A version 3 commit object without its signature."""
    return {"did": did, "rev": rev, "data": link(data), "prev": None, "version": 3}


class Repo:
    """One account's repository. `key` may be changed between commits; revisions come from `clock`."""

    def __init__(self, *, did: str, key: SigningKey, clock: Clock) -> None:
        self.did = did
        self.key = key
        self.clock = clock
        self.records: dict[str, bytes] = {}
        """Path to record block, of the present state."""
        self.tree: mst.Subtree = None
        self.head: MadeCommit | None = None

    @property
    def data(self) -> bytes:
        """The root CID of the present tree."""
        return mst.root_cid(self.tree)

    def preload(self, records: Iterable[tuple[str, bytes]]) -> MadeCommit:
        """Start with these (path, record block) pairs, in one commit that no relay is meant to see."""
        if self.head is not None:
            raise ValueError("the repository has commits already")
        self.records = dict(records)
        self.tree = mst.build([(path.encode(), cid_of(self.records[path])) for path in sorted(self.records)])
        for node in mst.nodes(self.tree):
            _ = node.cid
        return self._sign(ops=(), blocks=[])

    def commit(self, writes: Sequence[Write] = (), *, proof: Proof = "covering") -> MadeCommit:
        """Apply writes to distinct paths and sign. Without writes: the first commit, or one signed again.

        `proof="covering"` ships the paths to every key and to its neighbours, "minimal" no more than an inversion
        opens. Raises KeyError where a create's path exists, or an update's or delete's does not.
        """
        before, first = self.data, self.head is None
        ops = tuple(self._apply(write) for write in writes)
        self.tree = mst.trim(self.tree, [])
        shipped = {node.cid: node.block for node in list(mst.nodes(self.tree, unwritten=True))}
        if self.tree is None and (ops or first):
            shipped = {mst.EMPTY_CID: mst.EMPTY_BLOCK}
        proving = self._covering(ops) if proof == "covering" else self._inverting(ops, before)
        shipped |= {node.cid: node.block for node in proving}
        records = {op.cid: self.records[op.path] for op in ops if op.cid is not None}
        return self._sign(ops=ops, blocks=[*shipped.items(), *records.items()])

    def _apply(self, write: Write) -> MadeOp:
        key, previous = write.path.encode(), self.records.get(write.path)
        prev = None if previous is None else cid_of(previous)
        if (prev is None) != (write.action == "create"):
            raise KeyError(write.path)
        if write.record is None:
            self.tree = mst.remove(self.tree, key, [])
            del self.records[write.path]
            return MadeOp("delete", write.path, None, prev)
        cid = cid_of(write.record)
        change = mst.insert if write.action == "create" else mst.replace
        self.tree = change(self.tree, key, cid, [])
        self.records[write.path] = write.record
        return MadeOp(write.action, write.path, cid, prev)

    def _covering(self, ops: Sequence[MadeOp]) -> list[mst.Node]:
        opened: list[mst.Node] = []
        for key in [op.path.encode() for op in ops]:
            for near in (mst.predecessor(self.tree, key), key, mst.successor(self.tree, key)):
                if near is not None:
                    mst.find(self.tree, near, opened)
        return opened

    def _inverting(self, ops: Sequence[MadeOp], before: bytes) -> list[mst.Node]:
        opened: list[mst.Node] = []
        for op in ops:
            mst.find(self.tree, op.path.encode(), opened)
        inverted = invert(self.tree, ops, opened)
        present = [node for node in opened if node.written]
        if mst.root_cid(inverted) != before:
            raise AssertionError("a commit does not invert")
        return present

    def _sign(self, *, ops: tuple[MadeOp, ...], blocks: list[tuple[bytes, bytes]]) -> MadeCommit:
        head, rev, data = self.head, self.clock.tid(), self.data
        block = sign_commit(self.key, unsigned_commit(did=self.did, rev=rev, data=data))
        self.head = MadeCommit(
            did=self.did,
            rev=rev,
            since=head.rev if head else None,
            commit=cid_of(block),
            data=data,
            prev_data=head.data if head else None,
            ops=ops,
            blocks=(*blocks, (cid_of(block), block)),
            commit_block=block,
        )
        return self.head

    def export(self) -> bytes:
        """The whole repository as a CAR (`getRepo`); raises ValueError before the first commit."""
        if self.head is None:
            raise ValueError("the repository has no commit")
        blocks = {self.head.commit: self.head.commit_block}
        blocks |= {node.cid: node.block for node in mst.nodes(self.tree)} or {mst.EMPTY_CID: mst.EMPTY_BLOCK}
        blocks |= {cid_of(record): record for record in self.records.values()}
        return write_car([self.head.commit], blocks.items())


def invert(tree: mst.Subtree, ops: Sequence[MadeOp], opened: list[mst.Node]) -> mst.Subtree:
    """The tree before `ops`: deletes undone first, then the others by path (protocol.md 4.7).

    Raises KeyError or ValueError where the tree says otherwise than an operation, `Missing` where a needed node is
    only a stub.
    """
    for op in sorted(ops, key=lambda op: (op.action != "delete", op.path)):
        key = op.path.encode()
        if op.action != "delete" and mst.find(tree, key, opened) != op.cid:
            raise ValueError(f"{op.path} does not have the operation's value")
        if op.action == "create":
            tree = mst.remove(tree, key, opened)
        elif op.prev is None:
            raise ValueError(f"{op.path} has no previous value")
        else:
            tree = (mst.insert if op.action == "delete" else mst.replace)(tree, key, op.prev, opened)
    return mst.trim(tree, opened)
