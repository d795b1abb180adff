"""How the relay treats the hosts it follows: limits and times, as one value. Pure.

No defaults here: `relay.config` owns them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostSettings:
    """Limits and times of every host's connection.

    `dial_timeout_seconds` bounds resolving, connecting, TLS and the upgrade together. A host that sent nothing for
    `ping_interval_seconds` is pinged, and given up when nothing has come `pong_deadline_seconds` after that. A
    connection that brought an event or lasted `stable_seconds` ends a row of failures; a host that could not be
    reached for `offline_after_seconds` is called offline (and still tried). Messages over `message_bytes_max` are
    discarded, those over `discard_bytes_max` end the connection.
    """

    user_agent: str
    dial_timeout_seconds: float
    ping_interval_seconds: float
    pong_deadline_seconds: float
    backoff_min_seconds: float
    backoff_max_seconds: float
    stable_seconds: float
    offline_after_seconds: float
    start_rate_per_second: float
    probes_max: int
    receive_buffer_bytes: int
    message_bytes_max: int = 5_000_000  # protocol.md 2.7
    discard_bytes_max: int = 64_000_000  # DESIGN 6
