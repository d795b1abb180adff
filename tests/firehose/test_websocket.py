"""One consumer's socket under a clock that stands still: what it may say, and what it gets for it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import trio
import trio.testing

from relay.firehose.websocket import KeepAlive, WebSocket, binary_frame
from tests.world.websocket import BINARY, PING, PONG, Frame, FrameReader, frame

MASK = b"\1\2\3\4"
READ_BYTES = 2 * 1024
READS_PER_SECOND = 8


class Peer:
    """The consumer's end."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._frames = FrameReader()

    def send(self, data: bytes) -> None:
        """As much as the kernel takes must be all."""
        assert self._end.send(data) == len(data)

    def received(self) -> list[Frame]:
        """What has come since the last time."""
        try:
            return list(self._frames.feed(self._end.recv(1 << 20)))
        except BlockingIOError:
            return []


@contextmanager
def connected() -> Iterator[tuple[WebSocket, Peer]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for end in (ours, theirs):
            end.setblocking(False)
        yield WebSocket(ours, received=b"", keep_alive=KeepAlive(ping_seconds=60, answer_seconds=60)), Peer(theirs)


def pings(start: int, stop: int) -> bytes:
    """Eight bytes each."""
    return b"".join(frame(PING, number.to_bytes(2, "big"), mask=MASK) for number in range(start, stop))


def pong(number: int) -> Frame:
    return Frame(True, PONG, number.to_bytes(2, "big"))


async def test_many_pings_in_one_read_get_the_latest_pong(
    nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    """RFC 6455 5.5.3 allows it; a pong for each would be a flood of our own."""
    per_read = READ_BYTES // 8
    with connected() as (websocket, peer):
        peer.send(pings(0, per_read + 10))
        nursery.start_soon(websocket.receive)
        await trio.testing.wait_all_tasks_blocked()
        assert peer.received() == [pong(per_read - 1), pong(per_read + 9)]
        nursery.cancel_scope.cancel()


async def test_a_flood_of_pings_waits_in_the_kernel(nursery: trio.Nursery, mock_clock: trio.testing.MockClock) -> None:
    """So much is read in a second, and no more; meanwhile events go to who floods, and others are answered at once."""
    per_read = READ_BYTES // 8
    with connected() as (flooded, flooder), connected() as (websocket, peer):
        for each in (flooded, websocket):
            nursery.start_soon(each.receive)
        flooder.send(pings(0, 4 * READS_PER_SECOND * per_read))
        for second in range(3):
            await trio.testing.wait_all_tasks_blocked(0.01)
            reads = range(second * READS_PER_SECOND, (second + 1) * READS_PER_SECOND)
            assert flooder.received() == [pong((read + 1) * per_read - 1) for read in reads]
            peer.send(pings(second, second + 1))
            event = binary_frame(b"%d" % second)
            for each in (flooded, websocket):
                assert each.offer(event, trio.current_time())
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert flooder.received() == [Frame(True, BINARY, b"%d" % second)]
            assert peer.received() == [Frame(True, BINARY, b"%d" % second), pong(second)]
            mock_clock.jump(1.0)
        nursery.cancel_scope.cancel()


async def test_pongs_do_not_pile_up_for_a_peer_that_does_not_read(
    nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    """Behind a full socket one pong waits, the latest; the events before it are whole."""
    with connected() as (websocket, peer):
        nursery.start_soon(websocket.receive)
        event = binary_frame(b"x" * 10_000)
        sent = 1
        while websocket.offer(event, trio.current_time()):
            sent += 1
        for number in range(40):
            peer.send(pings(number, number + 1))
            await trio.testing.wait_all_tasks_blocked()
        received = []
        while more := peer.received():
            received += more
            await websocket.flush(stall_seconds=1)
        assert received == [Frame(True, BINARY, b"x" * 10_000)] * sent + [pong(39)]
        nursery.cancel_scope.cancel()
