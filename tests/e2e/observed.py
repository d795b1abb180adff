"""What a consumer saw, decoded with code that is not ours. Pure.

Owns the comparison forms: an event without its number (for the oracle, the PDS's own stream) and the facts that a
foreign consumer reports of it. Decodes with libipld, so that a fault of `relay.atproto` cannot hide itself.
"""

from dataclasses import dataclass
from typing import Any

import libipld

Fact = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Observed:
    """One message of a firehose. `kind` is `#commit`, `#sync`, `#identity` or `#account`."""

    message: bytes
    kind: str
    seq: int
    did: str
    payload: dict[str, Any]


def decode(message: bytes) -> Observed:
    """Takes a whole WebSocket message. Raises ValueError for anything but a canonical event with a seq."""
    header, payload = libipld.decode_dag_cbor_multi(message)
    if header.get("op") != 1 or "seq" not in payload:
        raise ValueError(f"not an event: {header} {payload}")
    if libipld.encode_dag_cbor(header) + libipld.encode_dag_cbor(payload) != message:
        raise ValueError(f"not canonical: {message.hex()}")
    did = payload["repo"] if header["t"] == "#commit" else payload["did"]
    return Observed(message, header["t"], payload["seq"], did, payload)


def unnumbered(event: Observed) -> tuple[str, bytes]:
    """Kind and payload bytes without `seq`. Two canonical events equal in this are byte-identical apart from it."""
    return event.kind, libipld.encode_dag_cbor({k: v for k, v in event.payload.items() if k != "seq"})


def facts(event: Observed) -> list[Fact]:
    """What both foreign consumers print of it: one per operation, so none for a commit without any."""
    payload = event.payload
    fact = {"seq": event.seq, "did": event.did, "kind": event.kind.removeprefix("#")}
    match event.kind:
        case "#commit":
            return [
                fact | {"kind": op["action"], "rev": payload["rev"], "path": op["path"], "cid": _text(op["cid"])}
                for op in payload["ops"]
            ]
        case "#sync":
            roots = libipld.decode_car(payload["blocks"])[0]["roots"]
            return [fact | {"rev": payload["rev"], "cid": _text(roots[0])}]
        case "#account":
            return [fact | {"active": payload["active"], "status": payload.get("status")}]
    return [fact]


def _text(cid: bytes | None) -> str | None:
    return None if cid is None else libipld.encode_cid(cid)
