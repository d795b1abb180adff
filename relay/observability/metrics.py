"""Metric names, and their rendering in the Prometheus text format. Pure but for the process metrics.

Values are read at scrape from one `Snapshot`, so no stage knows that metrics exist. No label has more than a few
dozen values: what is per host is in the admin API (DESIGN 7).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The relay's counts at one moment: counters are since the start of the process, the rest is as of now."""

    events_received: int
    events_sequenced: Mapping[str, int]
    events_dropped: Mapping[str, int]
    irregularities: Mapping[str, int]
    head_seq: int
    oldest_seq: int
    consumers: int
    consumer_events_sent: int
    hosts: Mapping[str, int]
    hosts_connected: int
    identity_lookups: Mapping[str, int]
    identity_cache_entries: int
    parked_events: int
    log_bytes: int


class Metrics:
    """Renders what `snapshot` returns. Reasons and statuses that did not occur yet are shown as 0."""

    def __init__(
        self,
        *,
        snapshot: Callable[[], Snapshot],
        drop_reasons: Iterable[str],
        host_statuses: Iterable[str],
        version: str,
    ) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_RelayCollector(snapshot, list(drop_reasons), list(host_statuses), version))
        ProcessCollector(registry=self._registry)

    def render(self) -> bytes:
        """The text for one scrape, of type `CONTENT_TYPE`."""
        return generate_latest(self._registry)


class _RelayCollector(Collector):
    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        drop_reasons: list[str],
        host_statuses: list[str],
        version: str,
    ) -> None:
        self._snapshot = snapshot
        self._drop_reasons = drop_reasons
        self._host_statuses = host_statuses
        self._version = version

    def collect(self) -> Iterator[Metric]:
        now = self._snapshot()
        yield InfoMetricFamily("relay_build", "The running version.", {"version": self._version})
        yield _counter("relay_events_received", "Events received from hosts.", now.events_received)
        yield _counters("relay_events_sequenced", "Events given a sequence number.", "kind", now.events_sequenced)
        yield _counters(
            "relay_events_irregular", "Events passed on in spite of something.", "irregularity", now.irregularities
        )
        yield _counters(
            "relay_events_dropped",
            "Messages that got no sequence number.",
            "reason",
            _with_zeros(self._drop_reasons, now.events_dropped),
        )
        yield _gauge("relay_head_seq", "Last synced sequence number.", now.head_seq)
        yield _gauge("relay_oldest_seq", "Oldest sequence number in the replay window.", now.oldest_seq)
        yield _gauge("relay_log_bytes", "Bytes of the replay window on disk.", now.log_bytes)
        yield _gauge("relay_consumers", "Connected consumers of the stream.", now.consumers)
        yield _counter("relay_consumer_events_sent", "Events sent, summed over consumers.", now.consumer_events_sent)
        hosts = GaugeMetricFamily("relay_hosts", "Known hosts by status.", labels=["status"])
        for status, count in _with_zeros(self._host_statuses, now.hosts).items():
            hosts.add_metric([status], count)
        yield hosts
        yield _gauge("relay_hosts_connected", "Hosts with an open connection.", now.hosts_connected)
        yield _counters(
            "relay_identity_lookups", "DID documents asked for, by outcome.", "result", now.identity_lookups
        )
        yield _gauge("relay_identity_cache_entries", "Identities in memory.", now.identity_cache_entries)
        yield _gauge("relay_parked_events", "Events waiting for an identity.", now.parked_events)


def _with_zeros(names: Iterable[str], counts: Mapping[str, int]) -> dict[str, int]:
    return {**dict.fromkeys(names, 0), **counts}


def _gauge(name: str, documentation: str, value: int) -> Metric:
    return GaugeMetricFamily(name, documentation, value)


def _counter(name: str, documentation: str, value: int) -> Metric:
    return CounterMetricFamily(name, documentation, value)


def _counters(name: str, documentation: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, documentation, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
