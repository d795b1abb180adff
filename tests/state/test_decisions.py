"""Standing decisions, on both engines."""

import pytest
import trio

from relay.state.decisions import Decision, DecisionKind, Decisions, JsonValue
from tests.state.conftest import Target
from tests.state.rows import migrated

BAN = DecisionKind.HOST_BAN


async def test_a_decision_is_pending_until_it_is_marked_applied(target: Target) -> None:
    """decide, pending, mark_applied and get tell one story."""
    async with migrated(target) as database:
        decisions = Decisions(database)
        assert await decisions.get(BAN, "pds.example") is None
        made = await decisions.decide(BAN, "pds.example", True, by="admin", at_us=1_700_000_000_000_000)
        assert made == Decision(BAN, "pds.example", True, 1_700_000_000_000_000, "admin", None)
        assert [made] == await decisions.pending()
        assert await decisions.mark_applied(made, 77)
        assert await decisions.pending() == []
        assert Decision(BAN, "pds.example", True, made.decided_at_us, "admin", 77) == await decisions.get(
            BAN, "pds.example"
        )
        assert not await decisions.mark_applied(made, 78)
        applied = await decisions.get(BAN, "pds.example")
        assert applied is not None
        assert applied.applied_seq == 77


async def test_a_superseded_decision_can_not_be_marked(target: Target) -> None:
    """What was decided meanwhile stays pending, even if the clock stood still or went back."""
    async with migrated(target) as database:
        decisions = Decisions(database)
        first = await decisions.decide(BAN, "pds.example", True, by="admin", at_us=5_000)
        for at_us in (5_000, 4_000):
            second = await decisions.decide(BAN, "pds.example", False, by="admin", at_us=at_us)
            assert second.decided_at_us > first.decided_at_us
            assert not await decisions.mark_applied(first, 9)
            assert [second] == await decisions.pending()
            first = second
        assert await decisions.mark_applied(first, 10)
        third = await decisions.decide(BAN, "pds.example", True, by="admin", at_us=9_000)
        assert [third] == await decisions.pending()
        assert third.decided_at_us == 9_000


async def test_pending_comes_in_the_order_of_the_decisions(target: Target) -> None:
    """Applying them in this order repeats what the operator did."""
    async with migrated(target) as database:
        decisions = Decisions(database)
        await decisions.decide(DecisionKind.ACCOUNT_TAKEDOWN, "did:plc:b", True, by="a", at_us=30)
        await decisions.decide(BAN, "z.example", True, by="a", at_us=10)
        await decisions.decide(DecisionKind.CRAWL_ENABLED, "", False, by="a", at_us=20)
        assert [decision.decided_at_us for decision in await decisions.pending()] == [10, 20, 30]


@pytest.mark.parametrize(
    "value",
    [None, True, False, 0, -1, 2**53, 1.5, "", "é 𝄞 \0 ' $1 ?1 {x}", [], [1, [None]], {"a": {"b": ["c"]}, "": "'"}],
)
async def test_any_json_value_comes_back_as_it_was(target: Target, value: JsonValue) -> None:
    """Values are data: quotes, parameters and zero bytes in them mean nothing."""
    async with migrated(target) as database:
        decisions = Decisions(database)
        await decisions.decide(DecisionKind.HOST_LIMIT, "pds.example", value, by="admin", at_us=1)
        assert {"pds.example": value} == await decisions.standing(DecisionKind.HOST_LIMIT)
        (pending,) = await decisions.pending()
        assert repr(value) == repr(pending.value)


async def test_standing_is_of_one_kind_applied_or_not(target: Target) -> None:
    """A reversed decision stands with its new value."""
    async with migrated(target) as database:
        decisions = Decisions(database)
        for kind in DecisionKind:
            await decisions.decide(kind, "same.example", kind.value, by="admin", at_us=1)
        banned = await decisions.decide(BAN, "pds.example", True, by="admin", at_us=2)
        await decisions.mark_applied(banned, 3)
        await decisions.decide(BAN, "other.example", True, by="admin", at_us=3)
        await decisions.decide(BAN, "other.example", False, by="admin", at_us=4)
        expected = {"same.example": "host_ban", "pds.example": True, "other.example": False}
        assert expected == await decisions.standing(BAN)


async def test_concurrent_decisions_about_one_subject_all_count(target: Target) -> None:
    """Each gets a time of its own, the one with the latest stands, and only that one can be marked."""
    made: list[Decision] = []
    async with migrated(target) as database:
        decisions = Decisions(database)

        async def decide(number: int) -> None:
            made.append(await decisions.decide(BAN, "pds.example", number, by=f"admin {number}", at_us=1_000))

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(decide, number)
        assert len({decision.decided_at_us for decision in made}) == 20
        last = max(made, key=lambda decision: decision.decided_at_us)
        assert last == await decisions.get(BAN, "pds.example")
        assert [last] == [decision for decision in made if await decisions.mark_applied(decision, 5)]


async def test_a_decision_rolled_back_was_never_made(target: Target) -> None:
    """Through a transaction, decisions go with everything else of it."""
    async with migrated(target) as database:
        before = await Decisions(database).decide(BAN, "pds.example", True, by="admin", at_us=1)

        async def decide_and_fail() -> None:
            async with database.transaction() as transaction:
                await Decisions(transaction).decide(BAN, "pds.example", False, by="admin", at_us=2)
                await Decisions(transaction).decide(BAN, "new.example", True, by="admin", at_us=2)
                raise RuntimeError("changed my mind")

        with pytest.raises(RuntimeError, match="changed my mind"):
            await decide_and_fail()
        assert [before] == await Decisions(database).pending()
