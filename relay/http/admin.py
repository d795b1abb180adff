"""The operator's endpoints: indigo's paths and shapes where it has them (peers.md 1.4). Trio shell.

Owns who may call them and how the answers look. What they report is gathered by the service; what they change goes
to the owner of the state.
"""

import binascii
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hmac import compare_digest

from starlette.requests import Request
from starlette.responses import Response

from relay.eventlog.records import HostStatus
from relay.eventlog.verdict import DropReason
from relay.firehose.consumers import ConsumerStatistics
from relay.http.sync import Crawler
from relay.http.xrpc import Handler, Route, XrpcError, invalid_request, json_response, text_field


@dataclass(frozen=True, slots=True)
class HostReport:
    """One host as the operator sees it. `drops` are since the start; `last_error` is "" when there was none."""

    name: str
    status: HostStatus
    last_seq: int
    accounts: int
    connected: bool
    drops: Mapping[DropReason, int]
    last_error: str


class AdminEndpoints:
    """HTTP Basic, user `admin`. Without a password every request is refused."""

    def __init__(
        self,
        *,
        password: str | None,
        crawler: Crawler,
        hosts: Callable[[], Iterable[HostReport]],
        consumers: Callable[[], Iterable[ConsumerStatistics]],
    ) -> None:
        self._credentials = None if password is None else f"admin:{password}".encode()
        self._crawler = crawler
        self._hosts = hosts
        self._consumers = consumers

    def routes(self) -> Mapping[str, Route]:
        """By path."""
        return {
            "/admin/pds/requestCrawl": Route("POST", partial(self._guarded, self.request_crawl)),
            "/admin/hosts": Route("GET", partial(self._guarded, self.list_hosts)),
            "/admin/consumers/list": Route("GET", partial(self._guarded, self.list_consumers)),
        }

    async def request_crawl(self, request: Request) -> Response:
        """Follow a host, without the rules for strangers. JSON only: a browser can't send that across sites."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise invalid_request("Content-Type must be application/json")
        await self._crawler.request_crawl(await text_field(request, "hostname"), admin=True)
        return json_response({"success": "true"})

    async def list_hosts(self, _request: Request) -> Response:
        """Every host with its state."""
        return json_response([_host_fields(host) for host in self._hosts()])

    async def list_consumers(self, _request: Request) -> Response:
        """Every consumer of the stream."""
        return json_response([_consumer_fields(consumer) for consumer in self._consumers()])

    async def _guarded(self, handle: Handler, request: Request) -> Response:
        if self._credentials is None:
            raise XrpcError(403, "Forbidden", "admin is off: RELAY_ADMIN_PASSWORD is not set")
        if not compare_digest(_basic_credentials(request), self._credentials):
            raise XrpcError(
                401,
                "AuthenticationRequired",
                "HTTP Basic credentials of the user admin are required",
                headers={"WWW-Authenticate": 'Basic realm="relay admin", charset="UTF-8"'},
            )
        return await handle(request)


def _basic_credentials(request: Request) -> bytes:
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _host_fields(host: HostReport) -> dict[str, object]:
    return {
        "hostname": host.name,
        "status": host.status.value,
        "seq": host.last_seq,
        "accountCount": host.accounts,
        "connected": host.connected,
        "drops": {reason.value: count for reason, count in host.drops.items() if count},
        "lastError": host.last_error or None,
    }


def _consumer_fields(consumer: ConsumerStatistics) -> dict[str, object]:
    return {
        "id": consumer.id,
        "remote_addr": consumer.address,
        "user_agent": consumer.user_agent,
        "events_consumed": consumer.events,
        "connected_at": datetime.fromtimestamp(consumer.connected_at, UTC).isoformat(timespec="milliseconds"),
        "stream": consumer.stream,
        "seq": consumer.position,
        "live": consumer.live,
    }
