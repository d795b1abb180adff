"""`python -m tests.world`: a fake network to run a relay against by hand. A trio shell.

Prints how to point a relay at it, then lives (commits, sign-ups, handles, deactivations, syncs) until interrupted.
"""

import argparse
import time

import trio

from tests.world.network import World
from tests.world.workload import EVERYTHING, Workload


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


async def run(*, hosts: int, accounts: int, records: int, rate: float, seed: int, http_port: int) -> None:
    """Serve and live until cancelled."""
    world = await World.open(seed=seed, hosts=hosts, now_microseconds=now_microseconds())
    for index in range(accounts):
        host = world.hosts[index % hosts]
        world.create_account(host, curve="p256" if index % 5 == 4 else "k256", preload=records)
    workload = Workload(world, weights=EVERYTHING, caught_up=lambda _: False)
    print(instructions(world, http_port=http_port), flush=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.serve)
        begun = trio.current_time()
        step = 0
        while True:
            await trio.sleep_until(begun + step / rate)
            world.clock.catch_up(now_microseconds())
            workload.step()
            step += 1
            if step % max(1, round(rate * 10)) == 0:
                connected = sum(host.subscribers for host in world.hosts)
                print(f"{len(world.emitted)} events, {connected} subscriptions", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.world", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hosts", type=int, default=3)
    parser.add_argument("--accounts", type=int, default=20)
    parser.add_argument("--records", type=int, default=400, help="records of each account at the start")
    parser.add_argument("--rate", type=float, default=50.0, help="life events a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--http-port", type=int, default=3001, help="the relay's HTTP port, for the curl lines")
    given = parser.parse_args()
    try:
        trio.run(lambda: run(**vars(given)))
    except KeyboardInterrupt:
        print("ended")


if __name__ == "__main__":
    main()
