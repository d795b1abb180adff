"""Heads, routing and plain requests, over real sockets."""

import logging
from ipaddress import ip_network

import httpx
import pytest
import trio

from relay.firehose.subscribe_repos import PATH
from tests.firehose.list_log import seq_of
from tests.firehose.port import LOOPBACK, SERVER_NAME, UPGRADE, Settings, running


async def test_plain_requests_are_answered_by_the_application() -> None:
    """Any method and path, with query and body, many on one connection."""
    async with running() as port, httpx.AsyncClient(base_url=port.http_url, timeout=10) as client:
        response = await client.get("/xrpc/com.atproto.sync.listRepos", params={"limit": "5"})
        assert (response.status_code, response.text) == (
            200,
            "GET /xrpc/com.atproto.sync.listRepos limit=5 127.0.0.1",
        )
        assert response.headers["server"] == SERVER_NAME
        assert "date" in response.headers
        assert (await client.post("/echo", content=b"x" * 300_000)).text == "x" * 300_000
        assert (await client.head("/some%20where")).text == ""
        assert (await client.get("/some%20where")).text.startswith("GET /some where ")


async def test_a_connection_is_kept_and_may_then_be_upgraded() -> None:
    """As reverse proxies do it: requests, a pipelined one, then the stream, all on one connection."""
    async with running() as port:
        client = await port.dial()
        two = await client.request(
            "GET /one HTTP/1.1\r\nHost: relay\r\n\r\nPOST /echo HTTP/1.1",
            "Host: relay\r\nContent-Length: 3\r\n",
            "two",
        )
        assert await client.body(two) == b"GET /one  127.0.0.1"
        assert await client.body(await client.head()) == b"two"
        head = await client.request(f"GET {PATH}?cursor=0 HTTP/1.1", UPGRADE)
        assert head.startswith("HTTP/1.1 101 ")
        port.log.append(1)
        assert seq_of(await client.message()) == 1


async def test_frames_right_behind_the_head_are_not_lost() -> None:
    """A client may speak before it has read the 101."""
    async with running() as port:
        client = await port.dial()
        ping = "\x89\x80\x01\x02\x03\x04"
        head = await client.request(f"GET {PATH} HTTP/1.1", UPGRADE, ping)
        assert head.startswith("HTTP/1.1 101 ")
        received = await client.frame()
        assert (received.opcode, received.payload) == (0xA, b"")


@pytest.mark.parametrize(
    ("line", "headers", "status", "header"),
    [
        (f"POST {PATH} HTTP/1.1", UPGRADE, 405, "allow: get"),
        (f"GET {PATH} HTTP/1.1", "Host: relay\r\n", 426, "upgrade: websocket"),
        (f"GET {PATH}?cursor=0 HTTP/1.1", "Host: relay\r\nUpgrade: h2c\r\nConnection: upgrade\r\n", 426, "upgrade"),
        (f"GET {PATH} HTTP/1.0", UPGRADE, 426, "upgrade: websocket"),
        (f"GET {PATH} HTTP/1.1", UPGRADE.replace("Version: 13", "Version: 8"), 400, "sec-websocket-version: 13"),
        (f"GET {PATH} HTTP/1.1", UPGRADE.replace("Sec-WebSocket-Version: 13\r\n", ""), 400, ""),
        (f"GET {PATH} HTTP/1.1", UPGRADE.replace("Sec-WebSocket-Key", "Other"), 400, ""),
        (f"GET {PATH} HTTP/1.1", UPGRADE + "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", 400, ""),
        (f"GET {PATH} HTTP/1.1", UPGRADE.replace("Sec-WebSocket-Key: ", "Sec-WebSocket-Key: x"), 400, ""),
        (f"GET {PATH} HTTP/1.1", UPGRADE + "Content-Length: 5\r\n", 400, ""),
        (f"GET {PATH} HTTP/1.1", UPGRADE.replace("Host: relay\r\n", ""), 400, ""),
        ("nonsense", "", 400, ""),
    ],
)
async def test_bad_heads(line: str, headers: str, status: int, header: str) -> None:
    """An XRPC error, our name, and the end of the connection; no consumer is counted."""
    async with running() as port:
        client = await port.dial()
        head = await client.request(line, headers, "12345" if "Content-Length" in headers else "")
        assert head.startswith(f"HTTP/1.1 {status} "), head
        assert header in head.lower()
        assert f"server: {SERVER_NAME}" in head.lower()
        assert b'"error": ' in await client.body(head)
        assert await client.eof()
        assert not len(port.consumers)


@pytest.mark.parametrize(("size", "accepted"), [(900_000, True), (3_000_000, False)])
async def test_a_head_may_have_a_megabyte(size: int, accepted: bool) -> None:
    """Jetstream's options travel in the query; beyond the limit it is 431, which the client gets to read."""
    async with running() as port:
        client = await port.dial()
        head = await client.request(f"GET {PATH}?did={'x' * size} HTTP/1.1", UPGRADE)
        assert head.startswith("HTTP/1.1 101 " if accepted else "HTTP/1.1 431 "), head


async def test_a_slow_head_is_cut_off() -> None:
    """The deadline is for the whole head: one byte now and then does not move it."""
    async with running(Settings(head_seconds=0.2)) as port:
        client = await port.dial()
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:

                async def drip() -> None:
                    for byte in b"GET / HTTP/1.1\r\nHost: relay\r\n" * 1000:
                        await client.stream.send_all(bytes([byte]))
                        await trio.testing.wait_all_tasks_blocked(0.005)

                nursery.start_soon(drip)
                assert await client.eof()
                nursery.cancel_scope.cancel()


async def test_an_idle_connection_is_cut_off() -> None:
    """A kept connection has its own deadline."""
    async with running(Settings(idle_seconds=0.1)) as port:
        client = await port.dial()
        await client.body(await client.request("GET / HTTP/1.1"))
        with trio.fail_after(5):
            assert await client.eof()


async def test_a_failing_application_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the next request is answered."""
    async with running() as port:
        client = await port.dial()
        head = await client.request("GET /fail HTTP/1.1")
        assert head.startswith("HTTP/1.1 500 ")
        assert "RuntimeError: as asked" in caplog.text
        assert (await client.body(head)) == b""
        assert (await client.request("GET /x HTTP/1.1")).startswith("HTTP/1.1 200 ")


async def test_an_application_that_waits_for_ever_is_cut_off() -> None:
    """A body that never comes ends with the request's deadline."""
    async with running(Settings(request_seconds=0.1)) as port:
        client = await port.dial()
        await client.stream.send_all(b"POST /echo HTTP/1.1\r\nHost: relay\r\nContent-Length: 10\r\n\r\n12345")
        with trio.fail_after(5):
            assert await client.eof()


async def test_expect_continue() -> None:
    """The client is told to go on once the application asks for the body."""
    async with running() as port:
        client = await port.dial()
        headers = "Host: relay\r\nContent-Length: 2\r\nExpect: 100-continue\r\n"
        assert (await client.request("POST /echo HTTP/1.1", headers)).startswith("HTTP/1.1 100 ")
        await client.stream.send_all(b"ok")
        assert await client.body(await client.head()) == b"ok"


async def test_connections_are_limited() -> None:
    """One too many is closed at once; a freed place can be taken."""
    async with running(Settings(connections_max=2)) as port:
        clients = [await port.dial() for _ in range(2)]
        for client in clients:
            await client.body(await client.request("GET / HTTP/1.1"))
        assert await (await port.dial()).eof()
        await clients[0].stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.05)
        again = await port.dial()
        assert await again.body(await again.request("GET / HTTP/1.1"))


async def test_forwarded_address_is_believed_from_trusted_proxies_only() -> None:
    """The application sees the client's address."""
    for trusted, expected in (((), "127.0.0.1"), (LOOPBACK, "192.0.2.7")):
        async with running(Settings(trusted_proxies=trusted)) as port:
            client = await port.dial()
            headers = "Host: relay\r\nX-Forwarded-For: 203.0.113.9, 192.0.2.7\r\n"
            body = await client.body(await client.request("GET / HTTP/1.1", headers))
            assert body.decode().split()[-1] == expected


async def test_clients_that_vanish_do_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    """Resets before, in and after the head."""
    async with running() as port:
        for sent in (b"", b"GET / HT", f"GET {PATH}?cursor=0 HTTP/1.1\r\n{UPGRADE}\r\n".encode()):
            client = await port.dial()
            await client.stream.send_all(sent)
            client.stream.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SOL_SOCKET, SO_LINGER: close by reset
            await trio.aclose_forcefully(client.stream)
        consumer = await port.connect()
        port.log.append(1)
        assert seq_of(await consumer.message()) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_idle_connections_of_one_address_shut_nobody_else_out() -> None:
    """The bound is per address before a head is read; a trusted proxy's address stands for many."""
    for trusted, expected in (((), b""), ((ip_network("127.0.0.0/8"),), b"HTTP/1.1 200")):
        async with running(Settings(connections_per_peer_max=2, trusted_proxies=trusted)) as port:
            idle = [await trio.open_tcp_stream("127.0.0.1", port.number) for _ in range(2)]
            with trio.fail_after(5):
                for stream in idle:
                    await stream.send_all(b"GET /plain HTTP/1.1\r\n")
                third = await trio.open_tcp_stream("127.0.0.1", port.number)
                try:
                    await third.send_all(b"GET /plain HTTP/1.1\r\nHost: relay\r\n\r\n")
                    answer = bytes(await third.receive_some(12))
                except trio.BrokenResourceError:
                    answer = b""
                assert answer == expected
            for stream in (*idle, third):
                await stream.aclose()
