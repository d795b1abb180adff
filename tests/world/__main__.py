"""`python -m tests.world`: a fake network to run a relay against by hand. A trio shell.

Prints how to point a relay at it, then lives (commits, sign-ups, handles, deactivations, syncs) until interrupted;
with `--watch-port` it verifies what the relay lets out, and rotates keys and migrates accounts too.
"""

import argparse
import time

import trio

from tests.world.network import World
from tests.world.watch import Watch
from tests.world.workload import EVERYTHING, Workload

REPORT_SECONDS = 10


def instructions(world: World, *, http_port: int) -> str:
    """What a person types to run a relay against this network."""
    lines = [f"PLC directory  {world.directory.url}"]
    lines += [f"PDS host       {host.name}" for host in world.hosts]
    settings = world.relay_environment("./data-world")
    lines += ["", "start a relay with", *(f"  export {name}={value}" for name, value in settings.items())]
    url = f"http://localhost:{http_port}/admin/pds/requestCrawl"
    lines += ["", "and tell it of the hosts with"]
    for host in world.hosts:
        body = f'{{"hostname": "{host.name}"}}'
        password = settings["RELAY_ADMIN_PASSWORD"]
        lines.append(f"  curl -u admin:{password} -H 'Content-Type: application/json' -d '{body}' {url}")
    return "\n".join(lines)


def now_microseconds() -> int:
    """The real time."""
    return time.time_ns() // 1000


async def run(
    *, hosts: int, accounts: int, records: int, rate: float, seed: int, http_port: int, watch_port: int | None
) -> None:
    """Serve and live until cancelled."""
    world = await World.open(seed=seed, hosts=hosts, now_microseconds=now_microseconds())
    for index in range(accounts):
        host = world.hosts[index % hosts]
        world.create_account(host, curve="p256" if index % 5 == 4 else "k256", preload=records)
    print(instructions(world, http_port=http_port), flush=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.serve)
        watch = None if watch_port is None else Watch(world=world, port=watch_port, retry_seconds=1)
        if watch is not None:
            nursery.start_soon(watch.run)
        workload = Workload(
            world, weights=EVERYTHING, caught_up=watch.caught_up if watch is not None else lambda _: False
        )
        begun = trio.current_time()
        step = 0
        while True:
            await trio.sleep_until(begun + step / rate)
            world.clock.catch_up(now_microseconds())
            workload.step()
            step += 1
            if step % max(1, round(rate * REPORT_SECONDS)) == 0:
                print(report(world, watch), flush=True)


def report(world: World, watch: Watch | None) -> str:
    """One line on how far things are."""
    line = f"{len(world.emitted)} emitted, {sum(host.subscribers for host in world.hosts)} subscriptions"
    if watch is None:
        return line
    verified = f"{line}; {len(watch.events)} came out and verified, {len(watch.rejected)} came out and did not"
    return "\n  ".join([verified, *watch.rejected[-3:]])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.world", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hosts", type=int, default=3)
    parser.add_argument("--accounts", type=int, default=20)
    parser.add_argument("--records", type=int, default=400, help="records of each account at the start")
    parser.add_argument("--rate", type=float, default=50.0, help="life events a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--http-port", type=int, default=3001, help="the relay's HTTP port, for the curl lines")
    parser.add_argument(
        "--watch-port",
        type=int,
        help="the relay's firehose port: verify what comes out; keys and hosts change only with it",
    )
    given = parser.parse_args()
    try:
        trio.run(lambda: run(**vars(given)))
    except* KeyboardInterrupt:
        print("ended")


if __name__ == "__main__":
    main()
