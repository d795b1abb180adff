"""The framer against a model: whatever is sent, however it is cut, the same comes out."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from relay.hosts.framing import FRAGMENTS_MAX, FRAMES_PER_SLICE, Framer
from tests.world import websocket as ws

LIMIT = 300
TEXT, TOO_BIG = "text", "too big"

Outcome = bytes | str | tuple[int, bytes]


@dataclass
class Told:
    """Messages and control frames in the order in which they came out."""

    items: list[Outcome] = field(default_factory=list)

    def message(self, message: bytes) -> None:
        self.items.append(message)

    def text(self) -> None:
        self.items.append(TEXT)

    def too_big(self) -> None:
        self.items.append(TOO_BIG)


def run(data: bytes, cuts: list[int]) -> tuple[Told, Framer]:
    """Feed data cut into pieces of these sizes (then byte by byte) through one reused buffer, as the tap does."""
    told, buffer, position = Told(), bytearray(4096), 0
    framer = Framer(told, message_bytes_max=LIMIT, discard_bytes_max=100 * LIMIT)
    sizes = iter(cuts)
    while position < len(data) and not framer.stopped:
        size = next(sizes, 1)
        piece = framer.begin + data[position : position + size]
        position += size
        framer.begin = b""
        buffer[:] = b"\xee" * len(buffer)
        buffer[: len(piece)] = piece
        control = framer.take(memoryview(buffer), len(piece))
        while control or framer.rest:
            if control:
                told.items.append((control[0] & 0x0F, control[2:]))
            buffer[:] = b"\xdd" * len(buffer)
            control = framer.take_rest() if framer.rest else b""
    return told, framer


controls = st.tuples(st.sampled_from((ws.PING, ws.PONG)), st.binary(max_size=125))
lengths = st.one_of(st.integers(0, 3), st.integers(120, 130), st.integers(LIMIT - 3, LIMIT + 3))


@st.composite
def scripts(draw: st.DrawFn) -> tuple[bytes, list[Outcome]]:
    """A legal stream: data messages in fragments, control frames between any two frames; and what must come of it."""
    sent, expected = bytearray(), list[Outcome]()

    def maybe_control() -> None:
        for opcode, payload in draw(st.lists(controls, max_size=2)):
            sent.extend(ws.frame(opcode, payload))
            expected.append((opcode, payload))

    for number in range(draw(st.integers(1, 6))):
        opcode = draw(st.sampled_from((ws.BINARY, ws.BINARY, ws.TEXT)))
        pieces = [bytes([number]) * length for length in draw(st.lists(lengths, min_size=1, max_size=4))]
        for index, piece in enumerate(pieces):
            maybe_control()
            last = index == len(pieces) - 1
            sent.extend(ws.frame(ws.CONTINUATION if index else opcode, piece, final=last))
        message = b"".join(pieces)
        outcome = TOO_BIG if len(message) > LIMIT else message
        expected.append(TEXT if opcode == ws.TEXT else outcome)
    maybe_control()
    return bytes(sent), expected


@given(scripts(), st.lists(st.integers(1, 1000)))
def test_any_cutting_gives_what_was_sent(script: tuple[bytes, list[Outcome]], cuts: list[int]) -> None:
    """Messages, discards and control frames, all in their order."""
    sent, expected = script
    told, framer = run(sent, cuts)
    assert told.items == expected
    assert framer.violation is None
    assert not framer.begin


@given(scripts(), st.lists(st.integers(1, 1000)), st.data())
def test_a_spoilt_byte_never_raises_and_never_adds(
    script: tuple[bytes, list[Outcome]], cuts: list[int], data: st.DataObject
) -> None:
    """Whatever the bytes are, they are messages, a violation, or not whole yet; up to the byte nothing changes."""
    sent, expected = script
    position = data.draw(st.integers(0, len(sent) - 1))
    spoilt = bytearray(sent)
    spoilt[position] ^= data.draw(st.integers(1, 255))
    before, _ = run(sent[:position], cuts)
    told, framer = run(bytes(spoilt), cuts)
    assert told.items[: len(before.items)] == before.items == expected[: len(before.items)]
    assert framer.violation is None or framer.stopped


@given(st.binary(max_size=2000), st.lists(st.integers(1, 1000)))
def test_garbage_gives_the_same_however_it_is_cut(garbage: bytes, cuts: list[int]) -> None:
    """Verdict and messages depend on the bytes alone."""
    whole, cut = run(garbage, [len(garbage)]), run(garbage, cuts)
    assert whole[0].items == cut[0].items
    assert whole[1].violation == cut[1].violation


def test_a_violation_is_seen_before_the_body() -> None:
    """The head of a masked, overlong or badly measured frame is enough."""
    heads = (b"\x82\x81", b"\x82\xfe", b"\x82\x7e\x00\x7d", b"\x82\x7f" + (1 << 40).to_bytes(8, "big"), b"\xc2\x05")
    for head in heads:
        told, framer = run(ws.binary(b"before") + head, [1000])
        assert told.items == [b"before"]
        assert framer.violation


def slices(data: bytes) -> list[list[Outcome]]:
    """What comes out of one full buffer, slice by slice; the buffer is used for something else between two."""
    told, buffer = Told(), bytearray(data)
    framer = Framer(told, message_bytes_max=LIMIT, discard_bytes_max=100 * LIMIT)
    control, parts = framer.take(memoryview(buffer), len(buffer)), list[list[Outcome]]()
    buffer[:] = b"\xdd" * len(buffer)
    while True:
        if control:
            told.items.append((control[0] & 0x0F, control[2:]))
        parts.append(told.items)
        told.items = []
        if not framer.rest:
            assert framer.violation is None
            assert not framer.begin
            return parts
        control = framer.take_rest()


def test_a_buffer_of_empty_messages_comes_in_slices() -> None:
    """131,072 of them: none is lost, and no slice has more than its share."""
    parts = slices(ws.binary(b"") * 131_072)
    assert [len(part) for part in parts] == [FRAMES_PER_SLICE] * (131_072 // FRAMES_PER_SLICE)


def test_slices_keep_the_order_with_control_frames_between() -> None:
    """Wherever the control frames stand, and whatever kinds of frames a slice has."""
    for every in (1, 2, 63, 64, 65, 300):
        data, expected = bytearray(), list[Outcome]()
        for number in range(400):
            message = b"%d" % number
            if number % every == 0:
                data += ws.frame(ws.PING, message)
                expected.append((ws.PING, message))
            kind = number % 4
            data += ws.fragments(message, [1]) if kind == 0 else ws.frame(ws.TEXT if kind == 1 else ws.BINARY, message)
            expected.append(TEXT if kind == 1 else message)
        parts = slices(bytes(data))
        assert [item for part in parts for item in part] == expected
        assert max(map(len, parts)) <= FRAMES_PER_SLICE


def test_discarded_frames_fill_a_slice_too() -> None:
    """Text and fragments cost as much as messages."""
    assert [len(part) for part in slices(ws.frame(ws.TEXT, b"") * 200)] == [64, 64, 64, 8]
    pieces = ws.fragments(b"x" * 199, [1] * 199)
    assert [len(part) for part in slices(pieces)] == [0, 0, 0, 1]


def test_empty_fragments_that_never_end_are_a_violation() -> None:
    """They add nothing to any count of bytes. Each message may have so many."""
    most = ws.fragments(b"x", [0] * (FRAGMENTS_MAX - 1))
    told, framer = run(most * 2 + most[:-3], [4000] * 100)
    assert (told.items, framer.violation) == ([b"x", b"x"], None)
    more = ws.frame(ws.CONTINUATION, b"", final=False)
    told, framer = run(most * 2 + most[:-3] + more * 2 + ws.binary(b"after"), [4000] * 100)
    assert told.items == [b"x", b"x"]
    assert framer.violation == "message of over 10000 fragments"
