"""Metric names and values, read back by Prometheus' own parser."""

from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from relay.eventlog.records import HostStatus
from relay.eventlog.verdict import DropReason
from relay.observability.metrics import Metrics, Snapshot
from tests.http.conftest import SNAPSHOT

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(snapshot: Snapshot) -> Samples:
    metrics = Metrics(snapshot=lambda: snapshot, drop_reasons=DropReason, host_statuses=HostStatus, version="1.2.3")
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (sample.name, tuple(sample.labels.items())): sample.value for family in families for sample in family.samples
    }


def test_every_value_of_the_snapshot_is_there() -> None:
    samples = scrape(SNAPSHOT)
    assert samples["relay_build_info", (("version", "1.2.3"),)] == 1
    plain = {name: value for (name, labels), value in samples.items() if name.startswith("relay_") and not labels}
    assert plain == {
        "relay_events_received_total": 5,
        "relay_head_seq": 4,
        "relay_oldest_seq": 1,
        "relay_log_bytes": 1234,
        "relay_consumers": 2,
        "relay_consumer_events_sent_total": 8,
        "relay_hosts_connected": 2,
        "relay_identity_cache_entries": 6,
        "relay_parked_events": 0,
    }
    assert samples["relay_events_sequenced_total", (("kind", "commit"),)] == 3
    assert samples["relay_events_irregular_total", (("irregularity", "neighbour_missing"),)] == 2
    assert samples["relay_identity_lookups_total", (("result", "found"),)] == 6
    assert samples["process_open_fds", ()] > 0


def test_every_drop_reason_and_host_status_is_there_from_the_start() -> None:
    samples = scrape(replace(SNAPSHOT, events_dropped={}, hosts={}))
    for reason in DropReason:
        assert samples["relay_events_dropped_total", (("reason", reason.value),)] == 0
    for status in HostStatus:
        assert samples["relay_hosts", (("status", status.value),)] == 0


def test_counts_of_reasons_and_statuses() -> None:
    samples = scrape(SNAPSHOT)
    dropped = {labels: value for (name, labels), value in samples.items() if name == "relay_events_dropped_total"}
    assert sum(dropped.values()) == 1
    assert dropped[("reason", "wrong_host"),] == 1
    assert samples["relay_hosts", (("status", "active"),)] == 3
