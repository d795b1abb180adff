"""A resolver over a directory on loopback that counts what it is asked."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from relay.identity.cache import IdentityCache
from relay.identity.document import Identity
from relay.identity.failure import DirectoryUnavailable, IdentityFailure
from relay.identity.limits import ResolverLimits
from relay.identity.plc import PlcDirectory
from relay.identity.resolver import Resolver
from relay.identity.web import WebHosts
from relay.net.dial import Dialer
from relay.net.http_client import HttpClient
from tests.identity.documents import document_bytes
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
