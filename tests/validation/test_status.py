"""Asking a host for an account's hosting status: over real sockets, whatever the host answers."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dns.asyncresolver
import pytest
import trio
import trio.testing

from relay.net.dial import Dialer
from relay.net.http_client import HttpClient
from relay.validation.status import HostingStatus, StatusChecker
from tests.world.exchange import NoAnswer, Response, error_response, json_response
from tests.world.pds import FakeHost

METHOD = "com.atproto.sync.getRepoStatus"
PATH = f"/xrpc/{METHOD}"
DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
OTHER = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"


@asynccontextmanager
async def checking(*, memory_seconds: float = 300.0, total_seconds: float = 5.0) -> AsyncIterator[StatusChecker]:
    dialer = Dialer(
        allow_private=True,
        ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        dns_resolver=dns.asyncresolver.Resolver(configure=False),
        attempt_seconds=2.0,
        total_seconds=2.0,
    )
    http = HttpClient(dialer=dialer, user_agent="test", total_seconds=total_seconds, connections_max=4)
    yield StatusChecker(http=http, allow_private=True, memory_seconds=memory_seconds, entries_max=100)
    await http.aclose()


@pytest.fixture
async def host(nursery: trio.Nursery) -> FakeHost:
    host = await FakeHost.open()
    await nursery.start(host.serve)
    return host


def says(**fields: object) -> Response:
    return json_response(200, {"did": DID} | fields)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (says(active=True), HostingStatus(True, "")),
        (says(active=True, status="throttled", rev="3l"), HostingStatus(True, "throttled")),
        (says(active=False), HostingStatus(False, "")),
        (says(active=False, status="deactivated"), HostingStatus(False, "deactivated")),
        (says(active=False, status=7), HostingStatus(False, "")),
        (says(active=False, status="é" * 32), HostingStatus(False, "é" * 32)),
        (says(active=False, status="é" * 33), HostingStatus(False, "")),
        (says(), None),
        (says(active="true"), None),
        (json_response(200, {"did": OTHER, "active": True}), None),
        (json_response(200, [DID]), None),
        (Response(200, b"{"), None),
        (Response(200, b" " * 20_000 + b"{}"), None),
        (json_response(404, {"did": DID, "active": True}), None),
        (error_response(400, "RepoNotFound"), None),
        (Response(302, headers=(("Location", "http://localhost:1/"),)), None),
        (NoAnswer(), None),
    ],
)
async def test_answers(host: FakeHost, answer: Response | NoAnswer, status: HostingStatus | None) -> None:
    host.answers[METHOD] = answer
    async with checking(total_seconds=0.2 if isinstance(answer, NoAnswer) else 5.0) as checker:
        assert await checker.check(host.name, DID) == status


async def test_a_host_that_is_down() -> None:
    host = await FakeHost.open()
    async with trio.open_nursery() as nursery:
        await nursery.start(host.serve)
        nursery.cancel_scope.cancel()
    async with checking() as checker:
        assert await checker.check(host.name, DID) is None


@pytest.mark.parametrize("answer", [says(active=False, status="takendown"), Response(500)])
async def test_inactive_and_no_answer_are_remembered_for_a_while(host: FakeHost, answer: Response) -> None:
    host.answers[METHOD] = answer
    async with checking(memory_seconds=0.1) as checker:
        first = await checker.check(host.name, DID)
        host.answers[METHOD] = says(active=True)
        assert await checker.check(host.name, DID) == first
        assert host.requests[PATH] == 1
        with trio.fail_after(5):
            while await checker.check(host.name, DID) == first:
                await trio.sleep(0.01)
        assert await checker.check(host.name, DID) == HostingStatus(True, "")


async def test_no_answer_is_no_fact_for_long(host: FakeHost, mock_clock: trio.testing.MockClock) -> None:
    """A host that was down for a moment is asked again after seconds, one that said "inactive" after minutes."""
    async with checking() as checker:
        for answer, seconds in ((Response(500), 5.0), (says(active=False), 300.0)):
            host.answers[METHOD] = answer
            first = await checker.check(host.name, DID)
            host.requests.clear()
            mock_clock.jump(seconds - 0.1)
            assert await checker.check(host.name, DID) == first
            assert not host.requests
            mock_clock.jump(0.2)
            assert await checker.check(host.name, DID) == first
            assert host.requests[PATH] == 1
            mock_clock.jump(seconds + 0.1)


async def test_active_is_not_remembered_and_accounts_are_kept_apart(host: FakeHost) -> None:
    host.answers[METHOD] = says(active=True)
    async with checking() as checker:
        for _ in range(2):
            assert await checker.check(host.name, DID) == HostingStatus(True, "")
        assert host.requests[PATH] == 2
        assert await checker.check(host.name, OTHER) is None
        assert await checker.check(host.name, DID) == HostingStatus(True, "")
