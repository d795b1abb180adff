"""How a connection to a host can end, as values. Pure."""

from dataclasses import dataclass
from enum import StrEnum

DETAIL_CHARS_MAX = 200


class Cause(StrEnum):
    """Why a connection ended, or never began."""

    DIAL_FAILED = "dial_failed"
    DIAL_TIMED_OUT = "dial_timed_out"
    UPGRADE_REFUSED = "upgrade_refused"
    IS_A_RELAY = "is_a_relay"
    HOST_CLOSED = "host_closed"
    CONNECTION_LOST = "connection_lost"
    WEBSOCKET_VIOLATION = "websocket_violation"
    NO_PONG = "no_pong"
    ERROR_FRAME = "error_frame"
    FUTURE_CURSOR = "future_cursor"
    RENUMBERED = "renumbered"
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a connection: its cause and, in words, what the host or the network did."""

    cause: Cause
    detail: str

    def __str__(self) -> str:
        printable = "".join(char if char.isprintable() else " " for char in self.detail[:DETAIL_CHARS_MAX])
        return f"{self.cause}: {printable}"


def describe(error: BaseException) -> str:
    """An exception in words; of a group, its first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
