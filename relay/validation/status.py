"""Asking an account's host for its hosting status (trio): heals a lost `#account` (protocol.md 8.3 step 5).

Owns the short memory of answers, so that a stream of commits of an inactive account costs one question in a few
minutes. Does not change anything: the scheduler does.
"""

from dataclasses import dataclass
from urllib.parse import quote

import orjson
import trio
from cachetools import TTLCache

from relay.atproto.frames import STATUS_BYTES_MAX
from relay.net import hostname
from relay.net.http_client import HttpClient, HttpError

_BODY_BYTES_MAX = 16 * 1024
_FAILURE_SECONDS = 5.0  # no answer is no fact: asked again soon, though not for every event
_METHOD = "com.atproto.sync.getRepoStatus"


@dataclass(frozen=True, slots=True)
class HostingStatus:
    """What a host says of an account; `status` is "" where it gave no word."""

    active: bool
    status: str


class StatusChecker:
    """`check` asks, or remembers an answer that is younger than `memory_seconds`."""

    def __init__(self, *, http: HttpClient, allow_private: bool, memory_seconds: float, entries_max: int) -> None:
        self._http = http
        self._allow_private = allow_private
        self._answers: TTLCache[tuple[str, str], HostingStatus]
        self._answers = TTLCache(entries_max, memory_seconds, timer=trio.current_time)
        self._failures: TTLCache[tuple[str, str], bool]
        self._failures = TTLCache(entries_max, min(memory_seconds, _FAILURE_SECONDS), timer=trio.current_time)

    async def check(self, host: str, did: str) -> HostingStatus | None:
        """The host's answer; None when it gave no usable one. An active answer is not remembered: it is acted on."""
        remembered = self._answers.get((host, did))
        if remembered is not None or self._failures.get((host, did)):
            return remembered
        answer = await self._ask(host, did)
        if answer is None:
            self._failures[host, did] = True
        elif not answer.active:
            self._answers[host, did] = answer
        return answer

    async def _ask(self, host: str, did: str) -> HostingStatus | None:
        base = hostname.parse(host, allow_private=self._allow_private).http_url
        try:
            response = await self._http.get(f"{base}/xrpc/{_METHOD}?did={quote(did)}", body_bytes_max=_BODY_BYTES_MAX)
            document = orjson.loads(response.body) if response.status == 200 else None
        except (HttpError, orjson.JSONDecodeError):
            return None
        if not isinstance(document, dict) or document.get("did") != did or not isinstance(document.get("active"), bool):
            return None
        status = document.get("status")
        if not isinstance(status, str) or len(status.encode()) > STATUS_BYTES_MAX:
            status = ""
        return HostingStatus(document["active"], status)
