"""The two applications: what each of them has, and what it says about the stream."""

import httpx

from relay.http.health import STREAM_PATH
from relay.observability.metrics import CONTENT_TYPE


async def test_health_on_both(public: httpx.AsyncClient, operator: httpx.AsyncClient) -> None:
    for client in (public, operator):
        for path in ("/_health", "/xrpc/_health"):
            answer = await client.get(path)
            assert answer.status_code == 200
            assert answer.json() == {"status": "ok", "version": "1.2.3"}


async def test_greeting_names_the_stream(public: httpx.AsyncClient, operator: httpx.AsyncClient) -> None:
    for client, place in ((public, "on this port"), (operator, "on the firehose port")):
        answer = await client.get("/")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert f"{STREAM_PATH}, {place}" in answer.text


async def test_queries_on_both(public: httpx.AsyncClient, operator: httpx.AsyncClient) -> None:
    for client in (public, operator):
        assert (await client.get("/xrpc/com.atproto.sync.listHosts")).json() == {"hosts": []}


async def test_metrics(operator: httpx.AsyncClient) -> None:
    answer = await operator.get("/metrics")
    assert answer.headers["content-type"] == CONTENT_TYPE
    assert 'relay_events_dropped_total{reason="wrong_host"} 1.0' in answer.text
    assert "access-control-allow-origin" not in answer.headers


async def test_websocket_on_the_wrong_port_is_told_where_the_stream_is(operator: httpx.AsyncClient) -> None:
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    answer = await operator.get(STREAM_PATH, headers=handshake)
    assert answer.status_code == 501
    assert "firehose port" in answer.json()["message"]
    assert answer.headers["server"] == "atproto-relay/1.2.3"
