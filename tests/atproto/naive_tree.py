"""Whole trees built from nothing but the definition: the oracle of the partial ones.

A tree is rebuilt from the full set of keys each time; nothing is ever edited in place.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise

from relay.atproto.cbor import CborValue, Link, encode
from relay.atproto.cid import dag_cbor_cid


@dataclass(frozen=True)
class NaiveTree:
    """`blocks` holds every node; `paths` names, for a key, the nodes from the root down to its place."""

    root: bytes
    blocks: dict[bytes, bytes]
    items: dict[bytes, bytes]
    layers: dict[bytes, tuple[int, bytes | None, bytes | None]]

    def path(self, key: bytes) -> set[bytes]:
        """The nodes whose span holds the key, down to the layer of the key: those that get() visits."""
        level = naive_depth(key)
        return {cid for cid, span in self.layers.items() if span[0] >= level and _within(key, span)}

    def spanning(self, key: bytes) -> set[bytes]:
        """Every node whose span holds the key, below its layer too."""
        return {cid for cid, span in self.layers.items() if _within(key, span)}

    def covering(self, keys: Iterable[bytes]) -> set[bytes]:
        """What the reference host ships for operations on these keys: the paths to each and to its neighbours."""
        cids: set[bytes] = set()
        for key in keys:
            left = max((k for k in self.items if k < key), default=None)
            right = min((k for k in self.items if k > key), default=None)
            for wanted in (key, left, right):
                if wanted is not None:
                    cids |= self.path(wanted)
        return cids


def _within(key: bytes, span: tuple[int, bytes | None, bytes | None]) -> bool:
    _layer, lower, upper = span
    return (lower is None or lower < key) and (upper is None or key < upper)


def naive_depth(key: bytes) -> int:
    """Counted digit by digit."""
    bits = "".join(f"{byte:08b}" for byte in sha256(key).digest())
    return (len(bits) - len(bits.lstrip("0"))) // 2


def build(items: Mapping[bytes, bytes]) -> NaiveTree:
    """The tree of a set of keys with their values (binary CIDs)."""
    blocks: dict[bytes, bytes] = {}
    layers: dict[bytes, tuple[int, bytes | None, bytes | None]] = {}

    def node(keys: list[bytes], layer: int, lower: bytes | None, upper: bytes | None) -> Link | None:
        if not keys:
            return None
        own = [key for key in keys if naive_depth(key) == layer]
        bounds = [lower, *own, upper]
        links = []
        for a, b in pairwise(bounds):
            run = [key for key in keys if key not in own and _within(key, (0, a, b))]
            links.append(node(run, layer - 1, a, b))
        entries: list[CborValue] = []
        previous = b""
        for key, link in zip(own, links[1:], strict=True):
            shared = max(n for n in range(len(previous) + 1) if key[:n] == previous[:n])
            entries.append({"p": shared, "k": key[shared:], "v": Link(items[key]), "t": link})
            previous = key
        block = encode({"l": links[0], "e": entries})
        cid = dag_cbor_cid(block)
        blocks[cid] = block
        layers[cid] = (layer, lower, upper)
        return Link(cid)

    root = node(sorted(items), max(map(naive_depth, items), default=0), None, None)
    if root is None:
        block = encode({"e": [], "l": None})
        blocks[dag_cbor_cid(block)] = block
        root = Link(dag_cbor_cid(block))
    return NaiveTree(root.cid, blocks, dict(items), layers)
