"""What all endpoints have in common: envelope, parameters, bodies, verbs, CORS (protocol.md 7.1)."""

import httpx
import pytest

from relay.http.xrpc import BODY_BYTES_MAX
from tests.http.conftest import Port

SYNC = "/xrpc/com.atproto.sync."


@pytest.mark.parametrize("nsid", ["com.atproto.sync.getBlob", "com.atproto.repo.createRecord", "org.example.anything"])
async def test_methods_that_are_not_served_answer_501(public: httpx.AsyncClient, nsid: str) -> None:
    for answer in (await public.get(f"/xrpc/{nsid}"), await public.post(f"/xrpc/{nsid}", json={})):
        assert answer.status_code == 501
        assert answer.json() == {"error": "MethodNotImplemented", "message": f"this relay does not serve {nsid}"}


@pytest.mark.parametrize("path", ["/nothing", "/xrpc/", "/xrpc/short", "/xrpc/a.b.c/d", "/xrpc//a.b.c", "/_health/"])
async def test_other_paths_answer_404_as_json(public: httpx.AsyncClient, path: str) -> None:
    answer = await public.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"] == "NotFound"
    assert answer.headers["content-type"] == "application/json"


async def test_wrong_verb_is_named(public: httpx.AsyncClient) -> None:
    answer = await public.post(SYNC + "listRepos", json={})
    assert answer.status_code == 400
    assert answer.json() == {"error": "InvalidRequest", "message": "Incorrect HTTP method (POST) expected GET"}
    answer = await public.get(SYNC + "requestCrawl")
    assert answer.json() == {"error": "InvalidRequest", "message": "Incorrect HTTP method (GET) expected POST"}


async def test_every_response_names_the_relay_and_allows_all_origins(public: httpx.AsyncClient) -> None:
    for path in ("/", "/_health", SYNC + "listRepos", SYNC + "getRepo", "/nothing", "/xrpc/a.b.c"):
        answer = await public.get(path)
        assert answer.headers.get_list("server") == ["atproto-relay/1.2.3"]
        assert answer.headers["access-control-allow-origin"] == "*"


async def test_preflight(public: httpx.AsyncClient) -> None:
    headers = {
        "Origin": "https://app.test",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type, authorization",
    }
    answer = await public.options(SYNC + "requestCrawl", headers=headers)
    assert answer.status_code == 204
    assert answer.content == b""
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "content-type, authorization"
    assert answer.headers["access-control-max-age"] == "86400"


async def test_head_answers_like_get_without_a_body(public: httpx.AsyncClient) -> None:
    whole = await public.get("/_health")
    head = await public.head("/_health")
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == str(len(whole.content))


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "1.5", "abc", "٣", "99999999999999999999", "1 "])
async def test_bad_limit_is_named(public: httpx.AsyncClient, limit: str) -> None:
    answer = await public.get(SYNC + "listRepos", params={"limit": limit})
    assert answer.status_code == 400
    assert answer.json() == {
        "error": "InvalidRequest",
        "message": "parameter limit must be an integer from 1 to 1000",
    }


async def test_unknown_and_empty_parameters_are_ignored(public: httpx.AsyncClient) -> None:
    answer = await public.get(SYNC + "listRepos", params={"limit": "", "cursor": "", "colour": "blue"})
    assert answer.json() == {"repos": []}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"pds.test"', b"{}", b'{"hostname":""}', b'{"hostname":7}', b"\xff\xfe"]
)
async def test_bad_bodies_are_refused(public: httpx.AsyncClient, port: Port, body: bytes) -> None:
    answer = await public.post(SYNC + "requestCrawl", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"] == "InvalidRequest"
    assert port.crawler.asked == []


async def test_body_cap(public: httpx.AsyncClient, port: Port) -> None:
    answer = await public.post(SYNC + "requestCrawl", json={"hostname": "x" * BODY_BYTES_MAX})
    assert answer.status_code == 413
    assert answer.json()["error"] == "PayloadTooLarge"
    assert port.crawler.asked == []


async def test_a_bug_answers_500_and_the_server_goes_on(
    public: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await public.post(SYNC + "requestCrawl", json={"hostname": "broken.test"})
    assert answer.status_code == 500
    assert answer.json() == {"error": "InternalServerError", "message": "internal error"}
    assert answer.headers["server"] == "atproto-relay/1.2.3"
    assert [record.message for record in caplog.records if record.exc_info] == ["request failed"]
    assert (await public.get("/_health")).status_code == 200
