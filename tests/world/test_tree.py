"""The fake network's trees and keys against the protocol's published facts and against their own definition."""

import random
from itertools import permutations

import pytest

from tests.world import tree as mst
from tests.world.ipld import Malformed, cid_of, cid_text, parse_cid_text
from tests.world.keys import ORDER, SigningKey, der, high_s, unbase58, verify

LEAF = parse_cid_text("bafyreie5cvv4h45feadgeuwhbcutmh6t2ceseocckahdoe6uat64zmz454")

# facts of the atproto interop tests (CC0): commit proofs, key heights, did:key texts
MERGE_AND_SPLIT = {
    "keys": ["A0/374913", "B2/827649", "D2/269196", "E0/670489"],
    "adds": ["C2/014073"],
    "dels": ["B2/827649", "D2/269196"],
    "before": "bafyreiceld4icym4qjmdcn3dfgtxt7t66hdgyhvigessgmkvb56dx6amgi",
    "after": "bafyreigkalika3taqauapfha556lo36zzcjoiifny5xeru6yis3nxw5ruq",
}
HEIGHTS = {
    "": 0,
    "2653ae71": 0,
    "blue": 1,
    "app.bsky.feed.post/454397e440ec": 4,
    "app.bsky.feed.post/9adeb165882c": 8,
}


def test_key_heights() -> None:
    assert {key: mst.depth(key.encode()) for key in HEIGHTS} == HEIGHTS


def test_the_empty_tree_has_its_known_cid() -> None:
    assert cid_text(mst.root_cid(None)) == "bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm"


def test_roots_of_a_published_commit_in_every_order_of_its_operations() -> None:
    facts = MERGE_AND_SPLIT
    before = mst.build([(key.encode(), LEAF) for key in facts["keys"]])
    assert cid_text(mst.root_cid(before)) == facts["before"]
    for order in permutations([*facts["adds"], *facts["dels"]]):
        after: mst.Subtree = before
        for key in order:
            adds = key in facts["adds"]
            after = mst.insert(after, key.encode(), LEAF, []) if adds else mst.remove(after, key.encode(), [])
        assert cid_text(mst.root_cid(mst.trim(after, []))) == facts["after"]


def test_changing_a_tree_gives_the_tree_built_from_its_keys() -> None:
    rng = random.Random(5)
    held: dict[bytes, bytes] = {}
    tree: mst.Subtree = None
    for step in range(2000):
        key, value = f"c.d.e/{rng.randrange(400)}".encode(), cid_of(rng.randbytes(4))
        if key not in held:
            tree = mst.insert(tree, key, value, [])
            held[key] = value
        elif rng.random() < 0.3:
            tree = mst.replace(tree, key, value, [])
            held[key] = value
        else:
            tree = mst.trim(mst.remove(tree, key, []), [])
            del held[key]
        if step % 10 == 0 or len(held) < 5:
            assert mst.root_cid(tree) == mst.root_cid(mst.build(sorted(held.items())))
    assert list(mst.items(tree)) == sorted(held.items())


def test_neighbours() -> None:
    keys = [f"a.b.c/{number:04}".encode() for number in range(0, 400, 2)]
    tree = mst.build([(key, LEAF) for key in keys])
    for number in range(1, 397, 2):
        between = f"a.b.c/{number:04}".encode()
        assert (mst.predecessor(tree, between), mst.successor(tree, between)) == (
            keys[number // 2],
            keys[number // 2 + 1],
        )
    assert (mst.predecessor(tree, keys[0]), mst.successor(tree, keys[-1])) == (None, None)


def test_a_node_at_a_wrong_layer_is_refused() -> None:
    wrong = mst.Node(3, [b"2653ae71", b"blue"], [LEAF, LEAF], [None, None, None])
    with pytest.raises(Malformed, match="layer"):
        mst.load({wrong.cid: wrong.block}, wrong.cid)


def test_opening_what_is_not_there_is_missing() -> None:
    tree = mst.build([(f"a.b.c/{number}".encode(), LEAF) for number in range(100)])
    assert tree is not None
    partial = mst.load({tree.cid: tree.block}, tree.cid)
    below = next(f"a.b.c/{number}".encode() for number in range(100) if mst.depth(f"a.b.c/{number}".encode()) == 0)
    assert mst.find(partial, tree.keys[0], []) == LEAF
    with pytest.raises(mst.Missing):
        mst.find(partial, below, [])


def test_did_keys_of_published_secrets() -> None:
    k256 = SigningKey("k256", bytes.fromhex("9085d2bef69286a6cbb51623c8fa258629945cd55ca705cc4e66700396894e0c"))
    p256 = SigningKey("p256", unbase58("9p4VRzdmhsnq869vQjVCTrRry7u4TtfRxhvBFJTGU2Cp"))
    assert k256.did_key == "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme"
    assert p256.did_key == "did:key:zDnaeTiq1PdzvZXUaMdezchcMJQpBdH2VN4pgrrEhMCCbmwSb"


@pytest.mark.parametrize("curve", ["k256", "p256"])
def test_only_a_low_s_signature_of_the_message_verifies(curve: str) -> None:
    rng = random.Random(2)
    key = SigningKey.generate(rng, "k256" if curve == "k256" else "p256")
    signature = key.sign(b"message")
    assert len(signature) == 64
    assert int.from_bytes(signature[32:], "big") <= ORDER[curve] // 2
    assert signature == key.sign(b"message")
    assert verify(key.did_key, b"message", signature)
    assert not verify(key.did_key, b"massage", signature)
    assert not verify(key.did_key, b"message", high_s(signature, key.curve))
    assert not verify(key.did_key, b"message", der(signature))
    assert not verify(SigningKey.generate(rng, key.curve).did_key, b"message", signature)
