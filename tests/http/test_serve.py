"""The server under the HTTP port: limits against clients that are slow, silent or too large."""

import socket
from contextlib import suppress

import httpx
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from relay.eventlog.errors import StoreError
from relay.http.xrpc import BODY_BYTES_MAX
from tests.http.conftest import Port, serving


async def connect(url: str) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))


async def read_to_end(stream: trio.SocketStream) -> bytes:
    received = b""
    with trio.fail_after(10):
        try:
            async for chunk in stream:
                received += chunk
        except trio.BrokenResourceError:
            pass  # closed with our bytes unread
    return received


async def test_many_requests_on_one_connection(port: Port) -> None:
    async with serving(port.public()) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        for _ in range(20):
            assert (await client.get("/_health")).status_code == 200


async def test_silent_and_idle_connections_are_closed(port: Port) -> None:
    async with serving(port.public(), idle_seconds=0.2) as url:
        async with await connect(url) as silent:
            assert await read_to_end(silent) == b""
        async with await connect(url) as half:
            await half.send_all(b"GET /_health HTTP/1.1\r\nHost: a\r\nX-Slow: ")
            assert await read_to_end(half) == b""
        async with await connect(url) as idle:
            await idle.send_all(b"GET /_health HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await read_to_end(idle)).startswith(b"HTTP/1.1 200")


async def test_long_heads_are_refused(port: Port) -> None:
    async with serving(port.public()) as url, await connect(url) as stream:
        await stream.send_all(b"GET /_health HTTP/1.1\r\nHost: a\r\nX-Long: " + b"x" * 20_000)
        assert (await read_to_end(stream)).startswith(b"HTTP/1.1 431")


async def test_garbage_is_refused_and_the_server_goes_on(port: Port) -> None:
    async with serving(port.public()) as url:
        async with await connect(url) as stream:
            await stream.send_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n")
            assert (await read_to_end(stream)).startswith(b"HTTP/1.1 400")
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            assert (await client.get("/_health")).status_code == 200


async def test_endless_bodies_are_cut_and_leave_nothing_behind(port: Port) -> None:
    head = b"POST /xrpc/com.atproto.sync.requestCrawl HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n"
    async with serving(port.public()) as url:
        await wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(5):
            async with await connect(url) as stream:
                await stream.send_all(head)
                with suppress(trio.BrokenResourceError), trio.fail_after(5):
                    while True:
                        await stream.send_all(b"x" * BODY_BYTES_MAX)
        with trio.fail_after(5):
            while trio.lowlevel.current_statistics().tasks_living > before:
                await wait_all_tasks_blocked(0.01)
    assert port.crawler.asked == []


async def test_a_client_that_does_not_read_cannot_hold_up_shutdown(port: Port) -> None:
    for number in range(1000):
        port.accounts.add(f"did:plc:{number:024}")
    request = b"GET /xrpc/com.atproto.sync.listRepos?limit=1000 HTTP/1.1\r\nHost: a\r\n\r\n"
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        started = trio.current_time()
        async with serving(port.public(), idle_seconds=0.5, graceful_seconds=0.1) as url:
            deaf.connect(("127.0.0.1", int(url.rpartition(":")[2])))
            deaf.sendall(request * 200)
            await wait_all_tasks_blocked(0.2)
        assert trio.current_time() - started < 10


async def test_slow_bodies_are_given_up(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.http.xrpc.BODY_SECONDS_MAX", 0.1)
    async with serving(port.public()) as url, await connect(url) as stream:
        await stream.send_all(
            b'POST /xrpc/com.atproto.sync.requestCrawl HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{"host'
        )
        answer = await read_to_end(stream)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"RequestTimeout"' in answer


async def test_corruption_of_our_own_ends_the_server(port: Port) -> None:
    with pytest.RaisesGroup(StoreError, flatten_subgroups=True):
        async with serving(port.public()) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
            with suppress(httpx.TransportError):
                await client.get("/xrpc/com.atproto.sync.getRepoStatus?did=did:plc:corrupt")
            await trio.sleep_forever()
