"""A consumer that follows a relay across restarts and checks every event. A trio shell.

Owns reconnecting from the last number received, the verifier's state across connections, and knowing which accounts
are caught up. Whether anything was lost, `oracle.differences(world.emitted, watch.events, hidden=world.deleted)` says
at the end.
"""

from collections import Counter

import trio

from tests.world.consumer import Consumer, Refused, open_consumer
from tests.world.frames import Parsed
from tests.world.http_server import Condition
from tests.world.network import CONTENT, Account, World
from tests.world.verify import Rejected, StreamVerifier


class Watch:
    """Run `run()` in a nursery. `port` is the relay's firehose port; set it anew if a restart changes it."""

    def __init__(self, *, world: World, port: int, retry_seconds: float) -> None:
        self._world = world
        self._retry_seconds = retry_seconds
        self.port = port
        self.verifier = StreamVerifier(keys=world.directory.keys)
        self.events: list[Parsed] = []
        """Every event that passed the verifier, over all connections."""
        self.counts: Counter[tuple[str, bool]] = Counter()
        """How many of each DID, and whether content; as in `World.expected`."""
        self.rejected: list[str] = []
        """What the verifier said against the others."""
        self.connections = 0
        self.changed = Condition()
        """Notified when events came, and at each connection and its end."""

    def caught_up(self, account: Account) -> bool:
        """Whether all that the account emitted has come."""
        keys = ((account.did, True), (account.did, False))
        return all(self.counts[key] >= self._world.expected[key] for key in keys)

    async def complete(self) -> None:
        """Return once as many events of every account have come as must come."""
        total = self._world.expected.total
        await self.changed.wait_until(lambda: len(self.events) >= total() and not self._world.expected - self.counts)

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                async with open_consumer(self.port, cursor=self.verifier.last_seq) as consumer:
                    self.connections += 1
                    await self._follow(consumer)
            except (OSError, Refused):
                pass
            self.changed.notify()
            await trio.sleep(self._retry_seconds)

    async def _follow(self, consumer: Consumer) -> None:
        done = 0
        while not consumer.ended or done < len(consumer.messages):
            self.changed.notify()
            await consumer.received_beyond(done)
            for message in consumer.messages[done:]:
                self._take(message)
                done += 1

    def _take(self, message: bytes) -> None:
        try:
            event = self.verifier.take(message)
        except Rejected as rejection:
            self.rejected.append(str(rejection))
            return
        self.events.append(event)
        self.counts[event.did, event.kind in CONTENT] += 1
