"""did:plc documents from the directory, within its limits. Trio.

Owns concurrency, rate and pauses towards the directory, and the question whose failure a failure is. Does not
cache and does not read documents.

A failure to connect and a refusal for load (429, or 503 with Retry-After) are the directory's. Any other answer
than 200, 404 and 410, a time-out and a broken response are the directory's too, unless it lately gave a definitive
answer for another DID, or (while few DIDs fail) says that it is healthy, after this one began to fail: then they
are this DID's own.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import trio
from cachetools import TTLCache

from relay.identity.failure import DirectoryUnavailable, IdentityFailure, IdentityNotFound, InvalidIdentity
from relay.identity.limits import DOCUMENT_BYTES_MAX, ResolverLimits
from relay.net.http_client import (
    BodyTooBig,
    HttpAddressRefused,
    HttpClient,
    HttpError,
    HttpNameNotFound,
    HttpUnreachable,
    Response,
)
from relay.net.token_bucket import TokenBucket

_DID = re.compile(r"did:plc:[a-z2-7]{24}")
_FAILING_DIDS_MAX = 10_000
_FAILING_SECONDS_MAX = 3600.0  # longer than anybody waits for one; after that it has been given up
_ANSWERED_LATELY_SECONDS = 60.0
_FEW_DIDS = 8
_HEALTH_SPACING_SECONDS = 5.0


class PlcDirectory:
    """Looks up did:plc documents at one directory. `url` has no trailing slash."""

    def __init__(self, *, url: str, http: HttpClient, limits: ResolverLimits) -> None:
        self._url = url
        self._http = http
        self._limits = limits
        self._slots = trio.CapacityLimiter(limits.directory_concurrency)
        self._pace = TokenBucket(per_second=limits.directory_per_second, burst=limits.directory_burst)
        self._paused_until = float("-inf")
        self._answered_at = float("-inf")
        self._health_asked_at = float("-inf")
        self._failed_lately: TTLCache[str, None]
        self._failed_lately = TTLCache(_FAILING_DIDS_MAX, _ANSWERED_LATELY_SECONDS, timer=trio.current_time)
        self._failing_since: TTLCache[str, float]
        self._failing_since = TTLCache(_FAILING_DIDS_MAX, _FAILING_SECONDS_MAX, timer=trio.current_time)

    @asynccontextmanager
    async def turn(self, did: str) -> AsyncIterator[None]:
        """Waits until a look-up may begin. Raises InvalidIdentity, or DirectoryUnavailable during a pause."""
        if _DID.fullmatch(did) is None:
            raise InvalidIdentity(f"not a did:plc: {did[:80]!r}")
        async with self._slots:
            self._check_pause()
            await trio.sleep(self._pace.reserve(trio.current_time()))
            self._check_pause()
            yield

    async def wait_idle(self) -> None:
        """Waits until there is room for a look-up that nobody waits for."""
        while (wait := self._idle_seconds()) > 0:  # noqa: ASYNC110  (exact, and others may have come between)
            await trio.sleep(wait)

    def _idle_seconds(self) -> float:
        now = trio.current_time()
        return max(self._pace.seconds_until(now, self._limits.directory_burst / 2), self._paused_until - now)

    def _check_pause(self) -> None:
        pause = self._paused_until - trio.current_time()
        if pause > 0:
            raise DirectoryUnavailable(f"{self._url} asked for a pause", retry_seconds=pause)

    async def fetch(self, did: str) -> bytes:
        """The document, within one `turn`. Raises an IdentityFailure or DirectoryUnavailable."""
        began = trio.current_time()
        try:
            response = await self._http.get(f"{self._url}/{did}", body_bytes_max=DOCUMENT_BYTES_MAX)
        except BodyTooBig as error:
            raise InvalidIdentity(str(error)) from error
        except (HttpUnreachable, HttpNameNotFound, HttpAddressRefused) as error:
            raise DirectoryUnavailable(str(error)) from error
        except HttpError as error:
            raise await self._failure(did, began, str(error)) from error
        match response.status:
            case 200:
                self._answered(did)
                return response.body
            case 404 | 410:
                self._answered(did)
                raise IdentityNotFound(f"the directory answered {response.status} for {did}")
        self._pause_if_asked(response)
        raise await self._failure(did, began, f"the directory answered {response.status} for {did}")

    def _answered(self, did: str) -> None:
        self._answered_at = trio.current_time()
        self._failing_since.pop(did, None)

    async def _failure(self, did: str, began: float, reason: str) -> IdentityFailure | DirectoryUnavailable:
        """What a failure that may pass means; see above."""
        since = self._failing_since.setdefault(did, began)
        self._failed_lately[did] = None
        is_alone = self._failed_lately.currsize <= _FEW_DIDS
        if is_alone and began > since and not self._has_answered(since):  # nobody else may be asking just now
            await self._ask_health()
        return IdentityFailure(reason) if self._has_answered(since) else DirectoryUnavailable(reason)

    def _has_answered(self, since: float) -> bool:
        return self._answered_at > max(since, trio.current_time() - _ANSWERED_LATELY_SECONDS)

    async def _ask_health(self) -> None:
        """A healthy directory fails at that one DID alone. Asked for many DIDs, one question serves all."""
        now = trio.current_time()
        if now - self._health_asked_at < _HEALTH_SPACING_SECONDS:
            return
        self._health_asked_at = now
        with suppress(HttpError):
            response = await self._http.get(f"{self._url}/_health", body_bytes_max=DOCUMENT_BYTES_MAX)
            if response.status == 200:
                self._answered_at = trio.current_time()

    def _pause_if_asked(self, response: Response) -> None:
        """Raises DirectoryUnavailable, and from every `turn` until the pause is over."""
        retry_after = response.headers.get("retry-after")
        if response.status == 429 or (response.status == 503 and retry_after is not None):
            asked = _seconds(retry_after, self._limits.pause_seconds)
            pause = min(asked, self._limits.pause_seconds_max)
            self._paused_until = max(self._paused_until, trio.current_time() + pause)
            raise DirectoryUnavailable(f"the directory answered {response.status}", retry_seconds=pause)


def _seconds(retry_after: str | None, default: float) -> float:
    """How long a Retry-After header asks to wait, in either of its forms; at least a second."""
    if retry_after is None:
        return default
    if retry_after.isascii() and retry_after.isdigit():
        return max(1.0, float(retry_after[:9]))
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return default
    return max(1.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
