"""How many events and accounts one host may bring. Pure: time is passed in, in seconds.

Owns the arithmetic of limits and quotas and the patterns of trusted hosts. Who waits, drops, throttles or stores a
limit is decided elsewhere.
"""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from relay.net.hostname import HostName, parse
from relay.net.token_bucket import TokenBucket

_HOUR_SECONDS = 3600
_DAY_SECONDS = 24 * _HOUR_SECONDS


class Window(StrEnum):
    """Over which time events are counted; metric labels."""

    SECOND = "second"
    HOUR = "hour"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class EventLimits:
    """Events of one host: each number is a burst and, spread over its window, a rate."""

    per_second: float
    per_hour: float
    per_day: float

    @classmethod
    def ordinary(cls, account_limit: int) -> Self:
        """indigo's numbers for a host with so many accounts at most (peers.md 1.8)."""
        return cls(50 + account_limit / 1000, 2_500 + account_limit, 20_000 + 10 * account_limit)

    @classmethod
    def trusted(cls) -> Self:
        """indigo's numbers for a host that the operator trusts, whatever its account limit."""
        return cls(5_000, 50_000_000, 500_000_000)


class EventLimiter:
    """One host's events. Outlives its connections, so that reconnecting pays no debt."""

    __slots__ = ("_day", "_hour", "_second", "_waited", "_waits_until")

    def __init__(self, limits: EventLimits) -> None:
        self._second = TokenBucket(per_second=limits.per_second, burst=limits.per_second)
        self._hour = TokenBucket(per_second=limits.per_hour / _HOUR_SECONDS, burst=limits.per_hour)
        self._day = TokenBucket(per_second=limits.per_day / _DAY_SECONDS, burst=limits.per_day)
        self._waits_until = float("-inf")
        self._waited = [0.0, 0.0, 0.0]

    def reserve(self, now: float, events: int) -> float:
        """Count events that have been read; returns how many seconds to wait before reading more.

        With 0 events: how long is left to wait. Meant for one call per read of a socket (0.3 us).
        """
        second = self._second.reserve(now, events)
        hour = self._hour.reserve(now, events)
        day = self._day.reserve(now, events)
        if not second and not hour and not day:
            return 0.0
        return self._wait(now, (second, hour, day))

    def change(self, now: float, limits: EventLimits) -> None:
        """Other limits from now on. Events of before stay counted."""
        self._second.change(now, per_second=limits.per_second, burst=limits.per_second)
        self._hour.change(now, per_second=limits.per_hour / _HOUR_SECONDS, burst=limits.per_hour)
        self._day.change(now, per_second=limits.per_day / _DAY_SECONDS, burst=limits.per_day)

    @property
    def waited(self) -> Mapping[Window, float]:
        """Seconds of waiting asked for so far, each second once, by the window that asked for the most."""
        return dict(zip(Window, self._waited, strict=True))

    def _wait(self, now: float, waits: tuple[float, float, float]) -> float:
        longest = max(waits)
        until = now + longest
        self._waited[waits.index(longest)] += max(0.0, until - max(now, self._waits_until))
        self._waits_until = until
        return longest


class TrustedHosts:
    """Host-name patterns: `*.host.bsky.network` is every name below; any other is one host, on every port and with
    or without TLS unless it names a port or a scheme."""

    __slots__ = ("_hosts", "_names", "_suffixes")

    def __init__(self, patterns: Iterable[str]) -> None:
        """Raises InvalidHostname for a pattern that could match nothing."""
        self._suffixes: tuple[str, ...] = ()
        self._hosts: set[str] = set()
        self._names: set[str] = set()
        for pattern in patterns:
            name = parse(pattern.removeprefix("*."), allow_private=True)
            if pattern.startswith("*."):
                self._suffixes += (f".{name.host}",)
            elif pattern.lower().strip("[]") == name.host:
                self._hosts.add(name.host)
            else:
                self._names.add(name.name)

    def match(self, name: HostName) -> bool:
        """Whether the host is trusted."""
        return name.host in self._hosts or name.name in self._names or name.host.endswith(self._suffixes)


def takes_account(*, living: int, account_limit: int) -> bool:
    """Whether a host with so many living accounts, throttled ones among them, may have one more that is not throttled.

    It asks the same of a new account, of one that migrates in and of one that was deleted and returns. Because
    throttled ones count, none of them is overtaken by a newer one. A lowered limit throttles nobody.
    """
    return living < account_limit


def release(throttled: Iterable[tuple[int, str]], *, living: int, account_limit: int) -> list[str]:
    """The DIDs of the throttled accounts that now fit, oldest first.

    `throttled` are (roster ordinal, DID) of all throttled living accounts of the host, in any order; `living` counts
    them too.
    """
    waiting = list(throttled)
    room = account_limit - (living - len(waiting))
    return [did for _, did in heapq.nsmallest(max(0, room), waiting)]
