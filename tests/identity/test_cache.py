"""The identity cache over a family that outlives it."""

from pathlib import Path

import pytest
from rocksdict import Options, Rdict

from relay.identity.cache import IdentityCache, decode, encode
from relay.identity.document import Identity
from tests.identity.documents import key
from tests.identity.family import DictFamily


def identity(number: int, *, host: str = "pds.example.com", handle: str | None = "a.example.com") -> Identity:
    return Identity(f"did:plc:{number:024}", key(number), host, handle, 1_700_000_000.25 + number)


@pytest.mark.parametrize("handle", [None, "alice.example.com", "a" * 253])
@pytest.mark.parametrize("host", ["pds.example.com", "http://" + "h" * 253 + ":65535"])
def test_rows_round_trip(host: str, handle: str | None) -> None:
    """Every field comes back, at its longest too."""
    one = identity(3, host=host, handle=handle)
    row = encode(one)
    assert decode(one.did, row) == one
    assert decode(one.did, b"\x00" + row[1:]) is None


def test_persistence_across_caches() -> None:
    """A new cache over the same family knows what the old one was told."""
    family = DictFamily()
    IdentityCache(family=family, entries_max=10).put(identity(1))
    again = IdentityCache(family=family, entries_max=10)
    assert len(again) == 0
    assert again.get(identity(1).did) == identity(1)
    assert len(again) == 1


def test_memory_is_bounded_and_the_family_is_not() -> None:
    """The least recently used go from memory and are read back from the family."""
    cache = IdentityCache(family=DictFamily(), entries_max=3)
    for number in range(1, 11):
        cache.put(identity(number))
    assert len(cache) == 3
    assert [cache.get(identity(number).did) for number in range(1, 11)] == [identity(n) for n in range(1, 11)]
    assert len(cache) == 3


def test_put_replaces_and_delete_forgets() -> None:
    """In memory and in the family alike."""
    family = DictFamily()
    cache = IdentityCache(family=family, entries_max=3)
    cache.put(identity(1))
    cache.put(identity(1, host="new.example.com"))
    for view in (cache, IdentityCache(family=family, entries_max=3)):
        found = view.get(identity(1).did)
        assert found is not None
        assert found.host == "new.example.com"
    cache.delete(identity(1).did)
    cache.delete(identity(1).did)
    assert cache.get(identity(1).did) is None
    assert not family


def test_over_rocksdb(tmp_path: Path) -> None:
    """The real store fits the protocol, and keeps identities across a restart."""
    path = str(tmp_path / "db")
    for turn in ("written", "read"):
        store = Rdict(path, Options(raw_mode=True))
        cache = IdentityCache(family=store, entries_max=3)
        if turn == "written":
            cache.put(identity(1))
            cache.put(identity(2, handle=None))
            cache.delete(identity(1).did)
        else:
            assert cache.get(identity(1).did) is None
            assert cache.get(identity(2).did) == identity(2, handle=None)
        store.close()
