"""Records, paths and DIDs of realistic sizes, from seeded numbers. Pure.

Owns what accounts write in the fake network; the sizes give commit messages of about 3.3 kB with 10 blocks.
"""

import random
from typing import Any

from tests.world.clock import Clock, tid
from tests.world.ipld import cid_of, cid_text, encode
from tests.world.repo import Repo, Write

COLLECTIONS = ("app.bsky.feed.like", "app.bsky.feed.post", "app.bsky.feed.repost", "app.bsky.graph.follow")
WEIGHTS = (50, 25, 12, 13)
WORDS = ("sea", "calm", "tonight", "full", "moon", "lies", "fair", "upon", "straits", "light", "gone", "cliffs")
DID_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
YEAR_MICROSECONDS = 365 * 86_400 * 1_000_000


def plc_did(rng: random.Random) -> str:
    """A well-formed did:plc."""
    return "did:plc:" + "".join(rng.choices(DID_ALPHABET, k=24))


def record(rng: random.Random, collection: str, *, time: str) -> bytes:
    """A record block of the collection: a post of 150 to 400 bytes, a link to a post, or a follow."""
    value: dict[str, Any] = {"$type": collection, "createdAt": time}
    if collection == "app.bsky.feed.post":
        text = " ".join(rng.choices(WORDS, k=rng.randrange(5, 45)))
        return encode(value | {"text": text, "langs": ["en"]})
    if collection == "app.bsky.graph.follow":
        return encode(value | {"subject": plc_did(rng)})
    if collection in COLLECTIONS:
        uri = f"at://{plc_did(rng)}/app.bsky.feed.post/{tid(rng.getrandbits(60))}"
        subject = {"uri": uri, "cid": cid_text(cid_of(rng.randbytes(8)))}
        return encode(value | {"subject": subject})
    return encode(value | {"note": " ".join(rng.choices(WORDS, k=8))})


def path(rng: random.Random, clock: Clock) -> str:
    """A new path in one of the usual collections, with a TID of now as its record key."""
    return f"{rng.choices(COLLECTIONS, WEIGHTS)[0]}/{clock.tid()}"


def stock(rng: random.Random, clock: Clock, count: int) -> list[tuple[str, bytes]]:
    """`count` (path, record block) pairs from the year before the clock's time. Blocks are shared among paths."""
    blocks = {name: [record(rng, name, time=clock.datetime()) for _ in range(8)] for name in COLLECTIONS}
    found: dict[str, bytes] = {}
    while len(found) < count:
        name = rng.choices(COLLECTIONS, WEIGHTS)[0]
        moment = clock.now_microseconds - rng.randrange(1, YEAR_MICROSECONDS)
        found[f"{name}/{tid(moment << 10 | rng.getrandbits(10))}"] = rng.choice(blocks[name])
    return list(found.items())


def writes(rng: random.Random, repo: Repo, *, count: int = 1) -> list[Write]:
    """`count` writes that the repository can take, at distinct paths: mostly creates, some updates and deletes."""
    present = sorted(rng.sample(list(repo.records), k=min(count, len(repo.records))))
    made = []
    for _ in range(count):
        kind = rng.choices(("create", "delete", "update"), (80, 14, 6))[0]
        if kind == "create" or not present:
            fresh = path(rng, repo.clock)
            name = fresh.partition("/")[0]
            made.append(Write("create", fresh, record(rng, name, time=repo.clock.datetime())))
        elif kind == "delete":
            made.append(Write("delete", present.pop()))
        else:
            old = present.pop()
            block = record(rng, old.partition("/")[0], time=repo.clock.datetime() + rng.choice("abc"))
            made.append(Write("update", old, block))
    return made
