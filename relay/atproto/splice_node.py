"""Tree nodes as bytes: proven by one full match, cut and joined without being encoded again. Pure.

Owns the pattern of a canonical node and what can be said of one by itself. Does not know other nodes: order across
nodes, layers of children and edits of trees are for `splice.py`.
Source: protocol.md 4.4; measurements.md 2.1, steps 1 and 2.

A slot is what stands in a node for a subtree: `NULL`, or `LINK_PREFIX` and a digest. Slot i stands left of entry i, the
last slot right of all entries.
"""

import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Final, NamedTuple

from relay.atproto.canonical import ARRAY_HEAD, BYTES_HEAD, LINK_PREFIX, STRING_BYTES_MAX, UINT
from relay.atproto.mst_node import common_prefix_length, depth

NULL: Final = b"\xf6"
DIGEST_AT: Final = len(LINK_PREFIX)

_ENTRY_START = b"\xa4ak"
_LINK_PREFIX = re.escape(LINK_PREFIX)
_SLOT = rb"(\xf6|%b.{32})" % _LINK_PREFIX
# No suffix can imitate what stands behind it: the byte after "ap" is not one of its characters.
_ENTRY = (
    rb"\xa4ak([\x41-\x57]|\x58[\x18-\xff])([A-Za-z0-9._:~/-]{1,255})"
    rb"ap([\x00-\x17]|\x18[\x18-\xff])at%bav%b(.{32})" % (_SLOT, _LINK_PREFIX)
)
# Nodes have 3 entries in the mean; 1 of 100,000 has more than 40. Compiling costs 0.15 s at import, 0.4 s for 64.
_ENTRIES_MAX = 40
_NODES = tuple(
    re.compile(rb"\xa2ae%b%bal%b" % (re.escape(ARRAY_HEAD[count]), _ENTRY * count, _SLOT), re.DOTALL)
    for count in range(_ENTRIES_MAX + 1)
)
# A key belongs to `layer` if its SHA-256 is within these, ends included: 2 * layer leading zero bits, and not 2 more.
_LEAST = tuple((1 << 256 >> 2 * layer + 2).to_bytes(32, "big") for layer in range(129))
_GREATEST = tuple(((1 << 256 >> 2 * layer) - 1).to_bytes(32, "big") for layer in range(129))


class UnprovenError(Exception):
    """The fast road ends here: the bytes are odd, or wrong, or not at hand."""


class Node(NamedTuple):
    """A node that has proven its own shape, at `layer`; made by `proven`.

    In `match`, entry i has the groups 5i+1 head of the suffix, 5i+2 suffix, 5i+3 length of the prefix, 5i+4 slot right
    of it, 5i+5 digest of the value; the last group is the slot left of all.
    """

    match: re.Match[bytes]
    layer: int
    keys: list[bytes]
    slots: tuple[bytes, ...]


def proven(block: bytes, layer: int | None) -> Node:
    """The node in a block, at most 40 entries whose keys have the characters of paths. `layer` is None for the root.

    Steps 1 and 2 as far as one node goes: proves canonical form, order, maximal prefixes, that every key belongs to the
    layer, that nothing hangs below layer 0, and that a node without keys has a subtree and is not the root. Raises
    UnprovenError.
    """
    match = _match(block)
    fields = match.groups()
    if layer is None:
        if len(fields) == 1:
            raise UnprovenError
        layer = depth(fields[1])
    keys = _proven_keys(fields, layer)
    slots = (fields[-1], *fields[3::5])
    fits = slots.count(NULL) == len(slots) > 1 if layer == 0 else keys or slots[0] != NULL
    if not fits:
        raise UnprovenError
    return Node(match, layer, keys, slots)


def _match(block: bytes) -> re.Match[bytes]:
    """Raises UnprovenError unless the block has the form of a node."""
    head = block[3:5]
    count = -1 if len(head) < 2 else head[0] - 0x80
    if count == 24:
        count = head[1]
    match = _NODES[count].fullmatch(block) if 0 <= count <= _ENTRIES_MAX else None
    if match is None:
        raise UnprovenError
    return match


def _proven_keys(fields: Sequence[bytes], layer: int) -> list[bytes]:
    """The keys in a match's groups: minimal heads, maximal prefixes, order and depth hold, or UnprovenError."""
    least, greatest, heads = _LEAST[layer], _GREATEST[layer], BYTES_HEAD
    keys = []
    key = b""
    for head, suffix, prefix in zip(fields[:-1:5], fields[1::5], fields[2::5], strict=True):
        shared = prefix[-1]
        if shared < len(key):
            # A greater byte behind the prefix proves that no byte more is shared, and that the key is the greater one.
            if key[shared] >= suffix[0]:
                raise UnprovenError
        elif shared > len(key):
            raise UnprovenError
        key = key[:shared] + suffix
        if heads[len(suffix)] != head or not least <= sha256(key).digest() <= greatest:
            raise UnprovenError
        keys.append(key)
    return keys


def value_at(node: Node, index: int) -> bytes:
    """The digest of an entry's value."""
    value: bytes = node.match[5 * index + 5]
    return value


def prefix_at(node: Node, index: int) -> int:
    """How many bytes an entry's key shares with the one before it in the node."""
    shared: int = node.match[5 * index + 3][-1]
    return shared


def with_slot(node: Node, index: int, slot: bytes) -> bytes:
    """The node's block with another slot."""
    start, end = node.match.span(5 * index - 1 if index else 5 * len(node.keys) + 1)
    block = node.match.string
    return block[:start] + slot + block[end:]


def with_value(node: Node, index: int, value: bytes) -> bytes:
    """The node's block with another digest as an entry's value."""
    start, end = node.match.span(5 * index + 5)
    block = node.match.string
    return block[:start] + value + block[end:]


def run(node: Node, start: int, stop: int, *, last: bytes | None = None, shared: int | None = None) -> bytes:
    """The bytes of the entries from `start` to before `stop`, the first one's prefix made `shared` bytes long, and
    `last` put into the slot right of the last one."""
    if start == stop:
        return b""
    match, block = node.match, node.match.string
    begin, end = match.start(5 * start + 1) - len(_ENTRY_START), match.end(5 * stop)
    lead = b""
    if shared is not None and shared != prefix_at(node, start):
        lead = _lead(node.keys[start], shared)
        begin = match.end(5 * start + 3)
    if last is None:
        return lead + block[begin:end]
    slot_start, slot_end = match.span(5 * stop - 1)
    return lead + block[begin:slot_start] + last + block[slot_end:end]


def entry(previous: bytes, key: bytes, right: bytes, value: bytes) -> bytes:
    """A new entry behind the key `previous`, with the slot right of it and the digest of its value."""
    return _lead(key, common_prefix_length(previous, key)) + b"at" + right + b"av" + LINK_PREFIX + value


def block_of(count: int, entries: bytes, left: bytes) -> bytes:
    """The block of a node of `count` entries, at most 255, with the slot left of all."""
    return b"\xa2ae" + ARRAY_HEAD[count] + entries + b"al" + left


def _lead(key: bytes, shared: int) -> bytes:
    """An entry up to the length of its prefix."""
    suffix = key[shared:]
    if len(suffix) > STRING_BYTES_MAX or shared > STRING_BYTES_MAX:
        raise UnprovenError
    return _ENTRY_START + BYTES_HEAD[len(suffix)] + suffix + b"ap" + UINT[shared]
