"""An event log that is a list: the second implementation of `LogReader`, plain enough to be the oracle."""

import trio

from relay.eventlog.reader import CursorGone
from relay.eventlog.tail import Segment
from relay.firehose.websocket import binary_frame


def message(seq: int, size: int = 100) -> bytes:
    """The message of an event: its seq in 8 bytes, then filler that depends on it."""
    return seq.to_bytes(8, "big") + bytes([seq % 251]) * (size - 8)


def seq_of(received: bytes) -> int:
    """The seq of a message; fails if the message is not whole."""
    seq = int.from_bytes(received[:8], "big")
    assert received == message(seq, len(received))
    return seq


class ListLog:
    """Events 1, 2, 3 ...; some hidden, the oldest forgotten on demand."""

    def __init__(self) -> None:
        self.oldest = 1
        self._frames: list[bytes] = []
        self._hidden: set[int] = set()
        self._grown = trio.Event()

    @property
    def head(self) -> int:
        return len(self._frames)

    def append(self, count: int, size: int = 100) -> None:
        self._frames += [binary_frame(message(self.head + n + 1, size)) for n in range(count)]
        self._grown.set()
        self._grown = trio.Event()

    def hide(self, *seqs: int) -> None:
        self._hidden.update(seqs)

    def forget_below(self, seq: int) -> None:
        self.oldest = seq

    def visible(self, after: int) -> list[int]:
        return [seq for seq in range(after + 1, self.head + 1) if seq not in self._hidden]

    async def wait_beyond(self, seq: int) -> None:
        await trio.lowlevel.checkpoint()
        while self.head <= seq:
            await self._grown.wait()

    def read(self, after: int, bytes_max: int) -> Segment:
        if after + 1 < self.oldest:
            raise CursorGone(f"events after {after} are gone")
        frames: list[bytes] = []
        size = 0
        last = after
        for seq in range(after + 1, self.head + 1):
            if seq not in self._hidden:
                size += len(self._frames[seq - 1])
                if frames and size > bytes_max:
                    break
                frames.append(self._frames[seq - 1])
            last = seq
        return Segment(b"".join(frames), last, len(frames))
