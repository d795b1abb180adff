"""The vocabulary of the property tests: values, mutations, key sets, commits."""

from dataclasses import dataclass

from hypothesis import strategies as st

from relay.atproto.cbor import CborValue, Link, encode
from relay.atproto.cid import DAG_CBOR_PREFIX, RAW_PREFIX, dag_cbor_cid
from relay.atproto.events import RepoOp
from relay.atproto.mst_node import depth
from tests.atproto.naive_tree import NaiveTree, build

_cids = st.builds(bytes.__add__, st.sampled_from([DAG_CBOR_PREFIX, RAW_PREFIX]), st.binary(min_size=32, max_size=32))

values: st.SearchStrategy[CborValue] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(max_size=30)
    | st.binary(max_size=30)
    | st.builds(Link, _cids),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(min_size=1, max_size=12), inner, max_size=5),
    max_leaves=12,
)


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """Valid bytes with a few edits: a byte replaced, inserted, or taken out, or the end cut off."""
    edited = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(edited) - 1, 0)))
        match draw(st.sampled_from(["replace", "flip", "insert", "remove", "cut"])):
            case "replace" if edited:
                edited[at] = draw(st.integers(0, 255))
            case "flip" if edited:
                edited[at] ^= 1 << draw(st.integers(0, 7))
            case "insert":
                edited[at:at] = draw(st.binary(min_size=1, max_size=3))
            case "remove":
                del edited[at : at + 1]
            case "cut":
                del edited[at:]
    return bytes(edited)


def record_of_number(number: int) -> bytes:
    """A record's block, one for each number."""
    return encode({"$type": "a.b.c", "n": number})


def cid_of_number(number: int) -> bytes:
    """Its binary CID."""
    return dag_cbor_cid(record_of_number(number))


# Repository paths over few collections whose names are each other's prefixes, and a pool small enough for keys to meet.
# A key of depth 4 is one in 256: some are mined here so that trees become high.
_COLLECTIONS = ("a.b.c", "a.b.c-d.e", "a.b.c.d", "a.b.cc", "x.y.z")
_POOL = [f"{collection}/{number}" for collection in _COLLECTIONS for number in range(12)]
_HIGH = [path for path in (f"a.b.{n % 7}x/{n}" for n in range(6_000)) if depth(path.encode()) >= 3]

paths = st.sampled_from([*_POOL, *_HIGH])
keys = paths.map(str.encode)
items = st.dictionaries(keys, st.integers(0, 9).map(cid_of_number), max_size=40)
trees = items.map(build)


@dataclass(frozen=True)
class TreeCommit:
    """A tree before and after operations, and the blocks of the records that these wrote."""

    before: NaiveTree
    after: NaiveTree
    ops: tuple[RepoOp, ...]
    records: dict[bytes, bytes]

    @property
    def keys(self) -> list[bytes]:
        return [op.path.encode() for op in self.ops]

    @property
    def proof(self) -> dict[bytes, bytes]:
        """What the reference host ships: the covering nodes, and the records."""
        return {cid: self.after.blocks[cid] for cid in self.after.covering(self.keys)} | self.records

    @property
    def everything(self) -> dict[bytes, bytes]:
        """The whole tree, and the records."""
        return self.after.blocks | self.records


@st.composite
def commits(draw: st.DrawFn) -> TreeCommit:
    """One to eight operations on distinct paths, in any order, on any tree."""
    before = draw(items)
    after = dict(before)
    ops: list[RepoOp] = []
    records: dict[bytes, bytes] = {}
    touched = paths if not before else paths | st.sampled_from(sorted(before)).map(bytes.decode)
    for path in draw(st.lists(touched, min_size=1, max_size=8, unique=True)):
        key = path.encode()
        prev = before.get(key)
        number = draw(st.integers(10, 19))
        if prev is not None and draw(st.booleans()):
            del after[key]
            ops.append(RepoOp("delete", path, None, prev))
            continue
        after[key] = cid_of_number(number)
        records[after[key]] = record_of_number(number)
        ops.append(RepoOp("create" if prev is None else "update", path, after[key], prev))
    return TreeCommit(build(before), build(after), tuple(ops), records)
