"""The nodes of a Merkle search tree: values, bytes, and what a key demands of them. Pure.

Owns the node's encoding and its prefix compression, and the depth of a key. Does not relate nodes to each other
(`mst.py` does), and does not demand that keys are repository paths. Source: protocol.md 4.4.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple, TypeAlias

from relay.atproto.cbor import CborValue, Link, decode, encode
from relay.atproto.cid import dag_cbor_cid, is_dag_cbor
from relay.atproto.errors import InvalidCbor, InvalidTree

ENTRIES_MAX = 1_500
KEY_BYTES_MAX = 1_024
EMPTY_TREE: Final = dag_cbor_cid(bytes.fromhex("a2616580616cf6"))


@dataclass(frozen=True, slots=True)
class Stub:
    """A subtree known by its binary CID alone."""

    cid: bytes


@dataclass(frozen=True, slots=True)
class Node:
    """A node at `layer`: `children[i]` holds the keys below `keys[i]`, the last child those above all.

    `values` are the records' binary CIDs. `cid` is set while the node is as it was loaded.
    """

    layer: int
    keys: tuple[bytes, ...]
    values: tuple[bytes, ...]
    children: tuple["Slot", ...]
    cid: bytes | None = None


Slot: TypeAlias = Node | Stub | None


def depth(key: bytes) -> int:
    """The layer of a key: pairs of leading zero bits of its SHA-256."""
    return (256 - int.from_bytes(sha256(key).digest(), "big").bit_length()) // 2


def common_prefix_length(left: bytes, right: bytes) -> int:
    """How many bytes two keys share at their beginning."""
    size = min(len(left), len(right))
    difference = int.from_bytes(left[:size], "big") ^ int.from_bytes(right[:size], "big")
    return size - (difference.bit_length() + 7) // 8


class ParsedNode(NamedTuple):
    """A node by itself: `links` are its children's binary CIDs, one more than keys."""

    keys: tuple[bytes, ...]
    values: tuple[bytes, ...]
    links: tuple[bytes | None, ...]


def parse_node(block: bytes) -> ParsedNode:
    """What a block says, with prefix compression proven maximal. Raises InvalidTree.

    Order and depth of the keys are left to the loading of the tree.
    """
    try:
        node = decode(block)
    except InvalidCbor as exc:
        raise InvalidTree(f"node is not DAG-CBOR: {exc}") from exc
    match node:
        case {"e": list(entries), "l": left, **extra} if not extra and len(entries) <= ENTRIES_MAX:
            links = [_parse_child(left)]
        case _:
            raise InvalidTree("node is not a map of e and l, or has too many entries")
    keys: list[bytes] = []
    values: list[bytes] = []
    previous = b""
    for entry in entries:
        match entry:
            case {"k": bytes(suffix), "p": int(shared), "t": right, "v": Link(value), **extra} if not extra:
                pass
            case _:
                raise InvalidTree("entry is not a map of k, p, t and v")
        if isinstance(shared, bool) or not 0 <= shared <= len(previous):
            raise InvalidTree("prefix is longer than the previous key")
        # Equal next bytes could have been shared; both empty is the same key twice, or an empty first one.
        if previous[shared : shared + 1] == suffix[:1]:
            raise InvalidTree("prefix is not the longest that two keys share")
        previous = previous[:shared] + suffix
        # Without this the prefixes of one node could unfold to gigabytes.
        if len(previous) > KEY_BYTES_MAX:
            raise InvalidTree(f"key of {len(previous)} bytes")
        keys.append(previous)
        values.append(value)
        links.append(_parse_child(right))
    return ParsedNode(tuple(keys), tuple(values), tuple(links))


def _parse_child(link: CborValue) -> bytes | None:
    if link is None:
        return None
    if not isinstance(link, Link) or not is_dag_cbor(link.cid):
        raise InvalidTree("child is neither null nor a DAG-CBOR CID")
    return link.cid


def encode_node(node: Node) -> bytes:
    """The block of a node."""
    entries: list[CborValue] = []
    previous = b""
    for key, value, child in zip(node.keys, node.values, node.children[1:], strict=True):
        shared = common_prefix_length(previous, key)
        entries.append({"k": key[shared:], "p": shared, "t": _link(child), "v": Link(value)})
        previous = key
    return encode({"e": entries, "l": _link(node.children[0])})


def _link(child: Slot) -> Link | None:
    return None if child is None else Link(cid_of(child))


def cid_of(tree: Node | Stub) -> bytes:
    """The binary CID of a subtree."""
    return tree.cid if tree.cid is not None else dag_cbor_cid(encode_node(tree))
