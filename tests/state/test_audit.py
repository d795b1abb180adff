"""The audit log and the progress of pulls, on both engines."""

import trio

from relay.state.audit import Audit, AuditEntry
from relay.state.decisions import DecisionKind, Decisions
from relay.state.pulls import Pull, Pulls
from tests.state.conftest import Target
from tests.state.rows import migrated


async def record(audit: Audit, action: str, subject: str = "pds.example") -> AuditEntry:
    return await audit.record(
        at_us=12, actor="admin", action=action, subject=subject, detail={"from": ["127.0.0.1"]}, outcome="ok"
    )


async def test_pages_go_from_the_newest_to_the_first_entry(target: Target) -> None:
    """Paging by id gives every entry once, even while new ones come in."""
    async with migrated(target) as database:
        audit = Audit(database)
        assert await audit.page(None, 10) == []
        entries = [await record(audit, f"action {number}") for number in range(5)]
        first = await audit.page(None, 2)
        await record(audit, "later")
        second = await audit.page(first[-1].id, 2)
        third = await audit.page(second[-1].id, 2)
        assert entries[::-1] == first + second + third
        assert await audit.page(third[-1].id, 2) == []


async def test_concurrent_entries_get_different_numbers(target: Target) -> None:
    """No entry is lost or counted twice."""
    async with migrated(target) as database:
        audit = Audit(database)
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(record, audit, f"action {number}")
        entries = await audit.page(None, 100)
        assert {f"action {number}" for number in range(20)} == {entry.action for entry in entries}
        assert len({entry.id for entry in entries}) == 20


async def test_whatever_a_request_named_can_be_recorded(target: Target) -> None:
    """A zero byte, which PostgreSQL can't keep in a text, becomes the replacement character."""
    async with migrated(target) as database:
        audit = Audit(database)
        await record(audit, "refused", "a\0b'; DROP TABLE audit; -- \u2028 𝄞")
        assert [entry.subject for entry in await audit.page(None, 10)] == ["a\ufffdb'; DROP TABLE audit; -- \u2028 𝄞"]


async def test_a_decision_and_its_entry_are_kept_together(target: Target) -> None:
    """Both through one transaction; a time that has its entry has its decision."""
    async with migrated(target) as database:
        async with database.transaction() as transaction:
            decision = await Decisions(transaction).decide(DecisionKind.HOST_BAN, "a.example", True, by="x", at_us=1)
            entry = await record(Audit(transaction), "ban", "a.example")
        assert [decision] == await Decisions(database).pending()
        assert [entry] == await Audit(database).page(None, 10)


async def test_a_pull_resumes_where_it_was(target: Target) -> None:
    """The last saved progress of a source is the one that counts, also for the next process."""
    source = "https://relay.example"
    async with migrated(target) as database:
        pulls = Pulls(database)
        assert await pulls.get(source) is None
        await pulls.save(Pull(source, "page 2", 1_000, 5, False))
        await pulls.save(Pull("https://other.example", "", 0, 6, False))
        await pulls.save(Pull(source, "page 3", 2_000, 7, True))
    async with migrated(target) as database:
        found = await Pulls(database).get(source)
        assert Pull(source, "page 3", 2_000, 7, True) == found
        assert found is not None
        assert found.finished is True
