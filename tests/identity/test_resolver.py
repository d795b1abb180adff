"""Resolution over real HTTP: a directory and web hosts on loopback that count what they are asked."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial

import pytest
import trio
import trio.testing

from relay.identity.cache import IdentityCache
from relay.identity.document import Identity
from relay.identity.failure import DirectoryUnavailable, IdentityFailure, IdentityNotFound, InvalidIdentity
from relay.identity.limits import ResolverLimits
from relay.identity.plc import PlcDirectory
from relay.identity.resolver import Resolver
from relay.identity.web import WebHosts, document_url
from relay.net.dial import Dialer
from relay.net.http_client import HttpClient
from tests.identity.documents import document_bytes, key
from tests.identity.family import DictFamily
from tests.net.loopback import HttpServer, Request, Stream, reply, serve_dns, serve_http

LIMITS = ResolverLimits(
    look_up_spacing_seconds=0.05, pause_seconds=0.2, ahead_concurrency=1, directory_per_second=10_000
)
HOUR = 3600.0


def did(number: int) -> str:
    return "did:plc:" + f"{number:024}".translate(str.maketrans("0189", "abcd"))


@dataclass(slots=True)
class FakeDirectory:
    """Answers /{did} from `raw` (whole responses) or `secrets` (documents with that key); else 404."""

    raw: dict[str, bytes] = field(default_factory=dict)
    secrets: dict[str, int] = field(default_factory=dict)
    held: trio.Event | None = None
    asked: trio.Event = field(default_factory=trio.Event)

    async def handle(self, request: Request, stream: Stream) -> None:
        self.asked.set()
        one = request.target.removeprefix("/")
        answer = self._answer(one)
        if self.held is not None:
            await self.held.wait()
        await stream.send_all(answer)

    def _answer(self, one: str) -> bytes:
        if one in self.raw:
            return self.raw[one]
        if one in self.secrets:
            return reply(200, document_bytes(one, secret=self.secrets[one]), Content_Type="application/did+ld+json")
        return reply(404, b'{"message":"DID not registered"}')


@dataclass(slots=True)
class Rig:
    """A resolver, the directory behind it, and what both can be told."""

    resolver: Resolver
    directory: FakeDirectory
    server: HttpServer
    family: DictFamily
    clock: list[float]
    again: Callable[[], Resolver]


@asynccontextmanager
async def rig(
    *, limits: ResolverLimits = LIMITS, allow_private: bool = True, url: str | None = None, total_seconds: float = 5.0
) -> AsyncIterator[Rig]:
    directory, family, clock = FakeDirectory(), DictFamily(), [1_700_000_000.0]
    async with serve_http(directory.handle) as server, serve_dns({"pds.example.com": ["127.0.0.1"]}) as dns_resolver:
        clients = [
            HttpClient(
                dialer=Dialer(
                    allow_private=private,
                    ssl_context=ssl.create_default_context(),
                    dns_resolver=dns_resolver,
                    attempt_seconds=5.0,
                    total_seconds=5.0,
                ),
                user_agent="atproto-relay/test",
                total_seconds=total_seconds,
                connections_max=50,
            )
            for private in (True, allow_private)
        ]

        def build() -> Resolver:
            return Resolver(
                plc=PlcDirectory(url=url or server.url, http=clients[0], limits=limits),
                web=WebHosts(http=clients[1], allow_private=allow_private, limits=limits),
                cache=IdentityCache(family=family, entries_max=100),
                limits=limits,
                clock=lambda: clock[0],
                allow_private=allow_private,
            )

        yield Rig(build(), directory, server, family, clock, build)
        for client in clients:
            await client.aclose()


async def gather(calls: Sequence[Callable[[], Awaitable[Identity]]]) -> list[object]:
    """The results or failures of concurrent calls, in order."""
    results: list[object] = [None] * len(calls)

    async def one(index: int) -> None:
        try:
            results[index] = await calls[index]()
        except (IdentityFailure, DirectoryUnavailable) as failure:
            results[index] = failure

    async with trio.open_nursery() as nursery:
        for index in range(len(calls)):
            nursery.start_soon(one, index)
    return results


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
    """No second request until the memory ends; a refresh asks all the same, and its success clears the memory."""
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


async def test_a_did_that_ends_is_forgotten() -> None:
    """After a definitive answer the cached identity no longer serves; a temporary failure leaves it."""
    async with rig() as r:
        r.directory.secrets[did(1)] = 1
        identity = await r.resolver.resolve(did(1))
        r.directory.raw[did(1)] = reply(500)
        with pytest.raises(DirectoryUnavailable):
            await r.resolver.refresh(did(1))
        assert r.resolver.cached(did(1)) is identity
        r.directory.raw[did(1)] = reply(404)
        with pytest.raises(IdentityNotFound):
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


async def test_look_ups_keep_the_rate() -> None:
    """Beyond the burst, look-ups follow each other at the rate."""
    async with rig(limits=replace(LIMITS, directory_per_second=50, directory_burst=5)) as r:
        began = trio.current_time()
        await gather([partial(r.resolver.resolve, did(number)) for number in range(15)])
        assert trio.current_time() - began >= 10 / 50
        assert len(r.server.requests) == 15


async def test_look_ups_keep_the_concurrency() -> None:
    """No more than `directory_concurrency` requests are open at once."""
    async with rig(limits=replace(LIMITS, directory_concurrency=3)) as r:
        r.directory.held = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gather, [partial(r.resolver.resolve, did(number)) for number in range(9)])
            with trio.fail_after(5):
                while len(r.server.requests) < 3:
                    await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            assert len(r.server.requests) == 3
            assert r.resolver.in_flight == 9
            r.directory.held.set()
        assert len(r.server.requests) == 9


@pytest.mark.parametrize(
    "raw",
    [
        reply(500),
        reply(403),
        reply(301, Location="/elsewhere"),
        b"HTTP/1.1 200 OK\r\ncontent-length: nonsense\r\n\r\n",
    ],
)
async def test_whose_failure_it_is(raw: bytes) -> None:
    """Alone, a failure is the directory's; once the directory answers for others, it is the DID's own."""
    async with rig() as r:
        r.directory.raw[did(1)] = raw
        with pytest.raises(DirectoryUnavailable):
            await r.resolver.resolve(did(1))
        with pytest.raises(IdentityNotFound):
            await r.resolver.resolve(did(2))
        with pytest.raises(IdentityFailure) as caught:
            await r.resolver.resolve(did(1))
        assert type(caught.value) is IdentityFailure
        assert r.server.targets == [f"/{did(1)}", f"/{did(2)}", f"/{did(1)}"]


async def test_a_directory_that_is_down() -> None:
    """Nobody listens: never a DID's own failure, and nothing is remembered of the DID."""
    async with rig(url="http://127.0.0.9:9") as r:
        for failure in await gather([partial(r.resolver.resolve, did(number)) for number in range(5)]):
            assert type(failure) is DirectoryUnavailable
        assert r.resolver.outcomes == {"DirectoryUnavailable": 5}


async def test_a_directory_that_is_silent() -> None:
    """No answer ends at the client's total time-out."""
    async with rig(total_seconds=0.1) as r:
        r.directory.held = trio.Event()
        with trio.fail_after(5), pytest.raises(DirectoryUnavailable):
            await r.resolver.resolve(did(1))
        r.directory.held.set()


def _http_date() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)


@pytest.mark.parametrize(
    ("raw", "least", "most"),
    [
        (lambda: reply(429, Retry_After="7"), 6, 7),
        (lambda: reply(429), 0, 0.2),
        (lambda: reply(429, Retry_After="soon"), 0, 0.2),
        (lambda: reply(429, Retry_After="999999999999999"), 299, 300),
        (lambda: reply(503, Retry_After="7"), 6, 7),
        (lambda: reply(429, Retry_After=_http_date()), 90, 100),
    ],
)
async def test_retry_after_pauses_the_whole_directory(raw: Callable[[], bytes], least: float, most: float) -> None:
    """Nothing more is asked during the pause; callers learn when to come back."""
    async with rig() as r:
        r.directory.secrets[did(2)] = 1
        r.directory.raw[did(1)] = raw()
        for number in (1, 2):
            with pytest.raises(DirectoryUnavailable) as caught:
                await r.resolver.resolve(did(number))
            assert least < caught.value.retry_seconds <= most
        assert r.server.targets == [f"/{did(1)}"]


async def test_the_pause_ends() -> None:
    """Afterwards look-ups go on."""
    async with rig() as r:
        r.directory.raw[did(1)] = reply(429)
        r.directory.secrets[did(2)] = 1
        with pytest.raises(DirectoryUnavailable) as caught:
            await r.resolver.resolve(did(1))
        await trio.sleep(caught.value.retry_seconds)
        assert (await r.resolver.resolve(did(2))).key == key(1)


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


@pytest.mark.parametrize(
    ("text", "allow_private", "url"),
    [
        ("did:web:pds.example.com", False, "https://pds.example.com/.well-known/did.json"),
        ("did:web:pds.example.com", True, "https://pds.example.com/.well-known/did.json"),
        ("did:web:localhost%3A2583", True, "http://localhost:2583/.well-known/did.json"),
        ("did:web:127.0.0.1%3A2583", True, "http://127.0.0.1:2583/.well-known/did.json"),
    ],
)
def test_where_a_did_web_is(text: str, allow_private: bool, url: str) -> None:
    """https, save for local names in a closed network."""
    assert document_url(text, allow_private=allow_private) == url


async def serve_did_web(request: Request, stream: Stream) -> None:
    port = request.headers["host"].rpartition(":")[2]
    one = f"did:web:localhost%3A{port}"
    await stream.send_all(reply(200, document_bytes(one, pds=f"http://localhost:{port}")))


async def test_did_web_on_localhost() -> None:
    """Over http, with a port, where private hosts are allowed."""
    async with rig() as r, serve_http(serve_did_web) as host:
        one = f"did:web:localhost%3A{host.port}"
        identity = await r.resolver.resolve(one)
        assert (identity.did, identity.host) == (one, f"localhost:{host.port}")
        assert r.resolver.cached(one) is identity
        assert host.targets == ["/.well-known/did.json"]


@pytest.mark.parametrize(
    ("raw", "failure"),
    [
        (reply(404), IdentityNotFound),
        (reply(410), IdentityNotFound),
        (reply(500), IdentityFailure),
        (reply(429), IdentityFailure),
        (reply(302, Location="http://127.0.0.1/"), IdentityFailure),
        (reply(200, b"x" * 70_000), InvalidIdentity),
        (reply(200, b"{}"), InvalidIdentity),
        (b"nonsense\r\n\r\n", IdentityFailure),
    ],
)
async def test_did_web_failures_are_its_own(raw: bytes, failure: type[IdentityFailure]) -> None:
    """A failing web host never looks like a failing directory."""

    async def answer(request: Request, stream: Stream) -> None:
        await stream.send_all(raw)

    async with rig() as r, serve_http(answer) as host:
        with pytest.raises(IdentityFailure) as caught:
            await r.resolver.resolve(f"did:web:localhost%3A{host.port}")
        assert type(caught.value) is failure
        assert len(host.requests) == 1


async def test_did_web_on_a_dead_host() -> None:
    """Nobody listens: the DID's own failure, which may pass."""
    async with rig() as r:
        with pytest.raises(IdentityFailure) as caught:
            await r.resolver.resolve("did:web:127.0.0.9%3A9")
        assert type(caught.value) is IdentityFailure


async def test_did_web_is_guarded() -> None:
    """A public name that resolves to loopback is refused; one that does not exist is no identity."""
    async with rig(allow_private=False) as r:
        with pytest.raises(InvalidIdentity, match="not public"):
            await r.resolver.resolve("did:web:pds.example.com")
        with pytest.raises(IdentityNotFound):
            await r.resolver.resolve("did:web:absent.example.com")
