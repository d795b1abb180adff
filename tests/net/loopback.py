"""Small servers on loopback that speak the wire: HTTP/1.1 over TCP, DNS over UDP."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import trio

Stream = trio.abc.Stream


@dataclass(frozen=True, slots=True)
class Request:
    """What came in; header names in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


Handler = Callable[[Request, Stream], Awaitable[None]]


@dataclass(slots=True)
class HttpServer:
    """A running server: where it is and what it was asked."""

    port: int
    connections: int = 0
    open_connections: int = 0
    requests: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def targets(self) -> list[str]:
        return [request.target for request in self.requests]


def reply(status: int, body: bytes = b"", **headers: str) -> bytes:
    """A whole response; underscores in header names become hyphens."""
    lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def serve_http(handler: Handler, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[HttpServer]:
    """Answers every request on 127.0.0.1 by `handler`, which writes raw bytes to the stream."""
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server = HttpServer(listener.socket.getsockname()[1])

        async def connection(plain: trio.SocketStream) -> None:
            server.connections += 1
            server.open_connections += 1
            stream: Stream = (
                plain if tls is None else trio.SSLStream(plain, tls, server_side=True, https_compatible=True)
            )
            try:
                async with stream:
                    await _converse(server, handler, stream)
            except trio.BrokenResourceError:
                pass  # the client hung up, as some tests want it to
            finally:
                server.open_connections -= 1

        nursery.start_soon(trio.serve_listeners, connection, [listener])
        yield server
        nursery.cancel_scope.cancel()


async def _converse(server: HttpServer, handler: Handler, stream: Stream) -> None:
    buffer = b""
    while True:
        while b"\r\n\r\n" not in buffer:
            data = await stream.receive_some()
            if not data:
                return
            buffer += data
        head, buffer = buffer.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = int(headers.get("content-length", "0"))
        while len(buffer) < length:
            buffer += await stream.receive_some()
        body, buffer = buffer[:length], buffer[length:]
        method, target, _ = first.split(" ")
        request = Request(method, target, headers, body)
        server.requests.append(request)
        await handler(request, stream)


@asynccontextmanager
async def serve_dns(zone: Mapping[str, list[str]]) -> AsyncIterator[dns.asyncresolver.Resolver]:
    """A resolver whose only name server knows `zone`: name to addresses, in order; others don't exist.

    An empty list is a name without addresses; the address "servfail" makes the server fail, "silent" keep silent.
    """
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as udp:
        await udp.bind(("127.0.0.1", 0))
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
        resolver.port = udp.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_answer_queries, udp, zone)
            yield resolver
            nursery.cancel_scope.cancel()


async def _answer_queries(udp: trio.socket.SocketType, zone: Mapping[str, list[str]]) -> None:
    while True:
        data, peer = await udp.recvfrom(4096)
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        [question] = query.question
        addresses = zone.get(question.name.to_text(omit_final_dot=True))
        if addresses == ["silent"]:
            continue
        if addresses is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif addresses == ["servfail"]:
            answer.set_rcode(dns.rcode.SERVFAIL)
        else:
            wanted = [one for one in addresses if (":" in one) == (question.rdtype == dns.rdatatype.AAAA)]
            if wanted:
                kind = dns.rdatatype.to_text(question.rdtype)
                answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *wanted))
        await udp.sendto(answer.to_wire(), peer)
