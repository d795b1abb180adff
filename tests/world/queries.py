"""What a fake PDS answers to HTTP queries about its accounts. Pure.

Owns the accounts as a host shows them, and the answers of protocol.md 7.2 for them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.world.exchange import Response, error_response, json_response
from tests.world.ipld import cid_text
from tests.world.repo import Repo


@dataclass(slots=True)
class Hosted:
    """An account as its host shows it; `status` is the lexicon's word or None. Change it in place."""

    repo: Repo
    active: bool = True
    status: str | None = None

    @property
    def _standing(self) -> dict[str, Any]:
        return {"active": self.active} | ({} if self.status is None else {"status": self.status})


def answer(method: str, query: Mapping[str, str], hosted: Mapping[str, Hosted]) -> Response:
    """The answer to `GET /xrpc/{method}`."""
    match method:
        case "com.atproto.server.describeServer":
            return json_response(200, {"did": "did:web:localhost", "availableUserDomains": [".test"]})
        case "com.atproto.sync.listRepos":
            return json_response(200, {"repos": [row for one in hosted.values() for row in _row(one)]})
        case "com.atproto.sync.getRepoStatus":
            return _about(query, hosted, _status)
        case "com.atproto.sync.getLatestCommit":
            return _about(query, hosted, _latest)
        case "com.atproto.sync.getRepo":
            return _about(query, hosted, _export)
    return error_response(501, "MethodNotImplemented")


def _about(query: Mapping[str, str], hosted: Mapping[str, Hosted], show: Any) -> Response:
    found = hosted.get(query.get("did", ""))
    response: Response = error_response(400, "RepoNotFound") if found is None else show(found)
    return response


def _row(hosted: Hosted) -> list[dict[str, Any]]:
    if (head := hosted.repo.head) is None:
        return []
    return [{"did": head.did, "head": cid_text(head.commit), "rev": head.rev} | hosted._standing]


def _status(hosted: Hosted) -> Response:
    head = hosted.repo.head
    rev = {"rev": head.rev} if hosted.active and head else {}
    return json_response(200, {"did": hosted.repo.did} | hosted._standing | rev)


def _latest(hosted: Hosted) -> Response:
    head = hosted.repo.head
    if not hosted.active or head is None:
        return _refusal(hosted)
    return json_response(200, {"cid": cid_text(head.commit), "rev": head.rev})


def _export(hosted: Hosted) -> Response:
    if not hosted.active or hosted.repo.head is None:
        return _refusal(hosted)
    return Response(200, hosted.repo.export(), content_type="application/vnd.ipld.car")


def _refusal(hosted: Hosted) -> Response:
    named = {"takendown": "RepoTakendown", "suspended": "RepoSuspended", "deactivated": "RepoDeactivated"}
    return error_response(400, named.get(hosted.status or "", "RepoNotFound"))
