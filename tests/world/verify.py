"""A naive verifier of firehose events, for what a relay lets out. Pure.

Owns the checks of protocol.md 1.5, 2, 4 and 5 for one stream: numbers that increase, canonical messages, CAR hashes,
field equality, signatures, operations undone against the partial tree, revisions that increase. Shares no code with
the relay. Which keys an account had comes from outside; which events there must be, `oracle.py` says.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.world import tree as mst
from tests.world.frames import Parsed, parse
from tests.world.ipld import Malformed, decode, encode, read_car, unlink
from tests.world.keys import verify
from tests.world.repo import MadeOp, invert

COMMIT_FIELDS = {"did", "rev", "sig", "data", "prev", "version"}
REQUIRED = {
    "#commit": {"seq", "rebase", "tooBig", "repo", "commit", "rev", "since", "blocks", "ops", "blobs", "time"},
    "#sync": {"seq", "did", "blocks", "rev", "time"},
    "#identity": {"seq", "did", "time"},
    "#account": {"seq", "did", "time", "active"},
}


class Rejected(AssertionError):
    """An event that should not have come out."""


@dataclass(frozen=True, slots=True)
class State:
    """What an account's last commit or sync said; CIDs are binary."""

    rev: str
    commit: bytes
    data: bytes


class StreamVerifier:
    """One consumer's verifier. `keys` gives the did:keys that an account has or had."""

    def __init__(self, *, keys: Callable[[str], Sequence[str]]) -> None:
        self._keys = keys
        self.last_seq = 0
        self.states: dict[str, State] = {}
        self.counts: dict[str, int] = dict.fromkeys(REQUIRED, 0)
        self.discontinuities = 0
        """Commits whose `since` or `prevData` is not the account's state before them."""

    def take(self, message: bytes) -> Parsed:
        """Check one message of the stream; returns it parsed, raises Rejected."""
        try:
            return self._take(message)
        except (Malformed, mst.Missing, KeyError, ValueError, TypeError) as error:
            raise Rejected(f"after seq {self.last_seq}: {error!r}") from error

    def _take(self, message: bytes) -> Parsed:
        event = parse(message)
        if event.kind not in REQUIRED:
            raise Rejected(f"kind {event.kind!r}")
        if missing := REQUIRED[event.kind] - event.payload.keys():
            raise Rejected(f"seq {event.seq}: fields missing: {missing}")
        if event.seq <= self.last_seq:
            raise Rejected(f"seq {event.seq} after {self.last_seq}")
        self.last_seq = event.seq
        self.counts[event.kind] += 1
        if event.kind == "#commit":
            self._commit(event)
        elif event.kind == "#sync":
            state = self._state(event, *car_of(event))
            before = self.states.get(event.did)
            if before is not None and (state.rev < before.rev or (state.rev == before.rev and state != before)):
                raise Rejected(f"seq {event.seq}: #sync goes back")
            self.states[event.did] = state
        return event

    def _commit(self, event: Parsed) -> None:
        roots, blocks = car_of(event)
        state, payload = self._state(event, roots, blocks), event.payload
        before = self.states.get(event.did)
        if before is not None and state.rev <= before.rev:
            raise Rejected(f"seq {event.seq}: rev {state.rev} after {before.rev}")
        if unlink(payload["commit"]) != state.commit or payload["tooBig"] or payload["rebase"]:
            raise Rejected(f"seq {event.seq}: commit, tooBig or rebase")
        prev_data = unlink(payload["prevData"]) if "prevData" in payload else None
        if prev_data is None and payload["since"] is not None:
            raise Rejected(f"seq {event.seq}: no prevData")
        check_operations(payload, blocks, state.data, prev_data)
        if before is not None and (before.rev, before.data) != (payload["since"], prev_data):
            self.discontinuities += 1
        self.states[event.did] = state

    def _state(self, event: Parsed, roots: Sequence[bytes], blocks: Mapping[bytes, bytes]) -> State:
        """The state that a `#commit` or `#sync` proves by its CAR and signature."""
        if len(roots) != 1 or roots[0] not in blocks:
            raise Rejected(f"seq {event.seq}: CAR root")
        commit = decode(blocks[roots[0]])
        if commit.keys() != COMMIT_FIELDS or commit["version"] != 3:
            raise Rejected(f"seq {event.seq}: commit object")
        if (commit["did"], commit["rev"]) != (event.did, event.payload["rev"]):
            raise Rejected(f"seq {event.seq}: did or rev differ")
        unsigned = encode({name: value for name, value in commit.items() if name != "sig"})
        if not any(verify(key, unsigned, commit["sig"]) for key in reversed(self._keys(event.did))):
            raise Rejected(f"seq {event.seq}: signature")
        return State(commit["rev"], roots[0], unlink(commit["data"]))


def car_of(event: Parsed) -> tuple[list[bytes], dict[bytes, bytes]]:
    """(roots, blocks by CID) of a `#commit` or `#sync`."""
    roots, blocks = read_car(event.payload["blocks"])
    return roots, dict(blocks)


def check_operations(
    payload: dict[str, Any], blocks: Mapping[bytes, bytes], data: bytes, prev_data: bytes | None
) -> None:
    """Raises unless the operations lead from `prev_data` (None: the empty tree) to `data`, by these blocks."""
    ops = [_operation(op) for op in payload["ops"]]
    before = mst.EMPTY_CID if prev_data is None else prev_data
    if len({op.path for op in ops}) != len(ops) or len(ops) > 200:
        raise Rejected("operations on one path, or too many")
    if not ops:
        if data != before:
            raise Rejected("the tree changed without operations")
        return
    tree = mst.load(blocks, data)
    for op in ops:
        if mst.find(tree, op.path.encode(), []) != op.cid:
            raise Rejected(f"{op.path}: the tree says otherwise")
        if op.cid is not None and op.cid not in blocks:
            raise Rejected(f"{op.path}: no record")
    if mst.root_cid(invert(tree, ops, [])) != before:
        raise Rejected("operations do not lead from prevData")


def _operation(op: dict[str, Any]) -> MadeOp:
    cid = None if op["cid"] is None else unlink(op["cid"])
    prev = unlink(op["prev"]) if "prev" in op else None
    shapes = {"create": (True, False), "update": (True, True), "delete": (False, True)}
    if shapes[op["action"]] != (cid is not None, prev is not None):
        raise Rejected(f"{op['path']}: {op['action']} with the wrong CIDs")
    return MadeOp(op["action"], op["path"], cid, prev)
