"""Identities in memory over a persistent family, so that a restart asks the directory nothing it knew.

Owns the binary layout of the `identities` family and the LRU above it. Does not judge age: the resolver does.
No I/O but the family's point reads and unsynced writes, which it gets from outside.
"""

import logging
import struct
from typing import Protocol

from cachetools import LRUCache

from relay.atproto.keys import VerifyingKey
from relay.identity.document import Identity

_logger = logging.getLogger(__name__)

FORMAT = 1

# format, key bytes, host bytes, fetched_at; then key, host, handle ("" for none)
_HEAD = struct.Struct(">BBHd")


class Family(Protocol):
    """A persistent map of bytes, such as a column family."""

    def get(self, key: bytes, /) -> bytes | None: ...
    def put(self, key: bytes, value: bytes, /) -> None: ...
    def delete(self, key: bytes, /) -> None: ...


class IdentityCache:
    """At most `entries_max` identities in memory, all of them in the family."""

    def __init__(self, *, family: Family, entries_max: int) -> None:
        self._family = family
        self._memory: LRUCache[str, Identity] = LRUCache(entries_max)

    def __len__(self) -> int:
        """How many are in memory."""
        return len(self._memory)

    def get(self, did: str) -> Identity | None:
        """The identity as it was put, of any age."""
        identity = self._memory.get(did)
        if identity is None:
            row = self._family.get(did.encode())
            identity = None if row is None else decode(did, row)
            if identity is not None:
                self._memory[did] = identity
        return identity

    def put(self, identity: Identity) -> None:
        """Replaces what was known of this DID."""
        self._memory[identity.did] = identity
        self._family.put(identity.did.encode(), encode(identity))

    def delete(self, did: str) -> None:
        """Forgets the DID; no error if it is unknown."""
        self._memory.pop(did, None)
        self._family.delete(did.encode())


def encode(identity: Identity) -> bytes:
    """The row of an identity, about 70 bytes."""
    key, host = identity.key.to_bytes(), identity.host.encode()
    return _HEAD.pack(FORMAT, len(key), len(host), identity.fetched_at) + key + host + (identity.handle or "").encode()


def decode(did: str, row: bytes) -> Identity | None:
    """The identity of a row; None for a row of another format or a broken one: it is fetched anew."""
    if row[:1] != bytes((FORMAT,)):
        return None
    try:
        _, key_bytes, host_bytes, fetched_at = _HEAD.unpack_from(row)
        host_at = _HEAD.size + key_bytes
        handle_at = host_at + host_bytes
        key = VerifyingKey.from_bytes(row[_HEAD.size : host_at])
        handle = row[handle_at:].decode()
        return Identity(did, key, row[host_at:handle_at].decode(), handle or None, fetched_at)
    except (struct.error, ValueError) as error:
        _logger.warning("identity of %s is fetched anew, its row is broken: %s", did, error)
        return None
