"""`just bench hosts`: what thousands of hosts cost the relay. Prints one JSON object; progress goes to stderr.

The hosts, a directory and one consumer are this process, the relay its own. Phases: all hosts are announced and every
account commits once (so that it is known); the relay starts anew and dials all; idle without pings, and with; a steady
rate over all hosts with known identities, then with a look-up for every fifth event; half of the hosts go away while
events go on, and come back. CPU is user and system time of the relay's process tree. Every event must come out once.
"""

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import trio

from relay.atproto.frames import split_at_seq
from tests.bench.certificates import make_server_context
from tests.bench.crowd import DOMAIN, SUBSCRIBE, Crowd
from tests.bench.crowd_load import CrowdLoad, Event
from tests.bench.facts import k256_verification_us, machine_facts
from tests.bench.relay import BenchRelay
from tests.world import websocket as ws
from tests.world.keys import SigningKey
from tests.world.plc import DidEntry, FakeDirectory

_CRAWLS_AT_ONCE = 8
_EVENTS_PER_LOOKUP = 5
_NO_PINGS_SECONDS = 100_000
_WAIT_SECONDS = 300
_RECONNECT_MAX_SECONDS = 20


class Watch:
    """Follows the relay's stream across restarts; knows what has to come out and what came."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._last_seq = 0
        self._due: dict[int, float] = {}
        self._latencies: list[float] = []
        self.strangers = 0
        """Events that were not due: those that came twice, too."""

    def expect(self, event: Event) -> None:
        """It is emitted now."""
        self._due[hash((event.head, event.tail))] = trio.current_time()

    @property
    def missing(self) -> int:
        """Emitted and not out yet."""
        return len(self._due)

    async def wait_all(self) -> None:
        """Return once nothing is missing."""
        with trio.fail_after(_WAIT_SECONDS):
            while self._due:
                await trio.sleep(0.01)

    def take_latencies(self) -> dict[str, float]:
        """Milliseconds from emission to us, of the events since the last call."""
        ordered, self._latencies = sorted(self._latencies), []
        last = len(ordered) - 1
        return {name: round(ordered[int(last * part)] * 1000, 1) for name, part in (("p50", 0.5), ("p99", 0.99))}

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            with suppress(OSError, trio.BrokenResourceError):
                await self._follow()
            await trio.sleep(0.05)

    async def _follow(self) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", self._port) as stream:
            request = (
                f"GET {SUBSCRIBE}?cursor={self._last_seq} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n\r\n"
            )
            await stream.send_all(request.encode())
            head = b""
            while b"\r\n\r\n" not in head:
                received = await stream.receive_some()
                if not received:
                    return
                head += received
            head, _, rest = head.partition(b"\r\n\r\n")
            if b" 101 " not in head[:16]:
                return
            reader = ws.FrameReader()
            while True:
                for frame in reader.feed(rest):
                    await self._take(stream, frame)
                rest = await stream.receive_some(1 << 18)
                if not rest:
                    return

    async def _take(self, stream: trio.SocketStream, frame: ws.Frame) -> None:
        if frame.opcode == ws.PING:
            await stream.send_all(ws.frame(ws.PONG, frame.payload, mask=ws.random_mask()))
        if frame.opcode != ws.BINARY:
            return
        head, tail = split_at_seq(frame.payload)
        number = frame.payload[len(head) : len(frame.payload) - len(tail)]
        self._last_seq = number[0] if len(number) == 1 else int.from_bytes(number[1:], "big")
        emitted = self._due.pop(hash((head, tail)), None)
        if emitted is None:
            self.strangers += 1
        else:
            self._latencies.append(trio.current_time() - emitted)


class Bench:
    """One run, phase by phase."""

    def __init__(self, given: argparse.Namespace, crowd: Crowd, directory: FakeDirectory, relay: BenchRelay) -> None:
        self._given = given
        self._crowd = crowd
        self._directory = directory
        self._relay = relay
        self._watch = Watch(relay.firehose_port)
        known, strangers = given.accounts, int(given.rate * given.seconds) // _EVENTS_PER_LOOKUP
        events = given.rate * (2 * given.seconds + given.down_seconds + _RECONNECT_MAX_SECONDS)
        self._load = CrowdLoad(
            seed=1,
            accounts=known + strangers,
            hosts=given.hosts,
            commits_each=2 + int(events / known) + 1,
            now_microseconds=time.time_ns() // 1000,
        )
        self._known = random.Random(1).sample(range(known), known)
        self._turns = cycle(self._known)
        self._strangers = iter(range(known, known + strangers))
        for account in self._load.accounts:
            directory.put(DidEntry(account.did, account.key, crowd.endpoint(account.host), None))

    async def run(self) -> dict[str, Any]:
        """All phases; the result as it is printed."""
        given = self._given
        ping_seconds = {"RELAY_RECONNECT_MAX_SECONDS": str(_RECONNECT_MAX_SECONDS)}
        no_pings = ping_seconds | {"RELAY_HOST_PING_SECONDS": str(_NO_PINGS_SECONDS)}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._directory.serve)
            nursery.start_soon(self._crowd.serve)
            nursery.start_soon(self._watch.run)
            await self._relay.start(**no_pings)
            result: dict[str, Any] = {"bench": "hosts", "hosts": given.hosts, "tls": given.tls}
            result["resident_mib"] = {"empty": self._relay.resident_mib()}
            result["announce"] = self._told("announce", await self._announce())
            result["first_events"] = self._told("first_events", await self._first_events())
            await self._relay.stop()
            result["start"] = self._told("start", await self._start(no_pings))
            result["resident_mib"]["connected"] = self._relay.resident_mib()
            result["idle"] = self._told("idle", {"without_pings": await self._idle(settle_seconds=2)})
            await self._relay.stop()
            result["start_again"] = self._told("start_again", await self._start(ping_seconds))
            # Every host is pinged once within 37.5 s of silence: begin when the first round is due.
            result["idle"]["with_pings"] = self._told(
                "idle", await self._idle(settle_seconds=given.idle_settle_seconds)
            )
            result["known"] = self._told("known", await self._steady(lookups=False))
            result["resident_mib"]["after_known"] = self._relay.resident_mib()
            result["lookups"] = self._told("lookups", await self._steady(lookups=True))
            result["half_killed"] = self._told("half_killed", await self._kill_half())
            result["resident_mib"]["at_end"] = self._relay.resident_mib()
            result["strangers"] = self._watch.strangers
            await self._relay.stop()
            nursery.cancel_scope.cancel()
        return result | {"machine": machine_facts()}

    def _told(self, phase: str, result: dict[str, Any]) -> dict[str, Any]:
        resident = self._relay.resident_mib() if phase != "first_events" else None
        print(
            json.dumps({phase: result, "resident_mib": resident, "pid": self._relay.pid}), file=sys.stderr, flush=True
        )
        return result

    async def _announce(self) -> dict[str, Any]:
        """requestCrawl for every host."""
        names = iter([self._crowd.name(index) for index in range(self._given.hosts)])
        cpu, wall = self._relay.cpu_seconds(), trio.current_time()

        async def announce(client: httpx.AsyncClient) -> None:
            for name in names:
                await self._relay.request_crawl(client, name)

        async with httpx.AsyncClient(timeout=60) as client, trio.open_nursery() as nursery:
            for _ in range(_CRAWLS_AT_ONCE):
                nursery.start_soon(announce, client)
        await self._connected(self._given.hosts)
        cpu, wall = self._relay.cpu_seconds() - cpu, trio.current_time() - wall
        return {"seconds": round(wall, 1), "cpu_ms_per_host": round(cpu / self._given.hosts * 1e3, 2)}

    async def _first_events(self) -> dict[str, Any]:
        """One commit of every account that is to be known."""
        events = list(self._load.next_events(self._known, len(self._known)))
        cpu, wall = self._relay.cpu_seconds(), trio.current_time()
        for event in events:
            self._emit(event)
            await trio.lowlevel.checkpoint()
        await self._watch.wait_all()
        cpu, wall = self._relay.cpu_seconds() - cpu, trio.current_time() - wall
        self._watch.take_latencies()
        return {"events": len(events), "seconds": round(wall, 1), "cpu_us_per_event": round(cpu / len(events) * 1e6)}

    async def _start(self, settings: dict[str, str]) -> dict[str, Any]:
        """A new process of the relay, until all hosts are connected."""
        begun = trio.current_time()
        with trio.fail_after(_WAIT_SECONDS):
            await self._crowd.wait_connected(0)
        await self._relay.start(**settings)
        healthy = trio.current_time() - begun
        await self._connected(self._given.hosts)
        return {
            "healthy_after_seconds": round(healthy, 1),
            "all_connected_after_seconds": round(trio.current_time() - begun, 1),
            "dials_in_a_second_max": self._crowd.dial_peak(begun, 1.0),
            "dials_in_100_ms_max": self._crowd.dial_peak(begun, 0.1),
            "cpu_seconds": round(self._relay.cpu_seconds(), 2),
        }

    async def _idle(self, *, settle_seconds: float) -> dict[str, Any]:
        await trio.sleep(settle_seconds)
        pings, cpu, wall = self._crowd.pings.total(), self._relay.cpu_seconds(), trio.current_time()
        await trio.sleep(self._given.idle_seconds)
        cpu, wall = self._relay.cpu_seconds() - cpu, trio.current_time() - wall
        pings = self._crowd.pings.total() - pings
        return {"seconds": round(wall, 1), "cpu_percent_of_a_core": round(cpu / wall * 100, 2), "pings": pings}

    async def _steady(self, *, lookups: bool) -> dict[str, Any]:
        """Events at the given rate over all hosts."""
        count = int(self._given.rate * self._given.seconds)
        events = [self._next_event(lookup=lookups and number % _EVENTS_PER_LOOKUP == 0) for number in range(count)]
        yardstick = k256_verification_us(SigningKey.generate(random.Random(1)))
        asked, cpu, wall = self._directory.requests.total(), self._relay.cpu_seconds(), trio.current_time()
        await self._emit_all(events)
        await self._watch.wait_all()
        cpu, wall = self._relay.cpu_seconds() - cpu, trio.current_time() - wall
        per_event = cpu / count * 1e6
        return {
            "events": count,
            "events_per_second": round(count / wall),
            "median_message_bytes": sorted(len(event.head) + len(event.tail) for event in events)[count // 2],
            "directory_requests": self._directory.requests.total() - asked,
            "cpu_us_per_event": round(per_event, 1),
            "k256_verification_us": round(yardstick, 1),
            "verifications_per_event": round(per_event / yardstick, 2),
            "latency_ms": self._watch.take_latencies(),
        }

    async def _kill_half(self) -> dict[str, Any]:
        """Half of the hosts go away and come back while all emit; what they emit meanwhile waits in their windows."""
        given, crowd = self._given, self._crowd
        alive = (given.hosts + 1) // 2
        count = int(given.rate * given.down_seconds)
        events = [self._next_event(lookup=False) for _ in range(count)]
        crowd.kill()
        with trio.fail_after(_WAIT_SECONDS):
            await crowd.wait_connected(alive)
        down = trio.current_time()
        await self._emit_all(events)
        crowd.revive()
        revived = trio.current_time()
        await self._connected(given.hosts)
        connected = trio.current_time() - revived
        await self._watch.wait_all()
        return {
            "down_seconds": round(revived - down, 1),
            "events": count,
            "all_back_after_seconds": round(connected, 1),
            "dials_in_a_second_max": crowd.dial_peak(revived, 1.0),
            "complete_after_seconds": round(trio.current_time() - revived, 1),
            "missing": self._watch.missing,
        }

    async def _connected(self, hosts: int) -> None:
        with trio.move_on_after(_WAIT_SECONDS):
            await self._crowd.wait_connected(hosts)
            return
        raise RuntimeError(f"{self._crowd.connected} of {hosts} hosts are connected after {_WAIT_SECONDS} s")

    def _next_event(self, *, lookup: bool) -> Event:
        return self._load.next_event(next(self._strangers) if lookup else next(self._turns))

    def _emit(self, event: Event) -> None:
        self._watch.expect(event)
        self._crowd.emit(event.host, event.head, event.tail)

    async def _emit_all(self, events: Sequence[Event]) -> None:
        begun = trio.current_time()
        for number, event in enumerate(events):
            await trio.sleep_until(begun + number / self._given.rate)
            self._emit(event)


async def run(given: argparse.Namespace) -> dict[str, Any]:
    """One run; the result as it is printed."""
    with tempfile.TemporaryDirectory(dir=given.data) as directory:
        tls, environment = None, {}
        if given.tls:
            tls, authority = make_server_context(Path(directory), [f"*.{DOMAIN}"])
            environment["SSL_CERT_FILE"] = str(authority)
        crowd = Crowd(given.hosts, tls=tls)
        plc = await FakeDirectory.open()
        relay = BenchRelay(
            directory=Path(directory) / "data",
            environment=environment | {"RELAY_PLC_URL": plc.url},
            python=given.python,
        )
        try:
            return await Bench(given, crowd, plc, relay).run()
        finally:
            relay.kill()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="just bench hosts", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hosts", type=int, default=2800)
    parser.add_argument("--accounts", type=int, default=10_000, help="known before anything is measured")
    parser.add_argument("--rate", type=float, default=600.0, help="events a second over all hosts")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each steady phase")
    parser.add_argument("--idle-seconds", type=float, default=30.0, help="of each idle phase")
    parser.add_argument("--idle-settle-seconds", type=float, default=32.0, help="before the idle phase with pings")
    parser.add_argument("--down-seconds", type=float, default=10.0, help="that half of the hosts are away")
    parser.add_argument("--tls", action="store_true", help="hosts with TLS, by an authority of our own")
    parser.add_argument("--data", type=Path, help="directory for the relay's data (default: the temporary one)")
    parser.add_argument("--python", default=sys.executable, help="interpreter that runs the relay")
    given = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * given.hosts + 1000
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard) if hard >= 0 else wanted, hard))
    print(json.dumps(trio.run(run, given), indent=2))


if __name__ == "__main__":
    main()
