"""The real PLC directory and PDS hosts: their process (plain threads and pipes) and a driver over their XRPC (trio)."""

import json
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import trio

_START_SECONDS = 60
_STOP_SECONDS = 10


class RealHosts:
    """The process of `npm/hosts.cjs` and what it announced."""

    def __init__(self, process: "subprocess.Popen[str]", announced: dict[str, Any]) -> None:
        self.plc: str = announced["plc"]
        self.names: list[str] = announced["hosts"]
        self.admin_password: str = announced["adminPassword"]
        self._process = process

    async def update_document(self, did: str, *, host: str, credentials: dict[str, Any]) -> None:
        """Signs and sends a PLC operation with the rotation key of `host`."""
        command = json.dumps({"did": did, "host": host, "credentials": credentials})
        answer = await trio.to_thread.run_sync(self._ask, command)
        assert json.loads(answer) == {"did": did}

    def _ask(self, line: str) -> str:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(line + "\n")
        stdin.flush()
        return stdout.readline()


@contextmanager
def real_hosts(*, node: str, count: int, directory: Path) -> Iterator[RealHosts]:
    """Starts the servers, gives them once they listen, and stops them by closing their stdin."""
    script = Path(__file__).with_name("npm") / "hosts.cjs"
    directory.mkdir()
    log_path = directory / "hosts.log"
    with (
        log_path.open("w") as log,
        subprocess.Popen(
            [node, str(script), str(count), str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], _START_SECONDS)
            line = process.stdout.readline() if ready else ""
            assert line, f"the PDS hosts did not start: {log_path.read_text()[-2000:]}"
            yield RealHosts(process, json.loads(line))
        finally:
            _end(process)


def _end(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


@dataclass(frozen=True, slots=True)
class Account:
    did: str
    handle: str
    access_token: str


class Pds:
    """Drives one PDS host as its users and its operator do. Every method raises on an answer other than 200."""

    def __init__(self, name: str, *, http: httpx.AsyncClient, admin_password: str) -> None:
        self.name = name
        self.url = f"http://{name}"
        self.firehose = f"ws://{name}"
        self._http = http
        self._admin_password = admin_password

    async def create_account(self, label: str, *, did: str | None = None, service_token: str | None = None) -> Account:
        """A new account, or with `did` and `service_token` the deactivated arrival of one from another host."""
        handle = f"{label}.test"
        body = {"handle": handle, "email": f"{label}@example.com", "password": f"password of {label}"}
        if did is not None:
            body["did"] = did
        made = await self._call("com.atproto.server.createAccount", body, token=service_token)
        return Account(made["did"], handle, made["accessJwt"])

    async def create_record(self, account: Account, collection: str, record: dict[str, Any]) -> str:
        """Gives the record key."""
        made: dict[str, Any] = await self._write("createRecord", account, collection=collection, record=record)
        return str(made["uri"].rsplit("/", 1)[1])

    async def put_record(self, account: Account, collection: str, rkey: str, record: dict[str, Any]) -> None:
        await self._write("putRecord", account, collection=collection, rkey=rkey, record=record)

    async def delete_record(self, account: Account, collection: str, rkey: str) -> None:
        body = {"repo": account.did, "collection": collection, "rkey": rkey}
        await self._call("com.atproto.repo.deleteRecord", body, token=account.access_token)

    async def apply_writes(self, account: Account, writes: list[dict[str, Any]]) -> None:
        """`writes` in the lexicon's form, their `$type` shortened to create, update or delete."""
        typed = [w | {"$type": f"com.atproto.repo.applyWrites#{w['$type']}"} for w in writes]
        await self._write("applyWrites", account, writes=typed)

    async def update_handle(self, account: Account, handle: str) -> None:
        await self._call("com.atproto.identity.updateHandle", {"handle": handle}, token=account.access_token)

    async def deactivate(self, account: Account) -> None:
        await self._call("com.atproto.server.deactivateAccount", {}, token=account.access_token)

    async def activate(self, account: Account) -> None:
        await self._call("com.atproto.server.activateAccount", None, token=account.access_token)

    async def set_takedown(self, account: Account, *, applied: bool) -> None:
        subject = {"$type": "com.atproto.admin.defs#repoRef", "did": account.did}
        body = {"subject": subject, "takedown": {"applied": applied}}
        await self._call("com.atproto.admin.updateSubjectStatus", body, admin=True)

    async def delete_account(self, account: Account) -> None:
        await self._call("com.atproto.admin.deleteAccount", {"did": account.did}, admin=True)

    async def latest_commit(self, did: str) -> dict[str, Any]:
        """`cid` and `rev`."""
        answer = await self._get("com.atproto.sync.getLatestCommit", did=did)
        latest: dict[str, Any] = answer.json()
        return latest

    async def export_repo(self, did: str) -> bytes:
        return (await self._get("com.atproto.sync.getRepo", did=did)).content

    async def import_repo(self, account: Account, car: bytes) -> None:
        headers = {"authorization": f"Bearer {account.access_token}", "content-type": "application/vnd.ipld.car"}
        url = f"{self.url}/xrpc/com.atproto.repo.importRepo"
        _check(await self._http.post(url, content=car, headers=headers))

    async def service_token(self, account: Account, *, audience: str, method: str) -> str:
        answer = await self._get("com.atproto.server.getServiceAuth", account, aud=audience, lxm=method)
        return str(answer.json()["token"])

    async def service_did(self) -> str:
        return str((await self._get("com.atproto.server.describeServer")).json()["did"])

    async def recommended_credentials(self, account: Account) -> dict[str, Any]:
        """What the account's PLC entry must say for this host."""
        answer = await self._get("com.atproto.identity.getRecommendedDidCredentials", account)
        credentials: dict[str, Any] = answer.json()
        return credentials

    async def _write(self, method: str, account: Account, **body: Any) -> Any:
        body |= {"repo": account.did, "validate": False}
        return await self._call(f"com.atproto.repo.{method}", body, token=account.access_token)

    async def _call(
        self, method: str, body: dict[str, Any] | None, *, token: str | None = None, admin: bool = False
    ) -> Any:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        auth = httpx.BasicAuth("admin", self._admin_password) if admin else httpx.Auth()
        answer = await self._http.post(f"{self.url}/xrpc/{method}", json=body, headers=headers, auth=auth)
        _check(answer)
        return answer.json() if answer.content else None

    async def _get(self, method: str, account: Account | None = None, **params: str) -> httpx.Response:
        headers = {} if account is None else {"authorization": f"Bearer {account.access_token}"}
        return _check(await self._http.get(f"{self.url}/xrpc/{method}", params=params, headers=headers))


def _check(answer: httpx.Response) -> httpx.Response:
    assert answer.status_code == 200, f"{answer.request.method} {answer.request.url}: {answer.text}"
    return answer
