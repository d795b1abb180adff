"""One run of the whole chain: real hosts, the relay, and everybody who watches. Trio.

Owns the comparison: what each PDS itself emits is the oracle, the relay's output has to equal it per account, byte
for byte apart from `seq`, and the foreign consumers have to report the same facts under the same numbers.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import trio

from tests.e2e.foreign import ForeignConsumer
from tests.e2e.hosts import Account, Pds
from tests.e2e.observed import Fact, Observed, facts, unnumbered
from tests.e2e.stream import Stream
from tests.e2e.verify import Verifier
from tests.relay_process import RelayProcess

_FENCE = "org.example.fence"


class Network:
    """Two hosts or more, each with its oracle stream, one relay, one consumer of ours and the foreign ones."""

    def __init__(
        self,
        *,
        hosts: Sequence[Pds],
        oracles: Sequence[Stream],
        relay: RelayProcess,
        ours: Stream,
        verifier: Verifier,
        foreign: Sequence[ForeignConsumer],
    ) -> None:
        self.hosts = hosts
        self.relay = relay
        self.ours = ours
        self.foreign = foreign
        self._oracles = oracles
        self._verifier = verifier
        self._numbers = itertools.count()
        self._fences: list[Account] = []
        self._dids: set[str] = set()

    async def open(self) -> None:
        """Puts the running relay on every host; from here on every event counts."""
        for host in self.hosts:
            await self.relay.request_crawl(host.name)
        for host in self.hosts:
            self._fences.append(await self.create_account(host))

    def unused_label(self) -> str:
        """Good for a handle that no account has had."""
        return f"user{next(self._numbers)}"

    async def create_account(self, host: Pds) -> Account:
        account = await host.create_account(self.unused_label())
        self._dids.add(account.did)
        return account

    def emitted(self, host: Pds, did: str) -> list[Observed]:
        """What that host emitted of the account until the last `fence`."""
        oracle = self._oracles[self.hosts.index(host)]
        return [event for event in oracle.events.items if event.did == did]

    async def settle(self, expected: Mapping[str, list[Observed]] | None = None) -> None:
        """Waits until everything emitted so far is everywhere, and compares it.

        An account's expected events are those of all hosts in their order, unless `expected` has it.
        Raises AssertionError when an event is missing, changed, repeated or out of its account's order.
        """
        await self.fence()
        wanted = {did: [e for host in self.hosts for e in self.emitted(host, did)] for did in self._dids}
        wanted |= expected or {}
        total = sum(map(len, wanted.values()))
        await self.ours.events.wait_until(lambda seen: len(seen) >= total, what=f"{total} events")
        got = _by_did(self.ours.events.items)
        assert got.keys() == wanted.keys()
        for did, events in wanted.items():
            # The kinds first: they fit on a line.
            assert [e.kind for e in got[did]] == [e.kind for e in events], did
            assert [unnumbered(e) for e in got[did]] == [unnumbered(e) for e in events], did
        assert self._verifier.discontinuities == 0
        for consumer in self.foreign:
            await self._compare_foreign(consumer)

    async def replay(self) -> list[bytes]:
        """What a new consumer gets from cursor 0 up to the last event that ours has seen."""
        last = self.ours.events.items[-1].seq
        again = Stream("a replay", service=self.relay.firehose, verifier=None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(again.run)
            await again.events.wait_until(lambda seen: bool(seen) and seen[-1].seq >= last, what=f"seq {last}")
            nursery.cancel_scope.cancel()
        return [event.message for event in again.events.items]

    async def fence(self) -> None:
        """Returns once the oracles have shown everything emitted so far: each shows a new record made last."""
        for host, oracle, account in zip(self.hosts, self._oracles, self._fences, strict=True):
            path = f"{_FENCE}/{await host.create_record(account, _FENCE, {'$type': _FENCE})}"
            await oracle.events.wait_until(
                lambda seen, path=path: any(op["path"] == path for op in _last_ops(seen)),  # type: ignore[misc]
                what=f"record {path}",
            )

    async def _compare_foreign(self, consumer: ForeignConsumer) -> None:
        wanted = [fact for event in self.ours.events.items for fact in facts(event)]

        def complete(seen: list[Fact]) -> bool:
            return len(_once(seen)) >= len(wanted)

        await consumer.facts.wait_until(complete, what=f"{len(wanted)} facts")
        got = _facts_by_did(_once(consumer.facts.items))
        assert got == _facts_by_did(wanted), consumer.facts.name


def _last_ops(events: list[Observed]) -> list[dict[str, str]]:
    return events[-1].payload.get("ops", []) if events else []


def _by_did(events: Iterable[Observed]) -> dict[str, list[Observed]]:
    grouped: dict[str, list[Observed]] = defaultdict(list)
    for event in events:
        grouped[event.did].append(event)
    return grouped


def _facts_by_did(lines: Iterable[Fact]) -> dict[str, list[Fact]]:
    """Foreign consumers work on different accounts concurrently: order is kept per account."""
    grouped: dict[str, list[Fact]] = defaultdict(list)
    for line in lines:
        grouped[line["did"]].append(line)
    return grouped


def _once(lines: Iterable[Fact]) -> list[Fact]:
    """Foreign consumers promise at-least-once over a reconnection: an identical repetition counts once."""
    seen: dict[tuple[object, ...], Fact] = {}
    for line in lines:
        assert seen.setdefault((line["seq"], line.get("path")), line) == line
    return list(seen.values())
