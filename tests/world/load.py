"""`python -m tests.world.load`: hosts and a directory that flood a relay, in a process of their own. A trio shell.

Everything is made (or read from `--cache`) before the first line of output. Commands come on stdin, one a line: `warm`
lets out one commit of each account, `go` all the rest (and the warm-up, if it was not asked for), `quit` or the end of
stdin ends. Output is JSON lines: `ready`, then `progress` twice a second, then `sent` when a command's events have all
gone into sockets.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from tests.world.event_log import Entry
from tests.world.flood import Flood, Plan, dump, make_flood, restore
from tests.world.pds import FakeHost
from tests.world.plc import DidEntry, FakeDirectory

PROGRESS_SECONDS = 0.5


def say(event: str, **fields: Any) -> None:
    """One line of output."""
    print(json.dumps({"event": event} | fields), flush=True)


def prepare(plan: Plan, cache: Path | None) -> Flood:
    """The plan's load, from the cache file where that has it."""
    if cache is not None and cache.exists():
        cached, flood = restore(cache.read_bytes())
        if cached == plan:
            return flood
    flood = make_flood(plan, now_microseconds=time.time_ns() // 1000)
    if cache is not None:
        cache.write_bytes(dump(plan, flood))
    return flood


class Driver:
    """Lets a load out of its hosts, at once or at a rate (events a second; 0: at once)."""

    def __init__(self, *, flood: Flood, hosts: Sequence[FakeHost], directory: FakeDirectory, rate: float) -> None:
        self._flood = flood
        self._hosts = hosts
        self._directory = directory
        self._rate = rate
        self._warm_up: Sequence[tuple[int, Entry]] = flood.warm_up
        self._published = 0
        self._started = time.monotonic()

    @property
    def sent(self) -> int:
        """How many events went into sockets."""
        return sum(host.sent_entries for host in self._hosts)

    def report(self, event: str) -> None:
        """One line on how far things are."""
        say(
            event,
            sent=self.sent,
            published=self._published,
            connected=sum(host.subscribers > 0 for host in self._hosts),
            plc_requests=self._directory.requests.total(),
            seconds=round(time.monotonic() - self._started, 3),
        )

    async def obey(self, command: str) -> None:
        """Do one command and report when its events are sent."""
        entries = [*self._warm_up] if command == "warm" else [*self._warm_up, *self._flood.main]
        self._warm_up = ()
        self._started = time.monotonic()
        await (self._pour if command == "warm" or not self._rate else self._drip)(entries)
        while self.sent < self._published:
            with trio.move_on_after(PROGRESS_SECONDS):
                await trio.sleep(0.01)
        self.report("sent")

    async def _pour(self, entries: Sequence[tuple[int, Entry]]) -> None:
        each: list[list[Entry]] = [[] for _ in self._hosts]
        for host, entry in entries:
            each[host].append(entry)
        self._published += len(entries)
        for index, mine in enumerate(each):
            self._hosts[index].publish(mine)
        await trio.lowlevel.checkpoint()

    async def _drip(self, entries: Sequence[tuple[int, Entry]]) -> None:
        begun = trio.current_time()
        for number, (host, entry) in enumerate(entries):
            await trio.sleep_until(begun + number / self._rate)
            self._hosts[host].publish([entry])
            self._published += 1

    async def tell(self) -> None:
        """Report for ever."""
        while True:
            await trio.sleep(PROGRESS_SECONDS)
            self.report("progress")


async def run(plan: Plan, *, cache: Path | None, rate: float) -> None:
    """Prepare, serve, obey stdin."""
    begun = time.monotonic()
    flood = prepare(plan, cache)
    hosts = [await FakeHost.open() for _ in range(plan.hosts)]
    directory = await FakeDirectory.open()
    for account in flood.accounts:
        directory.put(DidEntry(account.did, account.key, hosts[account.host].endpoint, None))
    driver = Driver(flood=flood, hosts=hosts, directory=directory, rate=rate)
    sizes = sorted(len(entry.wire) for _, entry in flood.main)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(directory.serve)
        for host in hosts:
            nursery.start_soon(host.serve)
        say(
            "ready",
            plc=directory.url,
            hosts=[host.name for host in hosts],
            accounts=plan.accounts,
            warm_up=len(flood.warm_up),
            commits=len(flood.main),
            bytes=sum(sizes),
            median_bytes=sizes[len(sizes) // 2] if sizes else 0,
            preparation_seconds=round(time.monotonic() - begun, 3),
        )
        nursery.start_soon(driver.tell)
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            if line.strip() == "quit":
                break
            if line.strip() in ("warm", "go"):
                await driver.obey(line.strip())
        nursery.cancel_scope.cancel()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.world.load", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--commits", type=int, default=10_000)
    parser.add_argument("--accounts", type=int, default=200)
    parser.add_argument("--hosts", type=int, default=10)
    parser.add_argument("--records", type=int, default=400, help="records of each account at the start")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--curve", choices=("k256", "p256"), default="k256")
    parser.add_argument("--proof", choices=("covering", "minimal"), default="covering")
    parser.add_argument("--rate", type=float, default=0.0, help="events a second after `go` (0: a flood)")
    parser.add_argument("--cache", type=Path, help="file to keep the prepared load in")
    given = vars(parser.parse_args())
    cache, rate = given.pop("cache"), given.pop("rate")
    trio.run(lambda: run(Plan(**given), cache=cache, rate=rate))


if __name__ == "__main__":
    main()
