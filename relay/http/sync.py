"""`com.atproto.sync.*` queries and requestCrawl (protocol.md 7.2). Trio shell.

Owns parameters, pages and named errors of these endpoints. Reads the account and host records; changes nothing
itself: crawl requests go to the supervisor. Errors that the lexicon names have status 400 (protocol.md D6).
"""

from collections.abc import Mapping
from typing import Protocol

import trio
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from relay.atproto.cid import cid_text
from relay.atproto.syntax import is_did
from relay.eventlog.records import AccountRecord, HostRecord
from relay.http.xrpc import (
    Route,
    XrpcError,
    integer_parameter,
    invalid_request,
    json_response,
    text_field,
    text_parameter,
)
from relay.net.hostname import InvalidHostname, parse

_ORDINAL_MAX = 2**53 - 1
_PAGE_ROWS = 1000  # rows read between two checkpoints
_SCANNED_ROWS_MAX = 50_000  # what one request may cost: about 0.3 s of this process, in pieces

# By the account's status: the lexicon has no error for "deleted"; whoever is told RepoNotFound does the right thing.
_INACTIVE_ERRORS = {
    "takendown": "RepoTakendown",
    "suspended": "RepoSuspended",
    "deactivated": "RepoDeactivated",
    "deleted": "RepoNotFound",
}


class AccountSource(Protocol):
    """What is read of `relay.eventlog.accounts.Accounts`."""

    def get(self, did: str, /) -> AccountRecord | None: ...

    def page(self, after_ordinal: int, limit: int, /) -> list[tuple[str, AccountRecord]]: ...


class HostSource(Protocol):
    """What is read of `relay.eventlog.hosts.HostRows`."""

    def get(self, name: str, /) -> HostRecord | None: ...

    def page(self, after: str, limit: int, /) -> list[tuple[str, HostRecord]]: ...


class Crawler(Protocol):
    """Takes crawl requests; refuses by raising XrpcError."""

    async def request_crawl(self, text: str, /, *, admin: bool) -> None: ...


class SyncEndpoints:
    """The public endpoints over the relay's records."""

    def __init__(self, *, accounts: AccountSource, hosts: HostSource, crawler: Crawler) -> None:
        self._accounts = accounts
        self._hosts = hosts
        self._crawler = crawler

    def routes(self) -> Mapping[str, Route]:
        """By path."""
        prefix = "/xrpc/com.atproto.sync."
        return {
            prefix + "listHosts": Route("GET", self.list_hosts),
            prefix + "getHostStatus": Route("GET", self.get_host_status),
            prefix + "listRepos": Route("GET", self.list_repos),
            prefix + "getRepoStatus": Route("GET", self.get_repo_status),
            prefix + "getLatestCommit": Route("GET", self.get_latest_commit),
            prefix + "getRepo": Route("GET", self.get_repo),
            prefix + "requestCrawl": Route("POST", self.request_crawl),
            prefix + "notifyOfUpdate": Route("POST", self.request_crawl),
        }

    async def list_hosts(self, request: Request) -> Response:
        """Every known host, by name; the cursor is a page's last name."""
        limit = integer_parameter(request, "limit", default=200, minimum=1, maximum=1000)
        rows = self._hosts.page(request.query_params.get("cursor", ""), limit)
        page: dict[str, object] = {"hosts": [_host_fields(name, record) for name, record in rows]}
        if rows and self._hosts.page(rows[-1][0], 1):
            page["cursor"] = rows[-1][0]
        return json_response(page)

    async def get_host_status(self, request: Request) -> Response:
        """One host, under any way of writing its name."""
        text = text_parameter(request, "hostname")
        try:
            name = parse(text, allow_private=True).name
        except InvalidHostname as invalid:
            raise XrpcError(400, "HostNotFound", f"no host of this name: {invalid}") from None
        record = self._hosts.get(name)
        if record is None:
            raise XrpcError(400, "HostNotFound", f"this relay does not know host {name}")
        return json_response(_host_fields(name, record))

    async def list_repos(self, request: Request) -> Response:
        """Accounts with a known commit, active or not, in first-seen order.

        Crawlers take a page without active accounts for the end (Tap does), so such a page goes on beyond
        `limit` up to the next active account.
        """
        limit = integer_parameter(request, "limit", default=500, minimum=1, maximum=1000)
        after = integer_parameter(request, "cursor", default=0, minimum=0, maximum=_ORDINAL_MAX)
        repos: list[dict[str, object]] = []
        any_active = False
        for scanned in range(0, _SCANNED_ROWS_MAX, _PAGE_ROWS):
            if scanned:
                await trio.lowlevel.checkpoint()
            rows = self._accounts.page(after, limit if scanned == 0 else _PAGE_ROWS)
            for did, record in rows:
                if len(repos) >= limit and any_active:
                    break
                after = record.ordinal
                if record.commit and record.rev:
                    repos.append(_repo_fields(did, record))
                    any_active = any_active or record.active
            if not rows or (len(repos) >= limit and any_active):
                break
        page: dict[str, object] = {"repos": repos}
        if self._accounts.page(after, 1):
            page["cursor"] = str(after)
        return json_response(page)

    async def get_repo_status(self, request: Request) -> Response:
        """The account's hosting status; its rev while it is active."""
        did, record = self._account(request)
        status: dict[str, object] = {"did": did, "active": record.active}
        if record.status is not None:
            status["status"] = record.status
        if record.active and record.rev:
            status["rev"] = record.rev
        return json_response(status)

    async def get_latest_commit(self, request: Request) -> Response:
        """CID and rev of the newest accepted commit of an active account."""
        did, record = self._active_account(request)
        if not record.commit or not record.rev:
            raise XrpcError(400, "RepoNotSynchronized", f"no commit of {did} has come in yet")
        return json_response({"cid": cid_text(record.commit), "rev": record.rev})

    async def get_repo(self, request: Request) -> Response:
        """To the account's host: a relay holds no repositories."""
        _, record = self._active_account(request)
        host_url = parse(record.host, allow_private=True).http_url
        query = request.url.query
        return RedirectResponse(f"{host_url}/xrpc/com.atproto.sync.getRepo?{query}", status_code=302)

    async def request_crawl(self, request: Request) -> Response:
        """A host asks to be followed. notifyOfUpdate, long deprecated, means the same."""
        await self._crawler.request_crawl(await text_field(request, "hostname"), admin=False)
        return Response()

    def _account(self, request: Request) -> tuple[str, AccountRecord]:
        did = text_parameter(request, "did")
        if not is_did(did):
            raise invalid_request("parameter did must be a DID")
        record = self._accounts.get(did)
        if record is None:
            raise XrpcError(400, "RepoNotFound", f"this relay does not know account {did}")
        return did, record

    def _active_account(self, request: Request) -> tuple[str, AccountRecord]:
        did, record = self._account(request)
        if not record.active:
            status = record.status or "inactive"
            error = _INACTIVE_ERRORS.get(status, "RepoInactive")
            raise XrpcError(400, error, f"account {did} is {status}")
        return did, record


def _repo_fields(did: str, record: AccountRecord) -> dict[str, object]:
    fields: dict[str, object] = {
        "did": did,
        "head": cid_text(record.commit),
        "rev": record.rev,
        "active": record.active,
    }
    if record.status is not None:
        fields["status"] = record.status
    return fields


def _host_fields(name: str, record: HostRecord) -> dict[str, object]:
    fields: dict[str, object] = {
        "hostname": name,
        "accountCount": record.accounts,
        "status": record.status.value,
    }
    if record.last:
        fields["seq"] = record.last
    return fields
