"""Foreign consumers: libraries that others wrote, each in a process of its own, one JSON line per event. Trio."""

import json
import subprocess
from pathlib import Path
from typing import Any

import trio

from tests.e2e.arrivals import Arrivals
from tests.e2e.observed import Fact
from tests.relay_process import stop_process


class ForeignConsumer:
    """Runs one consumer process and collects what it reports. Its ending or an `error` line raises out of `run`."""

    def __init__(self, name: str, *, command: list[str], log: Path) -> None:
        self.facts: Arrivals[Fact] = Arrivals(name)
        self._command = command
        self._log = log

    async def run(self) -> None:
        with self._log.open("wb") as log:
            process = await trio.lowlevel.open_process(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
            try:
                await self._collect(process)
            finally:
                await stop_process(process)
        raise AssertionError(f"{self.facts.name} ended by itself: {self._log.read_text()[-2000:]}")

    async def _collect(self, process: trio.Process) -> None:
        assert process.stdout is not None
        rest = b""
        async for chunk in process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                fact: dict[str, Any] = json.loads(line)
                assert "error" not in fact, f"{self.facts.name}: {fact['error']}"
                self.facts.add(fact)
