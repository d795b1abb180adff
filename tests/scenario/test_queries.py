"""What the relay answers about a network that lived, on both ports, to people, crawlers and the operator."""

from pathlib import Path

import httpx
import pytest
import trio

from relay.eventlog.records import HostStatus
from relay.eventlog.verdict import DropReason
from tests.scenario.network import ADMIN, SECONDS, Network, open_network
from tests.world import frames, websocket
from tests.world.consumer import Refused, open_consumer
from tests.world.frames import parse
from tests.world.ipld import cid_text
from tests.world.network import Account


class Lived:
    """A network in which accounts of every standing exist, in their order."""

    def __init__(self, network: Network) -> None:
        self.network = network
        home, other = network.world.hosts
        create = network.world.create_account
        self.living, self.paused, self.suspect, self.gone, self.last = [
            create(host) for host in (home, home, other, other, home)
        ]
        self.silent = create(other, announce=False)
        world = network.world
        world.deactivate(self.paused)
        world.take_down(self.suspect)
        world.delete(self.gone)
        world.identity(self.silent)

    @property
    def standings(self) -> list[tuple[Account, str | None]]:
        return [
            (self.living, None),
            (self.paused, "deactivated"),
            (self.suspect, "takendown"),
            (self.gone, "deleted"),
            (self.last, None),
        ]


@pytest.fixture
async def lived(network: Network) -> Lived:
    lived = Lived(network)
    await network.sequenced()
    return lived


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


async def test_accounts_one_by_one_and_page_by_page(lived: Lived) -> None:
    await check_accounts_by_name(lived)
    await check_pages(lived)


async def check_accounts_by_name(lived: Lived) -> None:
    query = lived.network.query
    for account, status in lived.standings:
        told = (await query("getRepoStatus", did=account.did)).json()
        head = account.repo.head
        assert head is not None
        if status is None:
            assert told == {"did": account.did, "active": True, "rev": head.rev}
            latest = await query("getLatestCommit", did=account.did)
            assert latest.json() == {"cid": cid_text(head.commit), "rev": head.rev}
            redirect = await query("getRepo", did=account.did)
            assert redirect.status_code == 302
            assert redirect.headers["location"].startswith(f"{account.host.endpoint}/xrpc/com.atproto.sync.getRepo?")
            followed = await lived.network.http.get(redirect.headers["location"])
            assert followed.content == account.repo.export()
        else:
            assert told == {"did": account.did, "active": False, "status": status}
            names = {"deactivated": "RepoDeactivated", "takendown": "RepoTakendown", "deleted": "RepoNotFound"}
            for method in ("getLatestCommit", "getRepo"):
                assert refused(await query(method, did=account.did)) == (400, names[status])
    assert refused(await query("getLatestCommit", did=lived.silent.did)) == (400, "RepoNotSynchronized")
    assert refused(await query("getRepoStatus", did="did:plc:" + "a" * 24)) == (400, "RepoNotFound")
    assert refused(await query("getRepoStatus", did="nobody")) == (400, "InvalidRequest")
    assert refused(await query("getRepoStatus")) == (400, "InvalidRequest")


async def check_pages(lived: Lived) -> None:
    for limit in (1, 2, 3, 500):
        pages = await read_pages(lived, limit)
        lively = [any(repo["active"] for repo in repos) for repos in pages]
        assert lively == sorted(lively, reverse=True), "a crawler takes a page without active accounts for the end"
        repos = [repo for page in pages for repo in page]
        told = {str(repo["did"]): (repo["active"], repo.get("status")) for repo in repos}
        assert len(told) == len(repos) == 5
        assert told == {account.did: (status is None, status) for account, status in lived.standings}
        heads = {account.did: account.repo.head for account, _ in lived.standings}
        for repo in repos:
            head = heads[str(repo["did"])]
            assert head is not None
            assert (repo["head"], repo["rev"]) == (cid_text(head.commit), head.rev)


async def read_pages(lived: Lived, limit: int) -> list[list[dict[str, object]]]:
    """`listRepos` to its end."""
    pages: list[list[dict[str, object]]] = []
    cursor = "0"
    while cursor:
        page = (await lived.network.query("listRepos", limit=limit, cursor=cursor)).json()
        pages.append(page["repos"])
        cursor = page.get("cursor", "")
    return pages


async def test_hosts_metrics_and_the_operators_view(lived: Lived) -> None:
    await check_hosts(lived)
    await check_metrics(lived)
    await check_the_operators_view(lived)


async def check_hosts(lived: Lived) -> None:
    query = lived.network.query
    home, other = lived.network.world.hosts
    wanted = {
        host.name: {"hostname": host.name, "status": "active", "seq": host.last_seq, "accountCount": count}
        for host, count in ((home, 3), (other, 2))
    }
    assert {host["hostname"]: host for host in (await query("listHosts")).json()["hosts"]} == wanted
    first = (await query("listHosts", limit=1)).json()
    second = (await query("listHosts", limit=1, cursor=first["cursor"])).json()
    assert [*first["hosts"], *second["hosts"]] == [wanted[name] for name in sorted(wanted)]
    assert "cursor" not in second
    for text in (home.name, home.endpoint):
        assert (await query("getHostStatus", hostname=text)).json() == wanted[home.name]
    assert refused(await query("getHostStatus", hostname="nobody.example")) == (400, "HostNotFound")


async def test_known_methods_that_are_not_served_say_so_on_both_ports(network: Network) -> None:
    for method in ("getBlocks", "getRecord", "listBlobs", "getBlob", "getCheckout", "getHead"):
        assert refused(await network.query(method)) == (501, "MethodNotImplemented")
    for port in (network.http_port, network.firehose_port):
        assert refused(await network.get("/nothing", port=port)) == (404, "NotFound")
        for path in ("/_health", "/xrpc/_health"):
            assert (await network.get(path, port=port)).status_code == 200
    stream = "/xrpc/com.atproto.sync.subscribeRepos"
    assert refused(await network.get(stream)) == (501, "MethodNotImplemented")
    assert (await network.get(stream, port=network.firehose_port)).status_code == 426
    with pytest.raises(Refused) as caught:
        async with open_consumer(network.http_port):
            pass
    assert caught.value.status == 501


async def test_browsers_of_any_origin_may_ask_but_not_administer(network: Network) -> None:
    query = "/xrpc/com.atproto.sync.listHosts"
    asking = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}
    for port in (network.http_port, network.firehose_port):
        url = f"http://127.0.0.1:{port}"
        preflight = await network.http.options(url + query, headers=asking)
        answers = [preflight, await network.get(query, port=port), await network.get("/xrpc/a.b.c", port=port)]
        assert [answer.status_code for answer in answers] == [204, 200, 501]
        assert {answer.headers["access-control-allow-origin"] for answer in answers} == {"*"}
        assert all("atproto-relay" in answer.headers["server"] for answer in answers)
        for private in ("/admin/hosts", "/metrics"):
            refusal = await network.http.options(url + private, headers=asking)
            assert refusal.status_code in (400, 401, 404)
            assert "access-control-allow-origin" not in refusal.headers


ADMIN_PATHS = ["/admin/hosts", "/admin/consumers/list"]


async def test_admin_needs_the_password(network: Network) -> None:
    for auth in (None, ("admin", "wrong"), ("root", ADMIN[1]), ("admin", "")):
        answers = [await network.get(path, auth=auth) for path in ADMIN_PATHS]
        answers.append(await network.post("/admin/pds/requestCrawl", {"hostname": "localhost:1"}, auth=auth))
        assert {refused(answer) for answer in answers} == {(401, "AuthenticationRequired")}
        assert all("basic" in answer.headers["www-authenticate"].lower() for answer in answers)


async def test_admin_and_metrics_are_not_on_the_firehose_port(network: Network) -> None:
    for path in (*ADMIN_PATHS, "/metrics"):
        assert (await network.get(path, auth=ADMIN)).status_code == 200
        assert (await network.get(path, auth=ADMIN, port=network.firehose_port)).status_code == 404


async def test_admin_is_off_without_a_password(tmp_path: Path) -> None:
    async with open_network(tmp_path, hosts=0, admin_password="") as network:
        for auth in (None, ADMIN, ("admin", "")):
            answer = await network.get("/admin/hosts", auth=auth)
            assert refused(answer) == (403, "Forbidden")


async def check_the_operators_view(lived: Lived) -> None:
    network = lived.network
    home, other = network.world.hosts
    other.emit_wire(websocket.binary(b"\xff"))
    payload = frames.account_payload(lived.living.did, seq=0, time=network.world.clock.datetime(), active=False)
    network.world.emit(other, "#account", payload, expect="drop")
    await network.drops_become({DropReason.UNDECODABLE: 1, DropReason.WRONG_HOST: 1})
    reports = {report["hostname"]: report for report in (await network.get("/admin/hosts", auth=ADMIN)).json()}
    assert {name: (report["connected"], report["drops"]) for name, report in reports.items()} == {
        home.name: (True, {}),
        other.name: (True, {"undecodable": 1, "wrong_host": 1}),
    }
    async with open_consumer(network.firehose_port, cursor=0) as consumer:
        with trio.fail_after(SECONDS):
            await consumer.received(4)
        shown = (await network.get("/admin/consumers/list", auth=ADMIN)).json()
        assert [(one["remote_addr"], one["stream"]) for one in shown] == [
            ("127.0.0.1", "com.atproto.sync.subscribeRepos")
        ]
        assert (await network.metrics())["relay_consumers"] == 1


async def check_metrics(lived: Lived) -> None:
    """Every reason is named, and the counts are those of what happened."""
    network = lived.network
    samples = await network.metrics()
    for reason in DropReason:
        assert samples[f'relay_events_dropped_total{{reason="{reason}"}}'] == 0
    emitted = network.world.emitted
    for kind in ("commit", "sync", "identity", "account"):
        count = sum(event.kind == f"#{kind}" for event in emitted)
        assert samples[f'relay_events_sequenced_total{{kind="{kind}"}}'] == count
    assert samples["relay_events_received_total"] == samples["relay_head_seq"] == len(emitted)
    assert samples["relay_oldest_seq"] == 1
    assert samples["relay_hosts_connected"] == 2
    assert {status: samples[f'relay_hosts{{status="{status}"}}'] for status in HostStatus} == {
        status: 2 if status is HostStatus.ACTIVE else 0 for status in HostStatus
    }
    # One for each account, and one more where its host says that it ends or pauses (it may have moved away).
    parsed = [parse(event.message) for event in emitted if event.kind == "#account"]
    inactive = sum(not event.payload["active"] for event in parsed)
    assert samples['relay_identity_lookups_total{result="found"}'] == len(network.world.accounts) + inactive
    assert samples["relay_parked_events"] == 0
