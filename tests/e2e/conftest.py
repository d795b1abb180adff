"""Fixtures of the end-to-end tests. Every test has hosts, a directory, a relay and consumers of its own."""

import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import trio

from tests.e2e.foreign import ForeignConsumer
from tests.e2e.hosts import Pds, RealHosts, real_hosts
from tests.e2e.network import Network
from tests.e2e.stream import Stream
from tests.e2e.verify import Verifier
from tests.relay_process import RELAY, RelayProcess

_HERE = Path(__file__).parent
_NPM = _HERE / "npm"
_HOSTS = 2
_REQUEST_SECONDS = 30


@pytest.fixture(scope="session")
def node() -> str:
    """The Node that scripts/e2e-setup chose."""
    own = _NPM / ".node" / "bin" / "node"
    found = str(own) if own.exists() else shutil.which("node")
    if found is None or not (_NPM / "node_modules" / ".ready").exists():
        pytest.skip("the npm packages of tests/e2e are not installed: run scripts/e2e-setup")
    return found


@pytest.fixture
def servers(node: str, tmp_path: Path) -> Iterator[RealHosts]:
    with real_hosts(node=node, count=_HOSTS, directory=tmp_path / "hosts") as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=_REQUEST_SECONDS, trust_env=False) as client:
        yield client


@pytest.fixture
async def network(node: str, servers: RealHosts, http: httpx.AsyncClient, tmp_path: Path) -> AsyncIterator[Network]:
    """An open network: the relay runs and follows every host, everybody watches."""
    hosts = [Pds(name, http=http, admin_password=servers.admin_password) for name in servers.names]
    relay = RelayProcess(command=RELAY, directory=tmp_path / "relay", plc=servers.plc, http=http)
    oracles = [Stream(f"oracle of {host.name}", service=host.firehose, verifier=None) for host in hosts]
    verifier = Verifier(plc=servers.plc, http=http)
    ours = Stream("our consumer", service=relay.firehose, verifier=verifier)
    npm = [node, str(_NPM / "consumer.cjs"), relay.firehose, servers.plc, *(host.url for host in hosts)]
    pypi = [sys.executable, str(_HERE / "pypi_consumer.py"), relay.firehose]
    foreign = [
        ForeignConsumer("npm @atproto/sync", command=npm, log=tmp_path / "npm.log"),
        ForeignConsumer("PyPI atproto", command=pypi, log=tmp_path / "pypi.log"),
    ]
    running = Network(
        hosts=hosts,
        oracles=oracles,
        relay=relay,
        ours=ours,
        verifier=verifier,
        foreign=foreign,
    )
    async with trio.open_nursery() as nursery:
        try:
            await relay.start()
            for stream in (*oracles, ours):
                nursery.start_soon(stream.run)
            for consumer in foreign:
                nursery.start_soon(consumer.run)
            await running.open()
            yield running
        finally:
            await relay.kill()
            sys.stdout.write(relay.log_tail())
        nursery.cancel_scope.cancel()
