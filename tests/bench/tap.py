"""What receiving costs: µs of CPU per message, a flood over few connections and one message per wake over many.

    python -m tests.bench.tap [--messages 200000] [--connections 500] [--seconds 5]

Hosts are another process on loopback. `tap` is the tap alone under trio-websocket, a counter behind it; `connection`
the whole of `relay.hosts` up to the sink (subscription, decoding of canonical commits, cursor). CPU is the receiving
process's own, user and system. Prints one JSON object.
"""

import argparse
import json
import platform
import random
import resource
import selectors
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import dns.asyncresolver
import trio
import trio_websocket

from relay.atproto.cbor import uint
from relay.atproto.frames import split_at_seq
from relay.eventlog.progress import HostProgress
from relay.eventlog.verdict import Drop, DropReason
from relay.hosts.connection import Connection, ConnectionParts, Traffic
from relay.hosts.pings import PingSweep
from relay.hosts.settings import HostSettings
from relay.hosts.subscription import Subscription
from relay.hosts.tap import Tap
from relay.net.dial import Dialer, create_tls_context
from relay.net.hostname import parse
from relay.validation.envelope import Envelope
from tests.world import websocket as ws
from tests.world.clock import Clock
from tests.world.frames import commit_payload, frame
from tests.world.keys import SigningKey
from tests.world.repo import Repo, Write

FLOOD_CONNECTIONS = 10
BUFFER_BYTES = 256 * 1024
RATE = 600

SETTINGS = HostSettings(
    user_agent="bench",
    dial_timeout_seconds=30,
    ping_interval_seconds=30,
    pong_deadline_seconds=30,
    backoff_min_seconds=1,
    backoff_max_seconds=60,
    stable_seconds=60,
    offline_after_seconds=600,
    start_rate_per_second=1000,
    probes_max=1,
    receive_buffer_bytes=BUFFER_BYTES,
)


class Counter:
    """The end of the line: counts, and wakes whoever waits for the last message."""

    def __init__(self, expected: int) -> None:
        self.left = expected
        self.done = trio.Event()

    def message(self, message: bytes) -> None:
        self.left -= 1
        if not self.left:
            self.done.set()

    def submit(self, envelope: Envelope) -> None:
        envelope.origin.finish()
        self.message(b"")

    def drop(self, drop: Drop) -> None:
        raise AssertionError(drop)

    def count_drop(self, host: str, reason: DropReason) -> None:
        raise AssertionError((host, reason))

    def cursor_moved(self, host: str) -> None:
        raise AssertionError(host)

    def text(self) -> None:
        raise AssertionError("text")

    def too_big(self) -> None:
        raise AssertionError("too big")

    def has_room(self, host: str = "") -> bool:
        return True

    async def wait_room(self, host: str = "") -> None:
        """There is room."""


def commit_message() -> bytes:
    """A canonical commit of about 4 kB: one create in a repository of 2,000 records."""
    rng = random.Random(1)
    repo = Repo(
        did="did:plc:" + "a" * 24, key=SigningKey.generate(rng), clock=Clock(now_microseconds=1_700_000_000_000_000)
    )
    repo.preload((f"app.bsky.feed.post/{number:013d}", b"\xa1atax") for number in range(2000))
    made = repo.commit([Write("create", "app.bsky.feed.post/0000000000999a", b"\xa1atay")])
    return frame("#commit", commit_payload(made, seq=1, time=repo.clock.datetime()))


# the hosts' process


def upgrade(connection: socket.socket) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(65536)
    key = next(line[19:] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key: "))
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + ws.accept_key(key)
        + b"\r\n\r\n"
    )


def flood(connection: socket.socket, count: int) -> None:
    head, tail = split_at_seq(commit_message())
    for start in range(1, count + 1, 64):
        seqs = range(start, min(start + 64, count + 1))
        connection.sendall(b"".join(ws.binary(head + uint(seq) + tail) for seq in seqs))
    connection.recv(65536)


def drip(connections: list[socket.socket], count: int) -> None:
    head, tail = split_at_seq(commit_message())
    start = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, start + number / RATE - time.monotonic()))
        seq = number // len(connections) + 1
        connections[number % len(connections)].sendall(ws.binary(head + uint(seq) + tail))
    connections[0].recv(65536)


def serve(mode: str, connections: int, count: int) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=connections)
    print(listener.getsockname()[1], flush=True)
    accepted = []
    with selectors.DefaultSelector():
        for _ in range(connections):
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            upgrade(connection)
            accepted.append(connection)
    sys.stdin.readline()
    if mode == "drip":
        drip(accepted, count)
        return
    threads = [threading.Thread(target=flood, args=(one, count // connections)) for one in accepted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# the receiving process


async def open_taps(port: int, count: int, counter: Counter, nursery: trio.Nursery) -> list[Tap]:
    taps, buffer = [], bytearray(BUFFER_BYTES)
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setblocking(False)
        tap = Tap(
            connection,
            counter,
            buffer=buffer,
            message_bytes_max=SETTINGS.message_bytes_max,
            discard_bytes_max=SETTINGS.discard_bytes_max,
        )
        await trio_websocket.wrap_client_stream(nursery, tap, "localhost", "/")  # type: ignore[arg-type]
        tap.open()
        taps.append(tap)
    return taps


async def open_connections(port: int, count: int, counter: Counter, nursery: trio.Nursery) -> None:
    parts = ConnectionParts(
        settings=SETTINGS,
        dialer=Dialer(
            allow_private=True,
            ssl_context=create_tls_context(),
            dns_resolver=dns.asyncresolver.Resolver(configure=False),
            attempt_seconds=10,
            total_seconds=10,
        ),
        sink=counter,
        pings=PingSweep(interval_seconds=30, deadline_seconds=30),
        receive_buffer=bytearray(BUFFER_BYTES),
    )
    nursery.start_soon(parts.pings.run)
    host = parse(f"127.0.0.1:{port}", allow_private=True)
    for _ in range(count):
        subscription = Subscription(host=host.name, progress=HostProgress())
        connection = Connection(parts=parts, host=host, subscription=subscription, traffic=Traffic())
        nursery.start_soon(connection.run)
        await connection.settled.wait()


async def receive(mode: str, through: str, connections: int, count: int) -> dict[str, Any]:
    """CPU of receiving `count` messages, from the first to the last."""
    command = [sys.executable, "-m", "tests.bench.tap", "--serve", mode, str(connections), str(count)]
    hosts = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: ASYNC220
    assert hosts.stdin is not None
    assert hosts.stdout is not None
    port, counter = int(hosts.stdout.readline()), Counter(count)
    memory_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with trio.open_nursery() as nursery:
        if through == "tap":
            _ = await open_taps(port, connections, counter, nursery)
        else:
            await open_connections(port, connections, counter, nursery)
        memory_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory_kb
        hosts.stdin.write(b"\n")
        hosts.stdin.flush()
        cpu, wall = time.process_time(), time.monotonic()
        await counter.done.wait()
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        nursery.cancel_scope.cancel()
    hosts.kill()
    hosts.communicate()
    return {
        "mode": mode,
        "through": through,
        "connections": connections,
        "messages": count,
        "cpu_us_per_message": round(cpu / count * 1e6, 2),
        "messages_per_second": round(count / wall),
        "connect_kb_per_connection": round(memory_kb / connections, 1),
    }


def main() -> None:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=200_000, help="in each flood")
    parser.add_argument("--connections", type=int, default=500, help="for one message per wake")
    parser.add_argument("--seconds", type=int, default=5, help="of one message per wake, at 600 messages a second")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        mode, connections, count = arguments.serve
        serve(mode, int(connections), int(count))
        return
    runs = []
    for through in ("tap", "connection"):
        runs.append(trio.run(receive, "flood", through, FLOOD_CONNECTIONS, arguments.messages))
        runs.append(trio.run(receive, "drip", through, arguments.connections, RATE * arguments.seconds))
    machine = {"python": platform.python_version(), "machine": platform.machine()}
    print(json.dumps({**machine, "message_bytes": len(commit_message()), "runs": runs}, indent=2))


if __name__ == "__main__":
    main()
