"""The operator's endpoints: who may call them, and their shapes (peers.md 1.4)."""

import httpx
import pytest

from relay.eventlog.records import HostStatus
from relay.eventlog.verdict import DropReason
from relay.firehose.consumers import ConsumerStatistics
from relay.http.admin import HostReport
from tests.http.conftest import PASSWORD, Port, client_of

PATHS = [("GET", "/admin/hosts"), ("GET", "/admin/consumers/list"), ("POST", "/admin/pds/requestCrawl")]
AUTH = ("admin", PASSWORD)
BODY = {"hostname": "pds.test"}


@pytest.mark.parametrize(("verb", "path"), PATHS)
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Basic",
        "Basic !!!",
        "Basic YWRtaW4=",
        "Basic YWRtaW46",
        "Bearer Y29ycmVjdCBob3JzZQ==",
        httpx.BasicAuth("admin", PASSWORD + "x")._auth_header,
        httpx.BasicAuth("admin", "")._auth_header,
        httpx.BasicAuth("root", PASSWORD)._auth_header,
    ],
)
async def test_without_the_password(
    operator: httpx.AsyncClient, port: Port, verb: str, path: str, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = await operator.request(verb, path, headers=headers, json=BODY if verb == "POST" else None)
    assert answer.status_code == 401
    assert answer.json()["error"] == "AuthenticationRequired"
    assert answer.headers["www-authenticate"].startswith("Basic ")
    assert "access-control-allow-origin" not in answer.headers
    assert port.crawler.asked == []


@pytest.mark.parametrize("auth", [("", ""), ("admin", ""), ("admin", "None")])
async def test_admin_is_off_when_no_password_is_set(port: Port, auth: tuple[str, str]) -> None:
    async with client_of(port.operator(password=None)) as client:
        answer = await client.post("/admin/pds/requestCrawl", json=BODY, auth=auth)
    assert answer.status_code == 403
    assert answer.json() == {
        "error": "Forbidden",
        "message": "admin is off: RELAY_ADMIN_PASSWORD is not set",
    }
    assert port.crawler.asked == []


@pytest.mark.parametrize(("verb", "path"), [*PATHS, ("GET", "/metrics")])
async def test_the_public_application_has_none_of_it(public: httpx.AsyncClient, verb: str, path: str) -> None:
    answer = await public.request(verb, path, auth=AUTH, json=BODY if verb == "POST" else None)
    assert answer.status_code == 404


async def test_request_crawl(operator: httpx.AsyncClient, port: Port) -> None:
    answer = await operator.post("/admin/pds/requestCrawl", json={"hostname": "localhost:2583"}, auth=AUTH)
    assert answer.status_code == 200
    assert answer.json() == {"success": "true"}
    assert port.crawler.asked == [("localhost:2583", True)]
    answer = await operator.post("/admin/pds/requestCrawl", json={"hostname": "banned.test"}, auth=AUTH)
    assert answer.status_code == 400
    assert answer.json()["error"] == "HostBanned"


async def test_request_crawl_takes_only_json(operator: httpx.AsyncClient, port: Port) -> None:
    answer = await operator.post(
        "/admin/pds/requestCrawl",
        content=b'{"hostname":"pds.test"}',
        headers={"Content-Type": "text/plain"},
        auth=AUTH,
    )
    assert answer.status_code == 400
    assert port.crawler.asked == []


async def test_no_preflight_for_admin(operator: httpx.AsyncClient) -> None:
    answer = await operator.options("/admin/pds/requestCrawl", headers={"Access-Control-Request-Method": "POST"})
    assert answer.status_code == 400
    assert "access-control-allow-origin" not in answer.headers


async def test_hosts(operator: httpx.AsyncClient, port: Port) -> None:
    drops = {DropReason.WRONG_HOST: 2, DropReason.REBASE: 0}
    port.host_reports = [
        HostReport("a.test", HostStatus.ACTIVE, 9, 4, True, drops, ""),
        HostReport("b.test", HostStatus.OFFLINE, 0, 0, False, {}, "connection refused"),
    ]
    answer = await operator.get("/admin/hosts", auth=AUTH)
    assert answer.json() == [
        {
            "hostname": "a.test",
            "status": "active",
            "seq": 9,
            "accountCount": 4,
            "connected": True,
            "drops": {"wrong_host": 2},
            "lastError": None,
        },
        {
            "hostname": "b.test",
            "status": "offline",
            "seq": 0,
            "accountCount": 0,
            "connected": False,
            "drops": {},
            "lastError": "connection refused",
        },
    ]


async def test_consumers(operator: httpx.AsyncClient, port: Port) -> None:
    assert (await operator.get("/admin/consumers/list", auth=AUTH)).json() == []
    port.consumers = [
        ConsumerStatistics(
            id=3,
            stream="subscribeRepos",
            address="192.0.2.7",
            user_agent="goat/1",
            connected_at=1_763_000_000.5,
            position=42,
            events=17,
            bytes=9000,
            live=True,
        )
    ]
    answer = await operator.get("/admin/consumers/list", auth=AUTH)
    assert answer.json() == [
        {
            "id": 3,
            "remote_addr": "192.0.2.7",
            "user_agent": "goat/1",
            "events_consumed": 17,
            "connected_at": "2025-11-13T02:13:20.500+00:00",
            "stream": "subscribeRepos",
            "seq": 42,
            "live": True,
        }
    ]
