"""The com.atproto.sync.* endpoints (protocol.md 7.2, D6, D8)."""

from typing import Any

import httpx
import pytest

from relay.eventlog.records import HostRecord, HostStatus
from tests.http.conftest import Port
from tests.http.records import COMMIT_TEXT, REV

SYNC = "/xrpc/com.atproto.sync."


async def pages(client: httpx.AsyncClient, method: str, limit: int) -> list[dict[str, Any]]:
    """Every page, following cursors to the end."""
    found: list[dict[str, Any]] = []
    params: dict[str, str] = {"limit": str(limit)}
    while not found or "cursor" in found[-1]:
        if found:
            params["cursor"] = found[-1]["cursor"]
        answer = await client.get(SYNC + method, params=params)
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
        assert len(found) < 100
    return found


def dids(page: dict[str, Any]) -> list[str]:
    return [repo["did"] for repo in page["repos"]]


async def test_list_repos_in_first_seen_order_with_inactive_ones(public: httpx.AsyncClient, port: Port) -> None:
    port.accounts.add("did:plc:zzz")
    port.accounts.add("did:plc:mmm", status="deactivated")
    port.accounts.add("did:plc:nothing", commit=b"")
    port.accounts.add("did:plc:aaa", local_status="takendown")
    port.accounts.add("did:plc:ccc", status="desynchronized")
    (page,) = await pages(public, "listRepos", 500)
    known = {"head": COMMIT_TEXT, "rev": REV}
    assert page == {
        "repos": [
            {"did": "did:plc:zzz", **known, "active": True},
            {"did": "did:plc:mmm", **known, "active": False, "status": "deactivated"},
            {"did": "did:plc:aaa", **known, "active": False, "status": "takendown"},
            {"did": "did:plc:ccc", **known, "active": True, "status": "desynchronized"},
        ]
    }


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 10, 11])
async def test_list_repos_pages_are_whole_and_end(public: httpx.AsyncClient, port: Port, limit: int) -> None:
    expected = [port.accounts.add(f"did:plc:{9 - number}") for number in range(10)]
    found = await pages(public, "listRepos", limit)
    assert [did for page in found for did in dids(page)] == expected
    assert len(found) == -(-10 // limit)
    assert all(len(page["repos"]) == limit for page in found[:-1])


@pytest.mark.parametrize("limit", [1, 2, 4, 7, 1000])
@pytest.mark.parametrize("inactive_run", [1, 6, 2500])
async def test_list_repos_has_no_inactive_page_before_an_active_account(
    public: httpx.AsyncClient, port: Port, limit: int, inactive_run: int
) -> None:
    expected = []
    for part in range(3):
        expected += [port.accounts.add(f"did:plc:gone{part}.{n}", status="deleted") for n in range(inactive_run)]
        port.accounts.add(f"did:plc:empty{part}", commit=b"")
        expected.append(port.accounts.add(f"did:plc:living{part}"))
    expected.append(port.accounts.add("did:plc:last", status="suspended"))
    found = await pages(public, "listRepos", limit)
    assert [did for page in found for did in dids(page)] == expected
    for page in found[:-1]:
        assert any(repo["active"] for repo in page["repos"])


async def test_list_repos_skips_accounts_without_a_commit_across_pages(public: httpx.AsyncClient, port: Port) -> None:
    for number in range(3000):
        port.accounts.add(f"did:plc:empty{number}", commit=b"")
    port.accounts.add("did:plc:here")
    assert [dids(page) for page in await pages(public, "listRepos", 2)] == [["did:plc:here"]]


@pytest.mark.parametrize("cursor", ["-1", "abc", "1.5", "99999999999999999"])
async def test_list_repos_bad_cursor(public: httpx.AsyncClient, cursor: str) -> None:
    answer = await public.get(SYNC + "listRepos", params={"cursor": cursor})
    assert answer.status_code == 400
    assert answer.json()["error"] == "InvalidRequest"


@pytest.mark.parametrize("method", ["getRepoStatus", "getLatestCommit", "getRepo"])
async def test_account_errors(public: httpx.AsyncClient, method: str) -> None:
    for did, error in (("", "InvalidRequest"), ("alice.test", "InvalidRequest"), ("did:plc:who", "RepoNotFound")):
        answer = await public.get(SYNC + method, params={"did": did})
        assert answer.status_code == 400
        assert answer.json()["error"] == error


@pytest.mark.parametrize(
    ("status", "local_status", "error"),
    [
        ("takendown", "", "RepoTakendown"),
        ("", "takendown", "RepoTakendown"),
        ("deactivated", "takendown", "RepoTakendown"),
        ("suspended", "", "RepoSuspended"),
        ("deactivated", "", "RepoDeactivated"),
        ("deleted", "", "RepoNotFound"),
        ("asleep", "", "RepoInactive"),
        ("", "throttled", "RepoInactive"),
    ],
)
async def test_content_of_inactive_accounts_is_refused(
    public: httpx.AsyncClient, port: Port, status: str, local_status: str, error: str
) -> None:
    did = port.accounts.add("did:plc:gone", status=status, local_status=local_status)
    for method in ("getLatestCommit", "getRepo"):
        answer = await public.get(SYNC + method, params={"did": did})
        assert answer.status_code == 400
        assert answer.json()["error"] == error
    answer = await public.get(SYNC + "getRepoStatus", params={"did": did})
    assert answer.json() == {"did": did, "active": False, "status": local_status or status}


async def test_repo_status_and_latest_commit(public: httpx.AsyncClient, port: Port) -> None:
    did = port.accounts.add("did:plc:alice")
    answer = await public.get(SYNC + "getRepoStatus", params={"did": did})
    assert answer.json() == {"did": did, "active": True, "rev": REV}
    answer = await public.get(SYNC + "getLatestCommit", params={"did": did})
    assert answer.json() == {"cid": COMMIT_TEXT, "rev": REV}


async def test_account_without_a_commit(public: httpx.AsyncClient, port: Port) -> None:
    did = port.accounts.add("did:plc:new", commit=b"")
    answer = await public.get(SYNC + "getRepoStatus", params={"did": did})
    assert answer.json() == {"did": did, "active": True}
    answer = await public.get(SYNC + "getLatestCommit", params={"did": did})
    assert answer.status_code == 400
    assert answer.json()["error"] == "RepoNotSynchronized"


@pytest.mark.parametrize(
    ("host", "base"),
    [
        ("pds.test", "https://pds.test"),
        ("localhost:2583", "http://localhost:2583"),
        ("http://pds.test", "http://pds.test"),
    ],
)
async def test_get_repo_redirects_to_the_accounts_host(
    public: httpx.AsyncClient, port: Port, host: str, base: str
) -> None:
    did = port.accounts.add("did:plc:alice", host=host)
    query = f"did={did}&since=3lmxjza3nva27&more=a%20b"
    answer = await public.get(f"{SYNC}getRepo?{query}")
    assert answer.status_code == 302
    assert answer.headers["location"] == f"{base}/xrpc/com.atproto.sync.getRepo?{query}"


async def test_list_hosts(public: httpx.AsyncClient, port: Port) -> None:
    port.hosts.records = {
        "b.test": HostRecord(HostStatus.OFFLINE, 7, (), 3),
        "a.test": HostRecord(HostStatus.ACTIVE, 0, (), 0),
        "localhost:2583": HostRecord(HostStatus.BANNED, 1, (), 0),
    }
    (page,) = await pages(public, "listHosts", 200)
    assert page == {
        "hosts": [
            {"hostname": "a.test", "accountCount": 0, "status": "active"},
            {"hostname": "b.test", "seq": 7, "accountCount": 3, "status": "offline"},
            {"hostname": "localhost:2583", "seq": 1, "accountCount": 0, "status": "banned"},
        ]
    }
    for limit, counts in ((1, [1, 1, 1]), (2, [2, 1]), (3, [3])):
        found = await pages(public, "listHosts", limit)
        assert [len(page["hosts"]) for page in found] == counts
        assert [host for page in found for host in page["hosts"]] == page["hosts"]


async def test_list_hosts_without_hosts(public: httpx.AsyncClient) -> None:
    assert (await public.get(SYNC + "listHosts")).json() == {"hosts": []}


async def test_get_host_status(public: httpx.AsyncClient, port: Port) -> None:
    port.hosts.records["pds.test"] = HostRecord(HostStatus.IDLE, 7, (), 3)
    for text in ("pds.test", "PDS.test", "https://pds.test"):
        answer = await public.get(SYNC + "getHostStatus", params={"hostname": text})
        assert answer.json() == {"hostname": "pds.test", "seq": 7, "accountCount": 3, "status": "idle"}
    for text in ("other.test", "not a host", "localhost:1"):
        answer = await public.get(SYNC + "getHostStatus", params={"hostname": text})
        assert answer.status_code == 400
        assert answer.json()["error"] == "HostNotFound"
    assert (await public.get(SYNC + "getHostStatus")).json()["error"] == "InvalidRequest"


@pytest.mark.parametrize("method", ["requestCrawl", "notifyOfUpdate"])
async def test_request_crawl(public: httpx.AsyncClient, port: Port, method: str) -> None:
    answer = await public.post(SYNC + method, json={"hostname": "pds.test"})
    assert answer.status_code == 200
    assert answer.content == b""
    assert port.crawler.asked == [("pds.test", False)]
    answer = await public.post(SYNC + method, json={"hostname": "banned.test"})
    assert answer.status_code == 400
    assert answer.json() == {"error": "HostBanned", "message": "banned.test is banned"}
