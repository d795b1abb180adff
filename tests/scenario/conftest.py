"""The usual network: two hosts, a relay that follows both."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.scenario.network import Network, open_network


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[Network]:
    async with open_network(tmp_path, hosts=2) as network:
        yield network
