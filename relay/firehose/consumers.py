"""Who is connected to the streaming port: admission, and what each consumer has been sent. Pure.

Owns the two limits and the counts. Does not know sockets; addresses come in already resolved
(`firehose/client_address.py`).
"""

from collections import Counter
from dataclasses import dataclass

from relay.firehose.client_address import address_group


class TooManyConsumers(Exception):
    """No place is left: in all, or for this address."""


@dataclass(frozen=True, slots=True)
class ConsumerStatistics:
    """One consumer at one moment. `connected_at` is in seconds of Unix time; `live` is False while catching up."""

    id: int
    stream: str
    address: str
    user_agent: str
    connected_at: float
    position: int
    events: int
    bytes: int
    live: bool


class Consumer:
    """One consumer's position in the log and its counts; written by its own stream and the sweep only."""

    __slots__ = ("address", "bytes", "connected_at", "events", "id", "live", "position", "stream", "user_agent")

    def __init__(self, *, id_: int, stream: str, address: str, user_agent: str, connected_at: float) -> None:
        self.id = id_
        self.stream = stream
        self.address = address
        self.user_agent = user_agent
        self.connected_at = connected_at
        self.position = 0
        self.events = 0
        self.bytes = 0
        self.live = False

    def statistics(self) -> ConsumerStatistics:
        """The values of this moment."""
        return ConsumerStatistics(
            id=self.id,
            stream=self.stream,
            address=self.address,
            user_agent=self.user_agent,
            connected_at=self.connected_at,
            position=self.position,
            events=self.events,
            bytes=self.bytes,
            live=self.live,
        )


class Consumers:
    """The registry of all streams' consumers."""

    def __init__(self, *, consumers_max: int, consumers_per_address_max: int) -> None:
        self._consumers: dict[int, Consumer] = {}
        self._by_group: Counter[str] = Counter()
        self._consumers_max = consumers_max
        self._consumers_per_address_max = consumers_per_address_max
        self._last_id = 0
        self._events_of_gone = 0
        self._bytes_of_gone = 0

    def __len__(self) -> int:
        return len(self._consumers)

    @property
    def events_total(self) -> int:
        """Events sent since the start, to consumers that are gone included."""
        return self._events_of_gone + sum(consumer.events for consumer in self._consumers.values())

    @property
    def bytes_total(self) -> int:
        """Bytes of events sent since the start, to consumers that are gone included."""
        return self._bytes_of_gone + sum(consumer.bytes for consumer in self._consumers.values())

    def admit(self, *, stream: str, address: str, user_agent: str, now: float) -> Consumer:
        """A place for one more, to be given back with `remove`; raises TooManyConsumers. `now` is Unix time."""
        if len(self._consumers) >= self._consumers_max:
            raise TooManyConsumers("the relay has as many consumers as it serves")
        group = address_group(address)
        if self._by_group[group] >= self._consumers_per_address_max:
            raise TooManyConsumers(f"{group} has as many connections as one address may have")
        self._last_id += 1
        consumer = Consumer(id_=self._last_id, stream=stream, address=address, user_agent=user_agent, connected_at=now)
        self._consumers[consumer.id] = consumer
        self._by_group[group] += 1
        return consumer

    def remove(self, consumer: Consumer) -> None:
        """The consumer is gone; its counts stay in the totals."""
        del self._consumers[consumer.id]
        group = address_group(consumer.address)
        self._by_group[group] -= 1
        if not self._by_group[group]:
            del self._by_group[group]
        self._events_of_gone += consumer.events
        self._bytes_of_gone += consumer.bytes

    def statistics(self) -> tuple[ConsumerStatistics, ...]:
        """Everyone connected, in the order of their arrival."""
        return tuple(consumer.statistics() for consumer in self._consumers.values())
