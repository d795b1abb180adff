"""The signed commit object, repository version 3. Pure.

Owns its fields and the bytes that its signature covers. Does not verify the signature, nor compare the fields
with those of a message. Source: protocol.md 4.1.
"""

from dataclasses import dataclass

from relay.atproto.cbor import Link, decode, encode
from relay.atproto.cid import is_dag_cbor
from relay.atproto.errors import InvalidCbor, InvalidCommit
from relay.atproto.syntax import is_did, is_tid

VERSION = 3


@dataclass(frozen=True, slots=True)
class SignedCommit:
    """`data` and `prev` are binary CIDs; `unsigned` is what `sig` is to cover."""

    did: str
    rev: str
    data: bytes
    prev: bytes | None
    sig: bytes
    unsigned: bytes


def parse(block: bytes) -> SignedCommit:
    """The commit in a block. Raises InvalidCommit.

    Fields beyond the six are allowed and covered by the signature: it is over all fields but `sig`, as received.
    The length of `sig` is left to the key.
    """
    try:
        value = decode(block)
    except InvalidCbor as exc:
        raise InvalidCommit(f"commit is not DAG-CBOR: {exc}") from exc
    if not isinstance(value, dict):
        raise InvalidCommit("commit is not a map")
    match value:
        case {
            "did": str(did),
            "rev": str(rev),
            "data": Link(data),
            "prev": (None | Link()) as prev,
            "sig": bytes(sig),
            "version": int(version),
        } if version == VERSION:
            pass
        case _:
            raise InvalidCommit("commit lacks a field, has one of the wrong type, or is not of version 3")
    if not is_did(did):
        raise InvalidCommit(f"did is malformed: {did[:80]!r}")
    if not is_tid(rev):
        raise InvalidCommit(f"rev is not a TID: {rev[:80]!r}")
    if not is_dag_cbor(data) or (prev is not None and not is_dag_cbor(prev.cid)):
        raise InvalidCommit("data or prev is not a DAG-CBOR CID")
    unsigned = encode({name: field for name, field in value.items() if name != "sig"})
    return SignedCommit(did, rev, data, prev.cid if prev is not None else None, sig, unsigned)
