"""Addresses, admission, cursors and cutting segments: no sockets."""

from ipaddress import ip_network

import pytest

from relay.firehose.client_address import address_group, client_address
from relay.firehose.consumers import Consumers, TooManyConsumers
from relay.firehose.cursor import FutureCursor, InvalidCursor, Start, parse_cursor, start_of
from relay.firehose.log_reader import read_towards
from tests.firehose.list_log import ListLog

_TRUSTED = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.1", ["198.51.100.1"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.1, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.1", "198.51.100.1, 10.9.9.9"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3,10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["198.51.100.1, unknown"], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("fd00::1", ["2001:db8::0:1"], "2001:db8::1"),
        ("a name", ["198.51.100.1"], "a name"),
    ],
)
def test_client_address(peer: str, forwarded: list[str], expected: str) -> None:
    """Believed from our end leftwards, through an unbroken chain of trusted proxies."""
    assert client_address(peer, forwarded, _TRUSTED) == expected


def test_ipv6_counts_by_network() -> None:
    """A /64 is one address; IPv4 stands for itself."""
    assert address_group("2001:db8:1:2:3::4") == address_group("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert address_group("192.0.2.1") == "192.0.2.1"


def test_admission() -> None:
    """Limits per address and in all; `remove` gives the place back and keeps the counts."""
    consumers = Consumers(consumers_max=3, consumers_per_address_max=2)

    def admit(address: str) -> int:
        consumer = consumers.admit(stream="s", address=address, user_agent="", now=1.5)
        consumer.events, consumer.bytes = 2, 10
        return consumer.id

    assert [admit("192.0.2.1"), admit("192.0.2.1")] == [1, 2]
    with pytest.raises(TooManyConsumers, match=r"192\.0\.2\.1"):
        admit("192.0.2.1")
    admit("192.0.2.2")
    with pytest.raises(TooManyConsumers):
        admit("192.0.2.3")
    first = next(iter(consumers._consumers.values()))
    consumers.remove(first)
    assert (len(consumers), consumers.events_total, consumers.bytes_total) == (2, 6, 30)
    assert admit("192.0.2.1") == 4
    assert [seen.id for seen in consumers.statistics()] == [2, 3, 4]


@pytest.mark.parametrize(
    ("query", "expected"),
    [("", None), ("cursor=", None), ("cursor=0", 0), ("a=b&cursor=0012", 12), (f"cursor={2**53 - 1}", 2**53 - 1)],
)
def test_cursor_syntax(query: str, expected: int | None) -> None:
    """Decimal digits below 2^53; empty is absent."""
    assert parse_cursor(query) == expected


@pytest.mark.parametrize("text", ["-1", "a", "1.0", "+1", "1_0", "%C2%B2", "%20", f"{2**53}"])
def test_cursor_refused(text: str) -> None:
    """Anything else."""
    with pytest.raises(InvalidCursor):
        parse_cursor(f"cursor={text}")


def test_cursor_rules() -> None:
    """The window is 10 .. 20."""
    starts = {cursor: start_of(cursor, oldest=10, head=20) for cursor in (0, 1, 8, 9, 10, 20)}
    assert starts == {
        0: Start(9, outdated=False),
        1: Start(9, outdated=True),
        8: Start(9, outdated=True),
        9: Start(9, outdated=False),
        10: Start(10, outdated=False),
        20: Start(20, outdated=False),
    }
    with pytest.raises(FutureCursor):
        start_of(21, oldest=10, head=20)
    assert start_of(0, oldest=1, head=0) == Start(0, outdated=False)


@pytest.mark.parametrize("size", [20, 30_000])
async def test_segments_are_cut_at_the_goal(size: int) -> None:
    """Exactly, wherever head and goal are less than a segment apart; frames stay whole, counts right."""
    log = ListLog()
    log.append(12, size=size)
    log.hide(3, 7, 8, 12)
    for after in range(12):
        for goal in range(after, 13):
            segment = read_towards(log, after, goal)
            whole = log.read(after, 1 << 20).data
            assert whole.startswith(segment.data)
            assert segment.count == sum(seq <= segment.last_seq for seq in log.visible(after))
            if size == 20 and goal > after:
                assert segment.last_seq == goal
            elif size == 20:
                assert segment.last_seq == 12
