"""Several processes on one database, and one that dies."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from relay.state.decisions import DecisionKind, Decisions
from relay.state.migrations import LATEST, check_schema
from tests.state.conftest import Target
from tests.state.rows import migrated

Child = subprocess.Popen[str]


@contextmanager
def child(task: str, target: Target) -> Iterator[Child]:
    """A process that is ready to begin."""
    command = [sys.executable, "-m", "tests.state.child", task, str(target.data_dir)]
    with subprocess.Popen(
        [*command, *([target.url] if target.url else [])], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert hear(process) == "ready"
            yield process
        finally:
            process.kill()


def begin(process: Child) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def hear(process: Child) -> object:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


async def test_two_processes_migrate_at_once(target: Target) -> None:
    """Both come out with the whole schema; PostgreSQL's report tells that one of them made it."""
    with child("migrate", target) as first, child("migrate", target) as second:
        begin(first)
        begin(second)
        applied = [hear(first), hear(second)]
    if target.engine == "postgresql":
        assert sorted(applied, key=str) == [list(range(1, LATEST + 1)), []]
    async with target.open() as database:
        await check_schema(database)
        assert await database.fetch("SELECT version FROM schema_version ORDER BY version") == [
            (number,) for number in range(1, LATEST + 1)
        ]


async def test_a_decision_survives_the_process_that_made_it(target: Target) -> None:
    """SIGKILL between decide and mark_applied leaves it pending, to be applied at the next start."""
    async with migrated(target):
        pass
    with child("pds.example", target) as process:
        begin(process)
        assert hear(process) == 5
        process.kill()
        process.wait()
    async with target.open() as database:
        decisions = Decisions(database)
        (pending,) = await decisions.pending()
        assert (pending.kind, pending.subject, pending.applied_seq) == (DecisionKind.HOST_BAN, "pds.example", None)
        assert await decisions.mark_applied(pending, 8)


async def test_two_processes_use_one_database(target: Target) -> None:
    """The command line may write while the relay runs, with SQLite too."""
    async with migrated(target) as database:
        with child("child.example", target) as process:
            ours = await Decisions(database).decide(DecisionKind.HOST_BAN, "a.example", True, by="parent", at_us=1)
            begin(process)
            assert hear(process) == 5
            assert await Decisions(database).mark_applied(ours, 3)
            assert [each.decided_by for each in await Decisions(database).pending()] == ["child"]
