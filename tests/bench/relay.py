"""The relay under a bench: a process of its own, told by its environment alone, with what it costs. Trio."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import trio

from tests.bench.facts import cpu_seconds, resident_bytes

_PASSWORD = "bench"
_START_SECONDS = 60
_STOP_SECONDS = 60


class BenchRelay:
    """One relay's directory and ports; its process may be started and stopped again and again."""

    def __init__(self, *, directory: Path, environment: dict[str, str], python: str = sys.executable) -> None:
        self.firehose_port, self.http_port = _free_port(), _free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self._python = python
        self._environment = environment | {
            "RELAY_DATA_DIR": str(directory),
            "RELAY_FIREHOSE_BIND": f"127.0.0.1:{self.firehose_port}",
            "RELAY_HTTP_BIND": f"127.0.0.1:{self.http_port}",
            "RELAY_ADMIN_PASSWORD": _PASSWORD,
            "RELAY_ALLOW_PRIVATE_HOSTS": "true",
            "RELAY_BOOTSTRAP": "",
            "RELAY_TRUSTED_DOMAINS": "*.localhost",
            "RELAY_LOG_LEVEL": "warning",
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    async def start(self, **settings: str) -> None:
        """Start with these settings on top; returns once it is healthy."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
        environment = inherited | self._environment | settings
        self._process = subprocess.Popen([self._python, "-m", "relay", "serve"], env=environment)  # noqa: ASYNC220
        async with httpx.AsyncClient() as client:
            with trio.fail_after(_START_SECONDS):
                while not await self._is_healthy(client):
                    if self._process.poll() is not None:
                        raise RuntimeError("the relay ended by itself")
                    await trio.sleep(0.02)

    async def stop(self) -> None:
        """SIGTERM, and wait."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        with trio.fail_after(_STOP_SECONDS):
            while self._process.poll() is None:
                await trio.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    async def request_crawl(self, client: httpx.AsyncClient, host: str) -> None:
        """As an operator asks it."""
        answer = await client.post(
            f"{self.url}/admin/pds/requestCrawl",
            content=json.dumps({"hostname": host}),
            headers={"Content-Type": "application/json"},
            auth=("admin", _PASSWORD),
        )
        answer.raise_for_status()

    def cpu_seconds(self) -> float:
        """User and system time of the whole process tree since it was started."""
        return sum(cpu_seconds(pid) for pid in _tree(self.pid))

    def resident_mib(self) -> int:
        """Resident memory of the whole process tree."""
        return sum(resident_bytes(pid) for pid in _tree(self.pid)) >> 20

    async def _is_healthy(self, client: httpx.AsyncClient) -> bool:
        try:
            return (await client.get(f"{self.url}/_health")).status_code == 200
        except httpx.TransportError:
            return False


def _tree(pid: int) -> list[int]:
    """A process and its living descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [pid, *(one for child in children for one in _tree(int(child)))]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
