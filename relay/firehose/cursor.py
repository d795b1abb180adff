"""The cursor of `subscribeRepos`: its syntax, and where it leads in the log. Pure.

Cursors are exclusive: the first event sent is the one after (protocol.md D1, D2, 1.5).
"""

import re
from dataclasses import dataclass
from urllib.parse import parse_qs

SEQ_LIMIT = 1 << 53  # numbers beyond are not exact in JavaScript (event-stream specification)

_INTEGER = re.compile(r"[0-9]{1,16}")


class InvalidCursor(ValueError):
    """Not a sequence number."""


class FutureCursor(ValueError):
    """Greater than the last number that was given out."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a stream begins: after `position`. `outdated`: events after the cursor have left the window."""

    position: int
    outdated: bool


def parse_cursor(query: str) -> int | None:
    """The `cursor` of a query string, None if absent or empty; raises InvalidCursor."""
    text = parse_qs(query).get("cursor", [""])[0]
    if not text:
        return None
    if not _INTEGER.fullmatch(text) or int(text) >= SEQ_LIMIT:
        raise InvalidCursor(f"cursor must be an integer from 0 to 2^53 - 1, not {text[:40]!r}")
    return int(text)


def start_of(cursor: int, *, oldest: int, head: int) -> Start:
    """Where a cursor leads when the log holds `oldest` .. `head`; raises FutureCursor.

    0 is everything that is held, and never outdated.
    """
    if cursor > head:
        raise FutureCursor(f"cursor {cursor} is beyond {head}")
    return Start(max(cursor, oldest - 1), outdated=0 < cursor < oldest - 1)
