"""How far `relay hosts pull` is with each relay it reads host lists from, so that it resumes. Trio shell."""

from dataclasses import dataclass

from relay.state.database import Executor


@dataclass(frozen=True, slots=True)
class Pull:
    """Progress through one `listHosts`: `cursor` for the next page ("" at the beginning)."""

    source: str
    cursor: str
    hosts_seen: int
    updated_at_us: int
    finished: bool


class Pulls:
    """The pulls table, through a database or a transaction. Every method raises StateUnavailable in an outage."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def get(self, source: str) -> Pull | None:
        """The progress with this source; None if it was never read."""
        rows = await self._executor.fetch(
            "SELECT source, cursor, hosts_seen, updated_at_us, finished FROM pulls WHERE source = $1", source
        )
        if not rows:
            return None
        source, cursor, hosts_seen, updated_at_us, finished = rows[0]
        return Pull(source, cursor, hosts_seen, updated_at_us, bool(finished))

    async def save(self, pull: Pull) -> None:
        """Keeps this progress in place of the one before."""
        await self._executor.execute(
            """
            INSERT INTO pulls (source, cursor, hosts_seen, updated_at_us, finished) VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (source) DO UPDATE SET
                cursor = excluded.cursor,
                hosts_seen = excluded.hosts_seen,
                updated_at_us = excluded.updated_at_us,
                finished = excluded.finished
            """,
            pull.source,
            pull.cursor,
            pull.hosts_seen,
            pull.updated_at_us,
            pull.finished,
        )
