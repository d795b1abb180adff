"""A relay process to which things happen: how it ended, and what it said. Trio."""

import signal

from tests.relay_process import RELAY, RelayProcess

COMMAND = (*RELAY, "--reconnect-min-seconds", "0.05")


class Victim(RelayProcess):
    """A relay that is killed on purpose."""

    async def kill_hard(self) -> None:
        """SIGKILL; the process must have been alive until then."""
        process = self._process
        assert process is not None
        assert process.poll() is None, f"the relay ended by itself: {self.log_tail()}"
        await self.kill()
        assert process.returncode == -signal.SIGKILL

    def send_signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Return the exit status once the process is over."""
        assert self._process is not None
        return await self._process.wait()

    def log(self) -> str:
        """All that it has written so far, over all its starts."""
        return (self._directory / "relay.log").read_text(errors="replace")
