"""What the operator decided, and whether the relay has taken it up. Trio shell.

One row per (kind, subject): the last decision. It is pending until the sequencer has applied it in a batch and its seq
is noted here (DESIGN 5.1). Taking something back is a decision too (a ban of `false`): rows are never deleted. What is
in force is RocksDB's to say, not this table's.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from relay.state.database import Executor, Row

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]

_COLUMNS = "kind, subject, value, decided_at_us, decided_by, applied_seq"


class DecisionKind(StrEnum):
    """What can be decided. A new kind comes with a new schema version: an older relay can't apply it.

    The subject is a host name, a domain suffix, a DID or, for what concerns the whole relay, "".
    """

    HOST_ADDED = "host_added"
    HOST_BAN = "host_ban"
    HOST_LIMIT = "host_limit"
    DOMAIN_BAN = "domain_ban"
    ACCOUNT_TAKEDOWN = "account_takedown"
    NEW_HOSTS_PER_DAY = "new_hosts_per_day"
    CRAWL_ENABLED = "crawl_enabled"


@dataclass(frozen=True, slots=True)
class Decision:
    """A standing decision. `applied_seq` None: pending. `decided_at_us` names this version of it (see `decide`)."""

    kind: DecisionKind
    subject: str
    value: JsonValue
    decided_at_us: int
    decided_by: str
    applied_seq: int | None


class Decisions:
    """The decisions table, through a database or a transaction. Every method raises StateUnavailable in an outage."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def decide(self, kind: DecisionKind, subject: str, value: JsonValue, *, by: str, at_us: int) -> Decision:
        """Notes a decision as pending, in place of the one before; gives it back as it stands.

        Its `decided_at_us` is `at_us`, or one more than the one before had if the clock is not beyond that: the
        decision that comes last stands, and no two have the same time.
        """
        rows = await self._executor.fetch(
            """
            INSERT INTO decisions (kind, subject, value, decided_at_us, decided_by, applied_seq)
            VALUES ($1, $2, $3, $4, $5, NULL)
            ON CONFLICT (kind, subject) DO UPDATE SET
                value = excluded.value,
                decided_at_us = CASE
                    WHEN excluded.decided_at_us > decisions.decided_at_us THEN excluded.decided_at_us
                    ELSE decisions.decided_at_us + 1
                END,
                decided_by = excluded.decided_by,
                applied_seq = NULL
            RETURNING decided_at_us
            """,
            kind,
            subject,
            orjson.dumps(value).decode(),
            at_us,
            by,
        )
        return Decision(kind, subject, value, rows[0][0], by, None)

    async def pending(self) -> list[Decision]:
        """Decisions that were not applied yet, in the order they were made."""
        rows = await self._executor.fetch(
            f"SELECT {_COLUMNS} FROM decisions WHERE applied_seq IS NULL ORDER BY decided_at_us, kind, subject"  # noqa: S608
        )
        return [_decision(row) for row in rows]

    async def mark_applied(self, decision: Decision, seq: int) -> bool:
        """Notes that it is in force from `seq` on. False: not done, another stands now or it was noted before."""
        rows = await self._executor.fetch(
            """
            UPDATE decisions SET applied_seq = $1
            WHERE kind = $2 AND subject = $3 AND decided_at_us = $4 AND applied_seq IS NULL
            RETURNING applied_seq
            """,
            seq,
            decision.kind,
            decision.subject,
            decision.decided_at_us,
        )
        return bool(rows)

    async def standing(self, kind: DecisionKind) -> dict[str, JsonValue]:
        """What stands for every subject of this kind, pending or applied."""
        rows = await self._executor.fetch("SELECT subject, value FROM decisions WHERE kind = $1", kind)
        return {subject: orjson.loads(value) for subject, value in rows}

    async def get(self, kind: DecisionKind, subject: str) -> Decision | None:
        """What stands for one subject; None if nothing was ever decided."""
        rows = await self._executor.fetch(
            f"SELECT {_COLUMNS} FROM decisions WHERE kind = $1 AND subject = $2",  # noqa: S608
            kind,
            subject,
        )
        return _decision(rows[0]) if rows else None


def _decision(row: Row) -> Decision:
    kind, subject, value, decided_at_us, decided_by, applied_seq = row
    parsed: Any = orjson.loads(value)
    return Decision(DecisionKind(kind), subject, parsed, decided_at_us, decided_by, applied_seq)
