"""The directory: its limits, its pauses, and whose failure a failure is."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial

import pytest
import trio
import trio.testing

from relay.identity.failure import DirectoryUnavailable, IdentityFailure, IdentityNotFound
from tests.identity.documents import key
from tests.identity.rig import LIMITS, did, gather, rig
from tests.net.loopback import reply


async def test_look_ups_keep_the_rate() -> None:
    """Beyond the burst, look-ups follow each other at the rate."""
    async with rig(limits=replace(LIMITS, directory_per_second=50, directory_burst=5)) as r:
        began = trio.current_time()
        await gather([partial(r.resolver.resolve, did(number)) for number in range(15)])
        assert trio.current_time() - began >= 10 / 50
        assert len(r.server.requests) == 15


async def test_look_ups_keep_the_concurrency() -> None:
    """No more than `directory_concurrency` requests are open at once."""
    async with rig(limits=replace(LIMITS, directory_concurrency=3)) as r:
        r.directory.held = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gather, [partial(r.resolver.resolve, did(number)) for number in range(9)])
            with trio.fail_after(5):
                while len(r.server.requests) < 3:
                    await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            assert len(r.server.requests) == 3
            assert r.resolver.in_flight == 9
            r.directory.held.set()
        assert len(r.server.requests) == 9


@pytest.mark.parametrize(
    "raw",
    [
        reply(500),
        reply(403),
        reply(301, Location="/elsewhere"),
        b"HTTP/1.1 200 OK\r\ncontent-length: nonsense\r\n\r\n",
    ],
)
async def test_whose_failure_it_is(raw: bytes) -> None:
    """Alone, a failure is the directory's; once the directory answers for others, it is the DID's own."""
    async with rig() as r:
        r.directory.raw[did(1)] = raw
        with pytest.raises(DirectoryUnavailable):
            await r.resolver.resolve(did(1))
        with pytest.raises(IdentityNotFound):
            await r.resolver.resolve(did(2))
        with pytest.raises(IdentityFailure) as caught:
            await r.resolver.resolve(did(1))
        assert type(caught.value) is IdentityFailure
        assert r.server.targets == [f"/{did(1)}", f"/{did(2)}", f"/{did(1)}"]


async def test_a_directory_that_is_down() -> None:
    """Nobody listens: never a DID's own failure, and nothing is remembered of the DID."""
    async with rig(url="http://127.0.0.9:9") as r:
        for failure in await gather([partial(r.resolver.resolve, did(number)) for number in range(5)]):
            assert type(failure) is DirectoryUnavailable
        assert r.resolver.outcomes == {"DirectoryUnavailable": 5}


async def test_a_directory_that_is_silent() -> None:
    """No answer ends at the client's total time-out."""
    async with rig(total_seconds=0.1) as r:
        r.directory.held = trio.Event()
        with trio.fail_after(5), pytest.raises(DirectoryUnavailable):
            await r.resolver.resolve(did(1))
        r.directory.held.set()


def _http_date() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)


@pytest.mark.parametrize(
    ("raw", "least", "most"),
    [
        (lambda: reply(429, Retry_After="7"), 6, 7),
        (lambda: reply(429), 0, 0.2),
        (lambda: reply(429, Retry_After="soon"), 0, 0.2),
        (lambda: reply(429, Retry_After="999999999999999"), 299, 300),
        (lambda: reply(503, Retry_After="7"), 6, 7),
        (lambda: reply(429, Retry_After=_http_date()), 90, 100),
    ],
)
async def test_retry_after_pauses_the_whole_directory(raw: Callable[[], bytes], least: float, most: float) -> None:
    """Nothing more is asked during the pause; callers learn when to come back."""
    async with rig() as r:
        r.directory.secrets[did(2)] = 1
        r.directory.raw[did(1)] = raw()
        for number in (1, 2):
            with pytest.raises(DirectoryUnavailable) as caught:
                await r.resolver.resolve(did(number))
            assert least < caught.value.retry_seconds <= most
        assert r.server.targets == [f"/{did(1)}"]


async def test_the_pause_ends() -> None:
    """Afterwards look-ups go on."""
    async with rig() as r:
        r.directory.raw[did(1)] = reply(429)
        r.directory.secrets[did(2)] = 1
        with pytest.raises(DirectoryUnavailable) as caught:
            await r.resolver.resolve(did(1))
        await trio.sleep(caught.value.retry_seconds)
        assert (await r.resolver.resolve(did(2))).key == key(1)
