"""Event-stream messages as a PDS sends them, and read back. Pure.

Owns the payloads of the five message kinds (protocol.md section 2) as plain dicts, so that a test can change any field
before `frame` encodes it, and the naive reading of a message. Knows nothing of WebSocket framing.
"""

from dataclasses import dataclass
from typing import Any

from tests.world.ipld import Malformed, decode_sequence, encode, link
from tests.world.repo import MadeCommit

Payload = dict[str, Any]


def frame(kind: str, payload: Payload) -> bytes:
    """One message: header `{op: 1, t: kind}` and payload. `kind` begins with `#`."""
    return encode({"op": 1, "t": kind}) + encode(payload)


def error_frame(error: str, message: str | None = None) -> bytes:
    """An `op` -1 message."""
    return encode({"op": -1}) + encode({"error": error} | ({} if message is None else {"message": message}))


def info_frame(name: str, message: str | None = None) -> bytes:
    """An `#info` message."""
    return frame("#info", {"name": name} | ({} if message is None else {"message": message}))


def commit_payload(made: MadeCommit, *, seq: int, time: str) -> Payload:
    """The fields of `#commit`."""
    ops = []
    for op in made.ops:
        fields: Payload = {"action": op.action, "path": op.path, "cid": op.cid and link(op.cid)}
        ops.append(fields if op.prev is None else fields | {"prev": link(op.prev)})
    payload: Payload = {
        "seq": seq,
        "rebase": False,
        "tooBig": False,
        "repo": made.did,
        "commit": link(made.commit),
        "rev": made.rev,
        "since": made.since,
        "blocks": made.car,
        "ops": ops,
        "blobs": [],
        "time": time,
    }
    return payload if made.prev_data is None else payload | {"prevData": link(made.prev_data)}


def sync_payload(made: MadeCommit, *, seq: int, time: str) -> Payload:
    """The fields of `#sync`, saying that this commit is the repository's state."""
    return {"seq": seq, "did": made.did, "blocks": made.commit_car, "rev": made.rev, "time": time}


def identity_payload(did: str, *, seq: int, time: str, handle: str | None = None) -> Payload:
    """The fields of `#identity`."""
    return {"seq": seq, "did": did, "time": time} | ({} if handle is None else {"handle": handle})


def account_payload(did: str, *, seq: int, time: str, active: bool, status: str | None = None) -> Payload:
    """The fields of `#account`."""
    fields: Payload = {"seq": seq, "did": did, "time": time, "active": active}
    return fields if status is None else fields | {"status": status}


def commit_frame(made: MadeCommit, *, seq: int, time: str) -> bytes:
    """A `#commit` message."""
    return frame("#commit", commit_payload(made, seq=seq, time=time))


def sync_frame(made: MadeCommit, *, seq: int, time: str) -> bytes:
    """A `#sync` message."""
    return frame("#sync", sync_payload(made, seq=seq, time=time))


def identity_frame(did: str, *, seq: int, time: str, handle: str | None = None) -> bytes:
    """An `#identity` message."""
    return frame("#identity", identity_payload(did, seq=seq, time=time, handle=handle))


def account_frame(did: str, *, seq: int, time: str, active: bool, status: str | None = None) -> bytes:
    """An `#account` message."""
    return frame("#account", account_payload(did, seq=seq, time=time, active=active, status=status))


def did_of(kind: str, payload: Payload) -> str:
    """The account that a payload is about, whatever its field is called."""
    return str(payload["repo" if kind == "#commit" else "did"])


@dataclass(frozen=True, slots=True)
class Parsed:
    """A message read back. `kind` is `#commit` and so on, "" for an error frame; links are `CBORTag`s."""

    kind: str
    payload: Payload

    @property
    def seq(self) -> int:
        return int(self.payload["seq"])

    @property
    def did(self) -> str:
        """The account; raises KeyError for kinds without one."""
        return did_of(self.kind, self.payload)

    @property
    def body(self) -> Payload:
        """The payload without `seq`: what a relay passes on."""
        return {name: value for name, value in self.payload.items() if name != "seq"}


def parse(message: bytes) -> Parsed:
    """A message's two items; raises Malformed unless they are canonical maps."""
    items = decode_sequence(message)
    if len(items) != 2 or not all(isinstance(item, dict) for item in items):
        raise Malformed("not header and payload")
    header, payload = items
    if header.get("op") not in (1, -1):
        raise Malformed(f"op {header.get('op')!r}")
    return Parsed(header.get("t", ""), payload)
