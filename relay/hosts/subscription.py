"""One host's stream as a machine: a message in, an envelope, a drop or the end out. Pure.

Owns what a message of `subscribeRepos` means to the host's cursor (DESIGN 5.2) and to its connection (DESIGN 6).
Does not read sockets, time anything, count anything or judge what an event says: that is validation.
"""

from dataclasses import dataclass

from relay.atproto import canonical, frames
from relay.atproto.errors import InvalidData, InvalidEvent
from relay.atproto.events import ErrorFrame, InfoMessage, RepoEvent, UnknownMessage
from relay.eventlog.progress import HostProgress, Receipt
from relay.eventlog.verdict import Drop, DropReason, Origin
from relay.hosts.ended import DETAIL_CHARS_MAX, Cause, Ended
from relay.validation.envelope import Envelope


@dataclass(frozen=True, slots=True)
class CursorMoved:
    """Nothing to pass on, but the host's cursor is another one now."""


Outcome = Envelope | Drop | DropReason | Ended | InfoMessage | CursorMoved | None

_CURSOR_MOVED = CursorMoved()


class Subscription:
    """The messages of one host, connection after connection. `begin` before the messages of each."""

    __slots__ = ("_host", "_progress")

    def __init__(self, *, host: str, progress: HostProgress) -> None:
        self._host = host
        self._progress = progress

    def begin(self) -> int:
        """A connection begins; returns the cursor to ask for (0 from a new host: its whole window)."""
        return self._progress.connect()

    def receive(self, message: bytes) -> Outcome:
        """One whole binary message of at most 5,000,000 bytes.

        Gives an Envelope for an event that is new; a Drop for a broken event whose seq could be read; a DropReason
        alone where there is no usable seq; Ended when the connection must be closed; an InfoMessage to log; None
        for an event that was finished before and for what a relay ignores. Never raises on a peer's bytes.
        """
        event = canonical.commit_event(message)
        if event is not None:
            return self._event(event, len(message))
        try:
            parsed = frames.parse(message)
        except InvalidEvent as error:
            return self._invalid(error)
        except InvalidData:
            return DropReason.UNDECODABLE
        if isinstance(parsed, ErrorFrame):
            return self._error(parsed)
        if isinstance(parsed, UnknownMessage):
            return self._unknown(parsed)
        if isinstance(parsed, InfoMessage):
            return parsed
        return self._event(parsed, len(message))

    def _event(self, event: RepoEvent, size: int) -> Outcome:
        progress = self._progress
        receipt = progress.receive(event.seq)
        if receipt is Receipt.NEW:
            return Envelope(event, Origin(self._host, event.seq, progress, progress.epoch), size)
        return _refused(receipt)

    def _invalid(self, error: InvalidEvent) -> Outcome:
        """A broken event still moves the cursor, or it would be met again at every reconnection."""
        if error.seq is None:
            return DropReason.INVALID_EVENT
        receipt = self._progress.receive(error.seq)
        if receipt is Receipt.NEW:
            origin = Origin(self._host, error.seq, self._progress, self._progress.epoch)
            return Drop(DropReason.INVALID_EVENT, str(error), origin)
        return _refused(receipt)

    def _unknown(self, message: UnknownMessage) -> Outcome:
        if message.seq is None:
            return None
        receipt = self._progress.receive(message.seq)
        if receipt is not Receipt.NEW:
            return _refused(receipt)
        self._progress.finish(message.seq, self._progress.epoch)
        return _CURSOR_MOVED

    def _error(self, frame: ErrorFrame) -> Ended:
        """The stream is over. A cursor beyond the host's newest event means that it lost its numbering."""
        detail = frame.error if frame.message is None else f"{frame.error}: {frame.message}"
        detail = detail[:DETAIL_CHARS_MAX]  # it is kept, and could have megabytes
        if frame.error == "FutureCursor":
            self._progress.forget()
            return Ended(Cause.FUTURE_CURSOR, detail)
        return Ended(Cause.ERROR_FRAME, detail)


def _refused(receipt: Receipt) -> DropReason | Ended | None:
    """What to do with a number that is not new."""
    match receipt:
        case Receipt.OUT_OF_ORDER:
            return DropReason.SEQ_NOT_INCREASING
        case Receipt.RENUMBERED:
            return Ended(Cause.RENUMBERED, "numbers below the cursor: from its oldest event then")
    return None
