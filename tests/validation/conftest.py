"""A served fake network with a scheduler over it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.validation.rig import Rig, now_us, open_rig
from tests.world.network import World


@pytest.fixture
async def world(nursery: trio.Nursery) -> World:
    world = await World.open(seed=7, hosts=2, now_microseconds=now_us() - 3_600_000_000)
    await nursery.start(world.serve)
    return world


@pytest.fixture
async def rig(world: World, tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(world, tmp_path / "log") as rig:
        yield rig
