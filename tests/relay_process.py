"""The relay as an operator runs it: a process of its own, configured by its environment alone. Trio."""

import os
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import trio

_START_SECONDS = 30
_STOP_SECONDS = 30
_POLL_SECONDS = 0.05
ADMIN_PASSWORD = "e2e"
RELAY = (sys.executable, "-m", "relay", "serve")


class RelayProcess:
    """Owns one relay's data directory, ports and process; `start` and one of the two ends may alternate."""

    def __init__(self, *, command: Sequence[str], directory: Path, plc: str, http: httpx.AsyncClient) -> None:
        self.firehose_port, self.http_port = free_port(), free_port()
        self.firehose = f"ws://127.0.0.1:{self.firehose_port}"
        self.url = f"http://127.0.0.1:{self.http_port}"
        self._http = http
        self._command = command
        self._directory = directory
        self._plc = plc
        self._process: trio.Process | None = None
        directory.mkdir()

    async def start(self) -> None:
        """Returns once `/_health` answers 200."""
        with (self._directory / "relay.log").open("ab") as log:
            self._process = await trio.lowlevel.open_process(
                self._command, stdout=log, stderr=log, env=self._environment()
            )
        await self._poll(self._healthy, "the relay is not healthy")

    async def terminate(self) -> None:
        """SIGTERM; the relay must end by itself, with status 0."""
        assert self._process is not None
        self._process.terminate()
        with trio.move_on_after(_STOP_SECONDS):
            assert await self._process.wait() == 0, self.log_tail()
            return
        raise AssertionError(f"still running {_STOP_SECONDS} s after SIGTERM: {self.log_tail()}")

    async def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            await stop_process(self._process)

    async def request_crawl(self, host: str) -> None:
        """Adds the host as an operator would and returns once the relay says that it follows it."""
        answer = await self._http.post(
            f"{self.url}/admin/pds/requestCrawl", json={"hostname": host}, auth=("admin", ADMIN_PASSWORD)
        )
        assert answer.status_code == 200, answer.text
        await self._poll(lambda: self._follows(host), f"{host} is not active")

    async def query(self, method: str, **params: str) -> dict[str, Any]:
        """The answer to an XRPC query; both ports have to give the same."""
        answers = [
            (await self._http.get(f"http://127.0.0.1:{port}/xrpc/{method}", params=params)).json()
            for port in (self.http_port, self.firehose_port)
        ]
        assert answers[0] == answers[1]
        body: dict[str, Any] = answers[0]
        return body

    async def drops(self) -> dict[str, float]:
        """`relay_events_dropped_total` by reason, zeros left out."""
        text = (await self._http.get(f"{self.url}/metrics")).raise_for_status().text
        lines = [line for line in text.splitlines() if line.startswith("relay_events_dropped_total{")]
        counted = {line.split('reason="')[1].split('"')[0]: float(line.rsplit(" ", 1)[1]) for line in lines}
        return {reason: count for reason, count in counted.items() if count}

    async def drops_become(self, wanted: dict[str, float]) -> None:
        """Returns once `drops` are these: a foreign host's event waits for an identity look-up before it is dropped."""

        async def counted() -> bool:
            return await self.drops() == wanted

        await self._poll(counted, f"drops are not {wanted}")

    def log_tail(self) -> str:
        return (self._directory / "relay.log").read_text(errors="replace")[-3000:]

    async def _poll(self, condition: Callable[[], Awaitable[bool]], otherwise: str) -> None:
        assert self._process is not None
        with trio.move_on_after(_START_SECONDS):
            while not await condition():
                assert self._process.poll() is None, f"the relay ended by itself: {self.log_tail()}"
                await trio.sleep(_POLL_SECONDS)
            return
        raise AssertionError(f"{otherwise} after {_START_SECONDS} s: {self.log_tail()}")

    async def _follows(self, host: str) -> bool:
        params = {"hostname": host}
        answer = await self._http.get(f"{self.url}/xrpc/com.atproto.sync.getHostStatus", params=params)
        return bool(answer.json().get("status") == "active")

    async def _healthy(self) -> bool:
        try:
            return (await self._http.get(f"{self.url}/_health")).status_code == 200
        except httpx.TransportError:
            return False

    def _environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("RELAY_") and k != "DATABASE_URL"}
        return inherited | {
            "RELAY_PLC_URL": self._plc,
            "RELAY_ALLOW_PRIVATE_HOSTS": "true",
            "RELAY_BOOTSTRAP": "",
            "RELAY_ADMIN_PASSWORD": ADMIN_PASSWORD,
            "RELAY_DATA_DIR": str(self._directory / "data"),
            "RELAY_FIREHOSE_BIND": f"127.0.0.1:{self.firehose_port}",
            "RELAY_HTTP_BIND": f"127.0.0.1:{self.http_port}",
        }


async def stop_process(process: trio.Process) -> None:
    """Kills the process, waits for it and closes our ends of its pipes, even inside a cancelled scope."""
    with trio.CancelScope(shield=True):
        if process.returncode is None:
            process.kill()
        await process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                await pipe.aclose()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
