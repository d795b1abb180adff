"""Resolution over real HTTP: flights, memory and age."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import pytest
import trio
import trio.testing

from relay.identity.document import Identity
from relay.identity.failure import DirectoryUnavailable, IdentityFailure, IdentityNotFound, InvalidIdentity
from tests.identity.documents import document_bytes, key
from tests.identity.rig import HOUR, LIMITS, did, gather, rig
from tests.net.loopback import reply


async def test_resolve_then_cached() -> None:
    """One look-up serves all later events, and a later process."""
    async with rig() as r:
        r.directory.secrets[did(1)] = 1
        assert r.resolver.cached(did(1)) is None
        identity = await r.resolver.resolve(did(1))
        assert identity == Identity(did(1), key(1), "pds.example.com", "alice.example.com", r.clock[0])
        assert await r.resolver.resolve(did(1)) is identity
        assert r.resolver.cached(did(1)) is identity
        assert r.again().cached(did(1)) == identity
        assert r.server.targets == [f"/{did(1)}"]
        assert r.resolver.outcomes == {"found": 1}


async def test_concurrent_calls_share_a_flight() -> None:
    """Many callers, one request; failures are shared too, each as an exception of its own."""
    async with rig() as r:
        r.directory.secrets[did(1)] = 1
        found = await gather([partial(r.resolver.resolve, did(1))] * 20)
        absent = await gather([partial(r.resolver.refresh, did(2))] * 20)
        assert {id(one) for one in found} == {id(r.resolver.cached(did(1)))}
        assert {type(one) for one in absent} == {IdentityNotFound}
        assert len({id(one) for one in absent}) == 20
        assert r.server.targets == [f"/{did(1)}", f"/{did(2)}"]
        assert r.resolver.in_flight == 0


async def test_a_cancelled_leader_hands_over() -> None:
    """A caller that gives up does not take the others' look-up with it."""
    async with rig() as r:
        r.directory.secrets[did(1)] = 1
        r.directory.held = trio.Event()
        results: list[object] = []

        async def follower() -> None:
            results.append(await r.resolver.resolve(did(1)))

        async with trio.open_nursery() as nursery:
            leader = trio.CancelScope()

            async def lead() -> None:
                with leader:
                    await r.resolver.resolve(did(1))

            nursery.start_soon(lead)
            await r.directory.asked.wait()
            nursery.start_soon(follower)
            await trio.testing.wait_all_tasks_blocked()
            leader.cancel()
            r.directory.held.set()
        assert results == [r.resolver.cached(did(1))]
        assert len(r.server.requests) == 2


async def test_refresh_sees_a_rotated_key() -> None:
    """A refresh asks again though the cache is fresh, and everybody sees the new key, the next process included."""
    async with rig() as r:
        r.directory.secrets[did(1)] = 1
        await r.resolver.resolve(did(1))
        r.directory.secrets[did(1)] = 2
        assert (await r.resolver.resolve(did(1))).key == key(1)
        assert (await r.resolver.refresh(did(1))).key == key(2)
        for resolver in (r.resolver, r.again()):
            cached = resolver.cached(did(1))
            assert cached is not None
            assert cached.key == key(2)


async def test_refresh_does_not_trust_a_look_up_that_began_before_it() -> None:
    """The key rotated while a look-up was under way: its stale answer is not what a refresh gives."""
    async with rig() as r:
        r.directory.secrets[did(1)] = 1
        r.directory.held = trio.Event()
        results: dict[str, Identity] = {}

        async def call(name: str, method: Callable[[str], Awaitable[Identity]]) -> None:
            results[name] = await method(did(1))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, "resolve", r.resolver.resolve)
            await r.directory.asked.wait()
            r.directory.secrets[did(1)] = 2
            for name in ("a", "b", "c"):
                nursery.start_soon(call, name, r.resolver.refresh)
            await trio.testing.wait_all_tasks_blocked()
            r.directory.held.set()
        assert results["resolve"].key == key(1)
        assert {results[name].key.compressed for name in "abc"} == {key(2).compressed}
        assert len(r.server.requests) == 2


async def test_look_ups_of_one_did_are_spaced() -> None:
    """Refreshes that follow each other closely wait, and those that wait share one look-up."""
    async with rig(limits=replace(LIMITS, look_up_spacing_seconds=0.3)) as r:
        r.directory.secrets[did(1)] = 1
        began = trio.current_time()
        await r.resolver.resolve(did(1))
        await gather([partial(r.resolver.refresh, did(1))] * 10)
        assert trio.current_time() - began >= 0.3
        assert len(r.server.requests) == 2


@pytest.mark.parametrize("status", [404, 410])
async def test_absent_dids_are_remembered_for_a_while(status: int) -> None:
    """No second request until the memory ends; a refresh asks all the same, and its success is what counts."""
    async with rig(limits=replace(LIMITS, absent_seconds=0.5)) as r:
        r.directory.raw[did(1)] = reply(status)
        for _ in range(3):
            with pytest.raises(IdentityNotFound):
                await r.resolver.resolve(did(1))
        assert len(r.server.requests) == 1
        with pytest.raises(IdentityNotFound):
            await r.resolver.refresh(did(1))
        assert len(r.server.requests) == 2
        await trio.sleep(0.51)
        with pytest.raises(IdentityNotFound):
            await r.resolver.resolve(did(1))
        assert len(r.server.requests) == 3
        r.directory.raw.clear()
        r.directory.secrets[did(1)] = 1
        await r.resolver.refresh(did(1))
        assert (await r.resolver.resolve(did(1))).key == key(1)


async def test_memory_of_absent_dids_is_bounded() -> None:
    """The oldest is forgotten, not the newest."""
    async with rig(limits=replace(LIMITS, absent_entries_max=2)) as r:
        for number in (1, 2, 3, 3, 1):
            with pytest.raises(IdentityNotFound):
                await r.resolver.resolve(did(number))
        assert r.server.targets == [f"/{did(number)}" for number in (1, 2, 3, 1)]


@pytest.mark.parametrize(
    ("raw", "failure"),
    [
        (reply(404), IdentityNotFound),
        (reply(410), IdentityNotFound),
        (reply(200, b"{}"), InvalidIdentity),
        (reply(200, b"x" * 70_000), InvalidIdentity),
    ],
)
async def test_a_did_that_ends_is_forgotten(raw: bytes, failure: type[IdentityFailure]) -> None:
    """After a definitive answer the cached identity no longer serves; a temporary failure leaves it."""
    async with rig() as r:
        r.directory.secrets[did(1)] = 1
        identity = await r.resolver.resolve(did(1))
        r.directory.raw[did(1)] = reply(500)
        with pytest.raises(DirectoryUnavailable):
            await r.resolver.refresh(did(1))
        assert r.resolver.cached(did(1)) is identity
        r.directory.raw[did(1)] = raw
        with pytest.raises(failure):
            await r.resolver.refresh(did(1))
        assert r.resolver.cached(did(1)) is None
        assert not r.family


async def test_purge_forgets_the_cached_and_the_absent() -> None:
    """In memory and on disk; and a look-up under way does not bring the old answer back."""
    async with rig() as r:
        r.directory.secrets[did(1)] = 1
        await r.resolver.resolve(did(1))
        r.resolver.purge(did(1))
        assert r.resolver.cached(did(1)) is None
        assert not r.family

        r.directory.held, r.directory.asked = trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(r.resolver.resolve, did(1))
            await r.directory.asked.wait()
            r.resolver.purge(did(1))
            r.directory.held.set()
        assert r.resolver.cached(did(1)) is None

        with pytest.raises(IdentityNotFound):
            await r.resolver.resolve(did(2))
        r.directory.secrets[did(2)] = 2
        r.resolver.purge(did(2))
        assert (await r.resolver.resolve(did(2))).key == key(2)


async def test_identities_have_a_hard_age() -> None:
    """Beyond 24 hours, or from a future that a wrong clock made, an identity is not given out."""
    async with rig() as r:
        r.directory.secrets[did(1)] = 1
        identity = await r.resolver.resolve(did(1))
        fetched = r.clock[0]
        r.clock[0] = fetched + 24 * HOUR - 1
        assert r.resolver.cached(did(1)) is identity
        r.clock[0] = fetched - 60
        assert r.resolver.cached(did(1)) is identity
        for wrong in (fetched + 24 * HOUR, fetched - 2 * HOUR):
            r.clock[0] = wrong
            assert r.resolver.cached(did(1)) is None
        renewed = await r.resolver.resolve(did(1))
        assert renewed.fetched_at == r.clock[0]
        assert len(r.server.requests) == 2


async def test_used_identities_are_renewed_ahead_of_their_age() -> None:
    """Not before 12 hours, for all by 20; once, in the background, though events keep coming."""
    async with rig() as r, trio.open_nursery() as nursery:
        nursery.start_soon(r.resolver.run)
        for number in range(8):
            r.directory.secrets[did(number)] = 1
            await r.resolver.resolve(did(number))
        asked = len(r.server.requests)
        r.clock[0] += 12 * HOUR - 1
        assert all(r.resolver.cached(did(number)) for number in range(8))
        await trio.testing.wait_all_tasks_blocked()
        assert len(r.server.requests) == asked
        r.clock[0] += 8 * HOUR + 1
        for number in range(8):
            r.directory.secrets[did(number)] = 2
        with trio.fail_after(5):
            while {identity.key.compressed for one in map(did, range(8)) if (identity := r.resolver.cached(one))} != {
                key(2).compressed
            }:
                await trio.lowlevel.checkpoint()
        assert len(r.server.requests) == asked + 8
        nursery.cancel_scope.cancel()


async def test_failed_renewals_are_not_repeated_at_every_event() -> None:
    """While the identity serves, one attempt is enough for a quarter of an hour."""
    async with rig() as r, trio.open_nursery() as nursery:
        nursery.start_soon(r.resolver.run)
        r.directory.secrets[did(1)] = 1
        r.directory.secrets[did(2)] = 1
        for number in (1, 2):
            await r.resolver.resolve(did(number))
        r.directory.raw[did(1)] = reply(500)
        r.clock[0] += 21 * HOUR
        with trio.fail_after(5):
            while len(r.server.requests) < 4:
                r.resolver.cached(did(1))
                r.resolver.cached(did(2))
                await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(r.server.targets[2:]) == sorted([f"/{did(1)}", f"/{did(2)}"])
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "raw",
    [
        reply(200, b"<html>"),
        reply(200, document_bytes(did(2))),
        reply(200, document_bytes(did(1), pds="https://10.0.0.1/x")),
        reply(200, b"x" * 70_000),
    ],
)
async def test_bad_documents_are_the_dids_own_failure(raw: bytes) -> None:
    """Not JSON, another's, without a PDS that may be spoken to, or too large."""
    async with rig() as r:
        r.directory.raw[did(1)] = raw
        with pytest.raises(InvalidIdentity):
            await r.resolver.resolve(did(1))


@pytest.mark.parametrize(
    "text",
    [
        "did:key:zQ3sh",
        "did:plc:short",
        "did:plc:AAAAAAAAAAAAAAAAAAAAAAAA",
        "did:plc:" + "a" * 25,
        "",
        "did:web:",
        "did:web:example.com:path",
        "did:web:Example.com",
        "did:web:10.0.0.1",
        "did:web:localhost",
        "did:web:a.local",
        "did:web:example.com%3A8443",
        "did:web:example.com%3a443",
        "did:web:user@example.com",
        "did:web:example.com/x",
    ],
)
async def test_unsupported_dids_need_no_look_up(text: str) -> None:
    """Other methods and malformed or private ones fail at once, each as the DID's own failure."""
    async with rig(allow_private=False) as r:
        with pytest.raises(InvalidIdentity):
            await r.resolver.resolve(text)
        assert r.server.connections == 0
