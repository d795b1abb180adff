"""A process with the database open, for tests of several processes: `python -m tests.state.child TASK FOLDER [URL]`.

Opens, says "ready", waits for a line, does its task, says what came out as one line of JSON, and waits to be killed or
for the end of its input.
"""

import json
import sys
from pathlib import Path

import trio

from relay.state.decisions import DecisionKind, Decisions
from relay.state.migrations import check_schema, migrate
from relay.state.opening import open_database


def say(value: object) -> None:
    print(json.dumps(value), flush=True)


async def do(task: str, data_dir: Path, url: str | None) -> None:
    say("ready")
    sys.stdin.readline()
    async with open_database(
        url, data_dir=data_dir, pool_size=1, statement_seconds=20, reconnect_seconds=0.05
    ) as database:
        if task == "migrate":
            applied = await migrate(database)
            await check_schema(database)
            say(applied)
        else:
            decision = await Decisions(database).decide(DecisionKind.HOST_BAN, task, True, by="child", at_us=5)
            say(decision.decided_at_us)
        sys.stdin.read()


if __name__ == "__main__":
    trio.run(do, sys.argv[1], Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
