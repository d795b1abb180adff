"""A whole relay in this process between the fake network and consumers, all over sockets. A trio shell.

Owns the relay's life (start, stop as by SIGTERM, start again on the same ports and data) and that of each fake host.
"""

import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio

from relay import config
from relay.eventlog.verdict import DropReason
from relay.service import Relay
from tests.world.consumer import Consumer, open_consumer
from tests.world.network import World
from tests.world.oracle import differences
from tests.world.pds import FakeHost

ADMIN = ("admin", "scenario")
SECONDS = 10
_SHORT_TIMES = {
    "RELAY_RECONNECT_MIN_SECONDS": "0.02",
    "RELAY_RECONNECT_MAX_SECONDS": "0.1",
    "RELAY_IDENTITY_PARK_SECONDS": "0.5",
    "RELAY_ADMIN_PASSWORD": ADMIN[1],
}


class Network:
    """The fake world, the relay, and a client for its HTTP ports."""

    def __init__(
        self, *, world: World, variables: dict[str, str], nursery: trio.Nursery, http: httpx.AsyncClient
    ) -> None:
        self.world = world
        self.http = http
        self.firehose_port, self.http_port = _free_port(), _free_port()
        self._variables = variables
        self._nursery = nursery
        self._relay: Relay | None = None
        self._ended = trio.Event()
        self._scopes: dict[str, trio.CancelScope] = {}

    # the relay

    async def start(self) -> None:
        """Returns once the relay listens."""
        self._ended = trio.Event()
        await self._nursery.start(self._run)

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        relay = self._relay = Relay(config.load(self._variables))
        try:
            await relay.run(_listen(self.firehose_port), _listen(self.http_port), task_status=task_status)
        finally:
            relay.close()
            self._ended.set()

    async def stop(self) -> None:
        """What SIGTERM does; returns when it is done."""
        assert self._relay is not None
        self._relay.stop()
        await self._ended.wait()

    # hosts

    async def serve(self, host: FakeHost) -> None:
        """Bring a host up."""
        scope = self._scopes[host.name] = trio.CancelScope()

        async def run(task_status: trio.TaskStatus[None]) -> None:
            with scope:
                await host.serve(task_status=task_status)

        await self._nursery.start(run)

    async def take_down(self, host: FakeHost) -> None:
        """Bring a host down, connections and all."""
        self._scopes[host.name].cancel()
        await host.disconnected()

    async def crawl(self, *hosts: FakeHost) -> None:
        """Have the relay follow hosts, as an operator would; returns once it is connected to each."""
        for host in hosts:
            answer = await self.post("/admin/pds/requestCrawl", {"hostname": host.name}, auth=ADMIN)
            assert answer.status_code == 200, answer.text
            await host.connected()

    # HTTP

    async def get(self, path: str, *, port: int | None = None, **options: Any) -> httpx.Response:
        return await self.http.get(f"http://127.0.0.1:{port or self.http_port}{path}", **options)

    async def post(self, path: str, body: object, *, port: int | None = None, **options: Any) -> httpx.Response:
        return await self.http.post(f"http://127.0.0.1:{port or self.http_port}{path}", json=body, **options)

    async def query(self, method: str, **params: str | int) -> httpx.Response:
        """An XRPC query, asked on both ports: the answers must be the same."""
        path = f"/xrpc/com.atproto.sync.{method}"
        first, second = [await self.get(path, port=p, params=params) for p in (self.http_port, self.firehose_port)]
        assert (first.status_code, first.content) == (second.status_code, second.content)
        return first

    async def metrics(self) -> dict[str, float]:
        """Samples by name and labels as written."""
        text = (await self.get("/metrics")).text
        return {
            line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line and line[0] != "#"
        }

    async def drops(self) -> dict[DropReason, int]:
        """`relay_events_dropped_total` by reason, zeros left out."""
        samples = await self.metrics()
        counts = {reason: samples[f'relay_events_dropped_total{{reason="{reason}"}}'] for reason in DropReason}
        return {reason: int(count) for reason, count in counts.items() if count}

    async def drops_become(self, expected: dict[DropReason, int]) -> None:
        """Returns once these are the drops."""
        counted: dict[DropReason, int] = {}

        async def reached() -> bool:
            nonlocal counted
            counted = await self.drops()
            return counted == expected

        with trio.move_on_after(SECONDS):
            await until(reached)
        assert counted == expected, counted

    async def sequenced(self) -> None:
        """Returns once as many events as were emitted are in the log."""

        async def reached() -> bool:
            return (await self.metrics())["relay_head_seq"] >= len(self.world.emitted)

        with trio.fail_after(SECONDS):
            await until(reached)

    # consumers

    async def replay(self) -> Consumer:
        """A consumer that got everything from the oldest event to now, closed."""
        head = int((await self.metrics())["relay_head_seq"])
        async with open_consumer(self.firehose_port, cursor=0) as consumer:
            await until_caught_up(consumer, head)
        return consumer

    async def settled(self, consumer: Consumer) -> None:
        """Returns once as many events as must come out have come to a consumer; they must be the right ones."""
        with trio.move_on_after(SECONDS):
            await consumer.received(sum(event.expect == "pass" for event in self.world.emitted))
        wrong = differences(self.world.emitted, consumer.events)
        assert not wrong, wrong


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Returns once it is true; the caller sets the time limit."""
    while not await condition():
        await trio.sleep(0.01)


async def until_caught_up(consumer: Consumer, head: int) -> None:
    """Returns once the consumer's last event is the relay's `head`."""
    with trio.fail_after(SECONDS):
        await consumer.changed.wait_until(lambda: consumer.last_seq >= head)


@asynccontextmanager
async def open_network(directory: Path, *, hosts: int = 1, seed: int = 5, **settings: str) -> AsyncIterator[Network]:
    """A served world and a started relay that follows its hosts; `settings` are relay settings in lower case."""
    world = await World.open(seed=seed, hosts=hosts, now_microseconds=time.time_ns() // 1000)
    variables = world.relay_environment(str(directory / "data")) | _SHORT_TIMES
    variables |= {f"RELAY_{name.upper()}": value for name, value in settings.items()}
    async with httpx.AsyncClient(trust_env=False) as http, trio.open_nursery() as nursery:
        network = Network(world=world, variables=variables, nursery=nursery, http=http)
        await nursery.start(world.directory.serve)
        for host in world.hosts:
            await network.serve(host)
        await network.start()
        try:
            with trio.fail_after(SECONDS):
                await network.crawl(*world.hosts)
            yield network
        finally:
            with trio.CancelScope(shield=True), trio.fail_after(SECONDS):
                await network.stop()
        nursery.cancel_scope.cancel()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _listen(port: int) -> socket.socket:
    listener = socket.create_server(("127.0.0.1", port))
    listener.setblocking(False)
    return listener
