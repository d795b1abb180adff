"""What one consumer-message costs on the streaming port: CPU of the serving process, loopback TCP.

    python -m tests.bench.fanout_micro --consumers 100 --rate 500 --seconds 5
    python -m tests.bench.fanout_micro --consumers 1 --replay 100000

The log is a list of frames joined per read, as in the tail; producing is included. The consumers are one child
process that throws away what it reads. No verdict: numbers to compare on one machine.
"""

import argparse
import json
import selectors
import socket
import sys
import time
from functools import partial

import trio

from tests.firehose.list_log import ListLog
from tests.firehose.port import UPGRADE, Port, Settings, running

_EVENT_BYTES = 5000


def _drain(number: int, consumers: int, path: str) -> None:
    """The child: connect, then read for ever."""
    selector = selectors.DefaultSelector()
    for _ in range(consumers):
        connection = socket.create_connection(("127.0.0.1", number))
        connection.sendall(f"GET {path} HTTP/1.1\r\n{UPGRADE}\r\n".encode())
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ)
    buffer = bytearray(1 << 20)
    while True:
        for key, _ in selector.select():
            readable = key.fileobj
            assert isinstance(readable, socket.socket)
            if not readable.recv_into(buffer):
                return


async def _until_sent(port: Port, total: int) -> None:
    while port.consumers.events_total < total:
        await trio.sleep(0.005)


async def _measure(consumers: int, rate: int, seconds: float, replay: int) -> dict[str, float]:
    log = ListLog()
    log.append(replay, size=_EVENT_BYTES)
    async with running(Settings(consumers_per_address_max=consumers), log=log) as port:
        path = port.url.partition(str(port.number))[2] + ("?cursor=0" if replay else "")
        command = [sys.executable, "-m", __spec__.name, "--drain", str(port.number), "--path", path]
        cpu, wall = time.process_time(), time.perf_counter()
        command += ["--consumers", str(consumers)]
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(trio.run_process, command))
            if replay:
                total = replay * consumers
                await _until_sent(port, total)
            else:
                while len(port.sweep) < consumers:
                    await trio.sleep(0.01)
                cpu, wall = time.process_time(), time.perf_counter()
                total = int(rate * seconds) * consumers
                for n in range(1, int(rate * seconds) + 1):
                    log.append(1, size=_EVENT_BYTES)
                    await trio.sleep(max(0, wall + n / rate - time.perf_counter()))
                await _until_sent(port, total)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            nursery.cancel_scope.cancel()
        return {
            "consumers": consumers,
            "cpu_us_per_consumer_message": round(cpu / total * 1e6, 2),
            "consumer_messages_per_second": round(total / wall),
            "cpu_share": round(cpu / wall, 2),
        }


def main() -> None:
    """Parse arguments, print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--consumers", type=int, default=100)
    parser.add_argument("--rate", type=int, default=500, help="events per second")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--replay", type=int, default=0, help="events to replay to each consumer instead")
    parser.add_argument("--drain", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--path", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drain is not None:
        _drain(arguments.drain, arguments.consumers, arguments.path)
        return
    result = trio.run(_measure, arguments.consumers, arguments.rate, arguments.seconds, arguments.replay)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
