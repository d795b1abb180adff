"""`just bench ingest`: what one commit costs the relay, everything included. Prints one JSON object.

A flood over some hosts from another process, the relay in its own, one consumer in this one. CPU is user and system
time of the relay's process; identities are known (one commit of each account goes ahead).
"""

import argparse
import base64
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import IO, Any

from tests.bench.facts import cpu_seconds, k256_verification_us, machine_facts, resident_bytes
from tests.world.keys import SigningKey

_PASSWORD = "bench"
_DEADLINE_SECONDS = 300.0


class Consumer:
    """Counts the frames of a subscribeRepos stream as cheaply as Python can."""

    def __init__(self, port: int) -> None:
        self.events = 0
        self.bytes = 0
        self._buffer = b""
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET /xrpc/com.atproto.sync.subscribeRepos?cursor=0 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += self._socket.recv(65536)
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        if b" 101 " not in head.partition(b"\r\n")[0]:
            raise RuntimeError(head.decode())

    def read_until(self, events: int) -> None:
        """Read until that many events have come in all."""
        self._socket.settimeout(_DEADLINE_SECONDS)
        while self.events < events:
            self._count()
            if self.events >= events:
                return
            received = self._socket.recv(1 << 20)
            if not received:
                raise RuntimeError(f"the relay closed the stream after {self.events} events")
            self._buffer += received

    def _count(self) -> None:
        buffer, at, end = self._buffer, 0, len(self._buffer)
        while end - at >= 10:
            length, start = buffer[at + 1], at + 2
            if length == 126:
                length, start = int.from_bytes(buffer[at + 2 : at + 4], "big"), at + 4
            elif length == 127:
                length, start = int.from_bytes(buffer[at + 2 : at + 10], "big"), at + 10
            if start + length > end:
                break
            if buffer[at] == 0x82:
                self.events += 1
                self.bytes += length
            at = start + length
        self._buffer = buffer[at:]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _start_relay(data: Path, plc: str, firehose: int, http: int, python: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "RELAY_DATA_DIR": str(data),
        "RELAY_FIREHOSE_BIND": f"127.0.0.1:{firehose}",
        "RELAY_HTTP_BIND": f"127.0.0.1:{http}",
        "RELAY_PLC_URL": plc,
        "RELAY_ADMIN_PASSWORD": _PASSWORD,
        "RELAY_ALLOW_PRIVATE_HOSTS": "true",
        "RELAY_LOG_LEVEL": "warning",
    }
    process = subprocess.Popen([python, "-m", "relay", "serve"], env=environment)
    for _ in range(200):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{http}/_health", timeout=1):
                return process
        except OSError:
            time.sleep(0.05)
    process.kill()
    raise RuntimeError("the relay did not start")


def _request_crawl(http: int, host: str) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{http}/admin/pds/requestCrawl",
        data=json.dumps({"hostname": host}).encode(),
        headers={
            "Content-Type": "application/json",
            "Authorization": "Basic " + base64.b64encode(f"admin:{_PASSWORD}".encode()).decode(),
        },
    )
    with urllib.request.urlopen(request, timeout=10):
        pass


def _tell(load: subprocess.Popen[str], command: str) -> None:
    assert load.stdin is not None
    load.stdin.write(command + "\n")
    load.stdin.flush()


def _await_event(output: IO[str], event: str) -> dict[str, Any]:
    for line in output:
        message: dict[str, Any] = json.loads(line)
        if message["event"] == event:
            return message
    raise RuntimeError(f"the load process ended before {event!r}")


def run(given: argparse.Namespace) -> dict[str, object]:
    """One run; the result as it is printed."""
    arguments = ["--commits", given.commits, "--accounts", given.accounts, "--hosts", given.hosts, "--rate", given.rate]
    if given.cache:
        arguments += ["--cache", given.cache]
    load = subprocess.Popen(
        [sys.executable, "-m", "tests.world.load", *(str(argument) for argument in arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert load.stdout is not None
    relay: subprocess.Popen[bytes] | None = None
    try:
        ready = _await_event(load.stdout, "ready")
        firehose, http = _free_port(), _free_port()
        with tempfile.TemporaryDirectory(dir=given.data) as data:
            relay = _start_relay(Path(data), ready["plc"], firehose, http, given.python)
            for host in ready["hosts"]:
                _request_crawl(http, host)
            consumer = Consumer(firehose)
            _tell(load, "warm")
            consumer.read_until(ready["warm_up"])
            yardstick = k256_verification_us(SigningKey.generate(random.Random(1), "k256"))
            cpu, wall = cpu_seconds(relay.pid), time.monotonic()
            _tell(load, "go")
            consumer.read_until(ready["warm_up"] + ready["commits"])
            cpu, wall = cpu_seconds(relay.pid) - cpu, time.monotonic() - wall
            resident = resident_bytes(relay.pid)
            relay.terminate()
            relay.wait(timeout=30)
        per_commit = cpu / ready["commits"] * 1e6
        return {
            "bench": "ingest",
            "commits": ready["commits"],
            "median_frame_bytes": ready["median_bytes"],
            "hosts": given.hosts,
            "accounts": given.accounts,
            "cpu_us_per_commit": round(per_commit, 1),
            "k256_verification_us": round(yardstick, 1),
            "verifications_per_commit": round(per_commit / yardstick, 2),
            "commits_per_second": round(ready["commits"] / wall),
            "resident_mib": resident >> 20,
            "machine": machine_facts(),
        }
    finally:
        for process in (relay, load):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="just bench ingest", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--commits", type=int, default=30_000)
    parser.add_argument("--accounts", type=int, default=1000)
    parser.add_argument("--hosts", type=int, default=10)
    parser.add_argument("--rate", type=float, default=0.0, help="events a second (0: a flood)")
    parser.add_argument("--cache", type=Path, help="file to keep the prepared load in")
    parser.add_argument("--data", type=Path, help="directory for the relay's data (default: the temporary one)")
    parser.add_argument("--python", default=sys.executable, help="interpreter that runs the relay")
    print(json.dumps(run(parser.parse_args()), indent=2))


if __name__ == "__main__":
    main()
