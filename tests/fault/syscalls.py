"""Reading what strace wrote, and whether a log was synced before it was published. Pure.

Owns the form of `OPTIONS`' output and the one question. Order is that of the lines: strace sees the entry of a call
before it runs and its end after it ran, so what the lines show in order did happen in that order.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WRITES = frozenset({"write", "writev", "pwrite64"})
SYNCS = frozenset({"fdatasync", "fsync"})
SENDS = frozenset({"sendto", "sendmsg"})
_DATA_BYTES_MAX = 4 << 20
OPTIONS = (
    "-D",  # the traced process is the child, so that signals and exit status are its own
    *("-f", "--seccomp-bpf", "-yy", "-xx", "-s", str(_DATA_BYTES_MAX)),
    *("-e", "trace=" + ",".join(sorted(WRITES | SYNCS | SENDS)), "-e", "signal=none"),
)

_BEGUN = re.compile(r"(\d+) +(\w+)\(\d+<((?:->|[^<>])*)>(.*)")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)")
_RESULT = re.compile(r".*= (-?\d+)(?: |$)")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(slots=True)
class Call:
    """One system call on a file or socket. `begun` and `ended` are line numbers; without an end `ended` is None."""

    name: str
    target: str
    data: bytes
    begun: int
    ended: int | None = None
    result: int | None = None

    def end(self, line: int, text: str) -> None:
        """Take the result from the rest of a line."""
        found = _RESULT.match(text)
        self.ended, self.result = line, int(found[1]) if found else None


def parse(lines: Iterable[str]) -> list[Call]:
    """The calls of a trace made with `OPTIONS` and `-o`, in the order of their beginning."""
    calls: list[Call] = []
    running: dict[tuple[str, str], Call] = {}
    for number, line in enumerate(lines):
        if found := _RESUMED.match(line):
            call = running.pop((found[1], found[2]), None)
            if call is not None:
                call.end(number, found[3])
        elif found := _BEGUN.match(line):
            target = _unescape(found[3]).decode(errors="replace")
            data = b"".join(_unescape(text) for text in _STRING.findall(found[4]))
            call = Call(found[2], target, data, number)
            calls.append(call)
            if line.rstrip().endswith("<unfinished ...>"):
                running[found[1], found[2]] = call
            else:
                call.end(number, line)
    return calls


def _unescape(text: str) -> bytes:
    """`-xx` writes all strings in hexadecimal; the names of sockets are plain."""
    return bytes.fromhex(text.replace("\\x", "")) if text.startswith("\\x") else text.encode()


def publishing_faults(calls: Sequence[Call], *, events: Iterable[bytes], log_directory: str, port: int) -> list[str]:
    """Which events went to a consumer before the write-ahead log that has them was synced; one line each.

    `events` are bytes that occur in no other event. A sync counts when it began after the write had ended, and
    ended well before the first send to a client of the `port` began.
    """
    wal = re.compile(re.escape(log_directory) + r"/\d+\.log")
    writes = [call for call in calls if call.name in WRITES and wal.fullmatch(call.target)]
    syncs = [call for call in calls if call.name in SYNCS and call.result == 0]
    sends = [call for call in calls if call.name in SENDS and f":{port}->" in call.target]
    faults = []
    for event in events:
        written = next((call for call in writes if event in call.data), None)
        sent = next((call for call in sends if event in call.data), None)
        if written is None or sent is None:
            faults.append(f"{event.hex()}: never {'written' if written is None else 'sent'}")
        elif not any(_is_between(sync, written, sent) for sync in syncs):
            faults.append(f"{event.hex()}: written in line {written.begun}, sent in {sent.begun}, no sync between")
    return faults


def _is_between(sync: Call, written: Call, sent: Call) -> bool:
    if sync.target != written.target or written.ended is None or sync.ended is None:
        return False
    return written.ended < sync.begun and sync.ended < sent.begun
