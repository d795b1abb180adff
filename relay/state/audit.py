"""Who did what, when, and how it ended. Trio shell.

Append-only: nothing here changes or deletes a row. In one transaction with the decision it tells of, both are kept or
neither.
"""

from dataclasses import dataclass

import orjson

from relay.state.database import Executor, Row
from relay.state.decisions import JsonValue

_ID_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One action: by whom (`actor`), on what (`subject`), with what in the request (`detail`)."""

    id: int
    at_us: int
    actor: str
    action: str
    subject: str
    detail: JsonValue
    outcome: str


class Audit:
    """The audit table, through a database or a transaction. Every method raises StateUnavailable in an outage."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def record(
        self, *, at_us: int, actor: str, action: str, subject: str, detail: JsonValue, outcome: str
    ) -> AuditEntry:
        """Appends an entry and gives it back with its number. `subject` may be anything a request had in it."""
        subject = subject.replace("\0", "\N{REPLACEMENT CHARACTER}")  # PostgreSQL has no place for it in a text
        rows = await self._executor.fetch(
            "INSERT INTO audit (at_us, actor, action, subject, detail, outcome) VALUES ($1, $2, $3, $4, $5, $6)"
            " RETURNING id",
            at_us,
            actor,
            action,
            subject,
            orjson.dumps(detail).decode(),
            outcome,
        )
        return AuditEntry(rows[0][0], at_us, actor, action, subject, detail, outcome)

    async def page(self, before_id: int | None, limit: int) -> list[AuditEntry]:
        """At most `limit` entries, newest first; from the newest of all, or below `before_id`."""
        rows = await self._executor.fetch(
            "SELECT id, at_us, actor, action, subject, detail, outcome FROM audit WHERE id < $1"
            " ORDER BY id DESC LIMIT $2",
            _ID_MAX if before_id is None else before_id,
            limit,
        )
        return [_entry(row) for row in rows]


def _entry(row: Row) -> AuditEntry:
    entry_id, at_us, actor, action, subject, detail, outcome = row
    return AuditEntry(entry_id, at_us, actor, action, subject, orjson.loads(detail), outcome)
