"""Commits, and what a liar who holds the account's key could make of them. Pure.

Owns changes to nodes, blocks, operations and roots, each of which leaves a claim that has to be judged anew: some stay
true. A changed node is linked again up to the root, and `with_its_own_past` gives such a tree the previous root that
its operations lead to, so that nothing but the shape is left to refuse.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, cast

from relay.atproto.events import RepoOp
from tests.world import tree as mst
from tests.world.ipld import DAG_CBOR_HEAD, Malformed, cid_of, decode, encode, link, unlink
from tests.world.repo import MadeCommit, MadeOp, invert

NODE_START = b"\xa2ae"


@dataclass(frozen=True)
class Claim:
    """That `ops` lead from the tree `prev_data` to the tree `data`; `blocks` by CID."""

    blocks: Mapping[bytes, bytes]
    data: bytes
    prev_data: bytes
    ops: tuple[RepoOp, ...]

    @property
    def nodes(self) -> list[bytes]:
        """The CIDs of the tree nodes at hand."""
        return [cid for cid, block in self.blocks.items() if block.startswith(NODE_START)]


def claim_of(made: MadeCommit) -> Claim:
    """What a commit that is not the first of its repository says."""
    assert made.prev_data is not None
    return Claim(dict(made.blocks), made.data, made.prev_data, tuple(RepoOp(*op) for op in made.ops))


def tampered(rng: Random, claim: Claim) -> tuple[str, Claim]:
    """The claim with one to two changes, and their names."""
    names = []
    for _ in range(rng.choice((1, 1, 1, 2))):
        change = rng.choice(CHANGES)
        names.append(change.__name__)
        claim = changed(change, rng, claim)
    if rng.random() < 0.7:
        claim = with_its_own_past(claim)
    return "+".join(names), claim


def changed(change: Callable[[Random, Claim], Claim], rng: Random, claim: Claim) -> Claim:
    """The claim with one change, or as it is where there is nothing to change: no node, no entry, or no longer one."""
    try:
        return change(rng, claim)
    except (LookupError, ValueError, TypeError):
        return claim


def with_its_own_past(claim: Claim) -> Claim:
    """The claim with the `prevData` that an inversion gives which checks no node; unchanged where there is none."""
    try:
        tree = _load_anything(claim.blocks, claim.data, None)
        return replace(claim, prev_data=mst.root_cid(invert(tree, [MadeOp(*_made(op)) for op in claim.ops], [])))
    except (LookupError, ValueError, TypeError, AttributeError):
        return claim


def _made(op: RepoOp) -> tuple[Any, str, bytes | None, bytes | None]:
    return op.action, op.path, op.cid, op.prev


def _load_anything(blocks: Mapping[bytes, bytes], cid: bytes, layer: int | None) -> mst.Subtree:
    if cid == mst.EMPTY_CID:
        return None
    if cid not in blocks:
        return mst.Stub(cid)
    value = decode(blocks[cid])
    keys: list[bytes] = []
    for entry in value["e"]:
        keys.append((keys[-1] if keys else b"")[: entry["p"]] + entry["k"])
    if layer is None:
        layer = mst.depth(keys[0]) if keys else 0
    links = [value["l"], *(entry["t"] for entry in value["e"])]
    children = [None if linked is None else _load_anything(blocks, unlink(linked), layer - 1) for linked in links]
    node = mst.Node(layer, keys, [unlink(entry["v"]) for entry in value["e"]], children)
    # What was not edited keeps its bytes, malformed as they may be.
    node.__dict__.update(block=blocks[cid], cid=cid)
    return node


def relinked(claim: Claim, old: bytes, block: bytes) -> Claim:
    """The claim with another block for the node `old`, and every node above it made to name the new one.

    Raises ValueError where a node would come to stand below itself.
    """
    blocks, data = dict(claim.blocks), claim.data
    pending = [(old, block)]
    for _ in range(10 * len(blocks)):
        if not pending:
            return replace(claim, blocks=blocks, data=data)
        cid, block = pending.pop()
        if blocks.pop(cid, None) is None:
            continue
        new = cid_of(block)
        blocks[new] = block
        data = new if cid == data else data
        pending += [
            (above, content.replace(cid, new))
            for above, content in blocks.items()
            if above != new and content.startswith(NODE_START) and cid in content
        ]
    raise ValueError("a node below itself")


def _node(edit: Callable[[Random, dict[str, Any]], object]) -> Callable[[Random, Claim], Claim]:
    """A change to one decoded node."""

    def change(rng: Random, claim: Claim) -> Claim:
        cid = rng.choice(claim.nodes)
        value = decode(claim.blocks[cid])
        edit(rng, value)
        return relinked(claim, cid, encode(value))

    change.__name__ = edit.__name__
    return change


def _entry(rng: Random, node: dict[str, Any]) -> dict[str, Any]:
    return cast(dict[str, Any], rng.choice(node["e"]))


def _keys_of(node: dict[str, Any]) -> list[bytes]:
    keys: list[bytes] = []
    for entry in node["e"]:
        keys.append((keys[-1] if keys else b"")[: entry["p"]] + entry["k"])
    return keys


def _set_keys(node: dict[str, Any], keys: Sequence[bytes]) -> None:
    previous = b""
    for entry, key in zip(node["e"], keys, strict=True):
        entry["p"] = mst.common_prefix(previous, key)
        entry["k"] = key[entry["p"] :]
        previous = key


def other_key(rng: Random, node: dict[str, Any]) -> None:
    """A key in the same place of the order: mostly of another layer."""
    keys = _keys_of(node)
    at = rng.randrange(len(keys))
    keys[at] = keys[at][:-1] + bytes((keys[at][-1] ^ rng.choice((1, 2, 4)),))
    _set_keys(node, keys)


def longer_key(rng: Random, node: dict[str, Any]) -> None:
    keys = _keys_of(node)
    at = rng.randrange(len(keys))
    keys[at] += b"2" * rng.choice((1, 3, 300))
    _set_keys(node, keys)


def swapped_entries(rng: Random, node: dict[str, Any]) -> None:
    keys = _keys_of(node)
    a, b = rng.sample(range(len(keys)), 2) if len(keys) > 1 else (0, 0)
    keys[a], keys[b] = keys[b], keys[a]
    node["e"][a], node["e"][b] = node["e"][b], node["e"][a]
    _set_keys(node, keys)


def swapped_values(rng: Random, node: dict[str, Any]) -> None:
    a, b = _entry(rng, node), _entry(rng, node)
    a["v"], b["v"] = b["v"], a["v"]


def swapped_subtrees(rng: Random, node: dict[str, Any]) -> None:
    a, b = _entry(rng, node), _entry(rng, node)
    if rng.random() < 0.5:
        a["t"], b["t"] = b["t"], a["t"]
    else:
        a["t"], node["l"] = node["l"], a["t"]


def moved_subtree(rng: Random, node: dict[str, Any]) -> None:
    """To one side or the other of all keys between the two places."""
    a, b = _entry(rng, node), _entry(rng, node)
    if rng.random() < 0.5:
        node["l"], a["t"] = a["t"], None
    else:
        a["t"], b["t"] = None, a["t"]


def repeated_subtree(rng: Random, node: dict[str, Any]) -> None:
    _entry(rng, node)["t"] = node["l"] if rng.random() < 0.5 else _entry(rng, node)["t"]


def other_value(rng: Random, node: dict[str, Any]) -> None:
    _entry(rng, node)["v"] = link(rng.choice((DAG_CBOR_HEAD, b"\x01\x55\x12\x20")) + rng.randbytes(32))


def repeated_entry(rng: Random, node: dict[str, Any]) -> None:
    at = rng.randrange(len(node["e"]))
    keys = _keys_of(node)
    node["e"].insert(at, dict(node["e"][at]))
    _set_keys(node, [*keys[:at], keys[at], *keys[at:]])


def dropped_entry(rng: Random, node: dict[str, Any]) -> None:
    at = rng.randrange(len(node["e"]))
    keys = _keys_of(node)
    del node["e"][at], keys[at]
    _set_keys(node, keys)


def added_entry(rng: Random, node: dict[str, Any]) -> None:
    at = rng.randrange(len(node["e"]))
    keys = _keys_of(node)
    node["e"].insert(at + 1, {"k": b"", "p": 0, "t": None, "v": link(cid_of(b"new"))})
    _set_keys(node, [*keys[: at + 1], keys[at] + rng.choice((b"0", b"a", b"zz")), *keys[at + 1 :]])


def shorter_prefix(rng: Random, node: dict[str, Any]) -> None:
    """The same keys, not compressed to the full."""
    keys = _keys_of(node)
    at = rng.randrange(len(keys))
    shared = rng.randrange(node["e"][at]["p"] + 1)
    node["e"][at].update(p=shared, k=keys[at][shared:])


def other_prefix(rng: Random, node: dict[str, Any]) -> None:
    entry = _entry(rng, node)
    entry["p"] = max(0, entry["p"] + rng.choice((-1, 1, 5, 30, 300)))


def cut_subtree(rng: Random, node: dict[str, Any]) -> None:
    if rng.random() < 0.3:
        node["l"] = None
    else:
        _entry(rng, node)["t"] = None


def grown_subtree(rng: Random, node: dict[str, Any]) -> None:
    """A subtree that is not at hand, where there was none or another; the codec may be wrong."""
    child = link(rng.choice((DAG_CBOR_HEAD, DAG_CBOR_HEAD, b"\x01\x55\x12\x20")) + rng.randbytes(32))
    if rng.random() < 0.3:
        node["l"] = child
    else:
        _entry(rng, node)["t"] = child


def emptied_node(rng: Random, node: dict[str, Any]) -> None:
    node["e"].clear()
    if rng.random() < 0.3:
        node["l"] = None


def added_field(rng: Random, node: dict[str, Any]) -> None:
    (node if rng.random() < 0.5 else _entry(rng, node))["x"] = None


def wrapped_node(rng: Random, claim: Claim) -> Claim:
    """A node one layer lower, under a key-less one."""
    cid = rng.choice(claim.nodes)
    wrapper = encode({"e": [], "l": link(cid)})
    made = relinked(claim, cid, wrapper)
    return replace(made, blocks={**made.blocks, cid: claim.blocks[cid]})


def unwrapped_node(rng: Random, claim: Claim) -> Claim:
    """A subtree in its parent's place, one layer too high."""
    cid = rng.choice(claim.nodes)
    value = decode(claim.blocks[cid])
    links = [value["l"], *(entry["t"] for entry in value["e"])]
    child = rng.choice([unlink(linked) for linked in links if linked is not None and unlink(linked) in claim.blocks])
    return relinked(claim, cid, claim.blocks[child])


def flipped_node(rng: Random, claim: Claim) -> Claim:
    cid = rng.choice(claim.nodes)
    block = bytearray(claim.blocks[cid])
    block[rng.randrange(3, len(block))] ^= 1 << rng.randrange(8)
    return relinked(claim, cid, bytes(block))


def wider_head(rng: Random, claim: Claim) -> Claim:
    """A prefix or a count that is not of minimal width."""
    cid = rng.choice(claim.nodes)
    block = claim.blocks[cid]
    wide = block.replace(b"ap\x00", b"ap\x18\x00", 1) if rng.random() < 0.5 else block[:3] + b"\x98" + block[3:]
    return relinked(claim, cid, wide)


def missing_block(rng: Random, claim: Claim) -> Claim:
    gone = rng.choice(list(claim.blocks))
    return replace(claim, blocks={cid: block for cid, block in claim.blocks.items() if cid != gone})


def missing_node(rng: Random, claim: Claim) -> Claim:
    gone = rng.choice(claim.nodes)
    return replace(claim, blocks={cid: block for cid, block in claim.blocks.items() if cid != gone})


def unrelated_block(rng: Random, claim: Claim) -> Claim:
    block = rng.choice((b"\xa0", rng.randbytes(50), mst.EMPTY_BLOCK))
    return replace(claim, blocks={**claim.blocks, cid_of(block): block})


def huge_record(rng: Random, claim: Claim) -> Claim:
    """One byte over the limit, written for real."""
    written = [at for at, op in enumerate(claim.ops) if op.cid is not None]
    if not written:
        return claim
    at = rng.choice(written)
    old, block = claim.ops[at].cid, encode({"x": "y" * (1_000_001 - 8)})
    assert old is not None
    ops = (*claim.ops[:at], claim.ops[at]._replace(cid=cid_of(block)), *claim.ops[at + 1 :])
    made = replace(claim, ops=ops, blocks={**claim.blocks, cid_of(block): block})
    for cid in made.nodes:
        if old in made.blocks[cid]:
            return relinked(made, cid, made.blocks[cid].replace(old, cid_of(block)))
    return made


def _ops(edit: Callable[[Random, list[RepoOp], Claim], object]) -> Callable[[Random, Claim], Claim]:
    """A change to the list of operations."""

    def change(rng: Random, claim: Claim) -> Claim:
        ops = list(claim.ops)
        if ops:
            edit(rng, ops, claim)
        return replace(claim, ops=tuple(ops))

    change.__name__ = edit.__name__
    return change


def dropped_op(rng: Random, ops: list[RepoOp], claim: Claim) -> None:
    del ops[rng.randrange(len(ops))]


def repeated_op(rng: Random, ops: list[RepoOp], claim: Claim) -> None:
    ops.append(rng.choice(ops))


def shuffled_ops(rng: Random, ops: list[RepoOp], claim: Claim) -> None:
    rng.shuffle(ops)


def added_op(rng: Random, ops: list[RepoOp], claim: Claim) -> None:
    cids = (None, cid_of(b"a"), rng.choice(list(claim.blocks)))
    path = rng.choice((f"app.bsky.feed.post/{rng.getrandbits(20)}", _visible_path(rng, claim)))
    ops.append(RepoOp(rng.choice(("create", "update", "delete")), path, rng.choice(cids), rng.choice(cids)))


def other_op(rng: Random, ops: list[RepoOp], claim: Claim) -> None:
    at = rng.randrange(len(ops))
    op = ops[at]
    cids = (None, op.cid, op.prev, cid_of(b"b"), rng.choice(list(claim.blocks)), b"\x01\x55" + cid_of(b"c")[2:])
    match rng.choice(("action", "path", "cid", "prev")):
        case "action":
            ops[at] = op._replace(action=rng.choice(("create", "update", "delete", "other")))
        case "path":
            ops[at] = op._replace(path=rng.choice((_visible_path(rng, claim), op.path + "2", "é/" + op.path)))
        case "cid":
            ops[at] = op._replace(cid=rng.choice(cids))
        case "prev":
            ops[at] = op._replace(prev=rng.choice(cids))


def _visible_path(rng: Random, claim: Claim) -> str:
    keys = [key for cid in claim.nodes for key in _keys_or_none(claim.blocks[cid])]
    return rng.choice(keys or [b"a.b.c/1"]).decode("ascii", "replace")


def _keys_or_none(block: bytes) -> list[bytes]:
    try:
        return _keys_of(decode(block))
    except (Malformed, LookupError, TypeError):
        return []


def other_roots(rng: Random, claim: Claim) -> Claim:
    roots = (claim.data, claim.prev_data, mst.EMPTY_CID, cid_of(b"r"), *claim.nodes)
    root = rng.choice(roots)
    return replace(claim, data=root) if rng.random() < 0.5 else replace(claim, prev_data=root)


CHANGES: tuple[Callable[[Random, Claim], Claim], ...] = (
    *map(
        _node,
        (
            *(other_key, other_key, longer_key, swapped_entries, swapped_values, swapped_subtrees, moved_subtree),
            *(
                repeated_subtree,
                other_value,
                repeated_entry,
                dropped_entry,
                added_entry,
                shorter_prefix,
                other_prefix,
                cut_subtree,
            ),
            *(grown_subtree, emptied_node, added_field),
        ),
    ),
    *(wrapped_node, unwrapped_node, flipped_node, wider_head, missing_block, missing_node, unrelated_block),
    *map(_ops, (dropped_op, repeated_op, shuffled_ops, added_op, other_op)),
    *(huge_record, other_roots),
)
