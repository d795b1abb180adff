"""did:web documents from hosts on loopback."""

import pytest

from relay.identity.failure import IdentityFailure, IdentityNotFound, InvalidIdentity
from relay.identity.web import document_url
from tests.identity.documents import document_bytes
from tests.identity.rig import rig
from tests.net.loopback import Request, Stream, reply, serve_http


@pytest.mark.parametrize(
    ("text", "allow_private", "url"),
    [
        ("did:web:pds.example.com", False, "https://pds.example.com/.well-known/did.json"),
        ("did:web:pds.example.com", True, "https://pds.example.com/.well-known/did.json"),
        ("did:web:localhost%3A2583", True, "http://localhost:2583/.well-known/did.json"),
        ("did:web:127.0.0.1%3A2583", True, "http://127.0.0.1:2583/.well-known/did.json"),
    ],
)
def test_where_a_did_web_is(text: str, allow_private: bool, url: str) -> None:
    """https, save for local names in a closed network."""
    assert document_url(text, allow_private=allow_private) == url


async def serve_did_web(request: Request, stream: Stream) -> None:
    port = request.headers["host"].rpartition(":")[2]
    one = f"did:web:localhost%3A{port}"
    await stream.send_all(reply(200, document_bytes(one, pds=f"http://localhost:{port}")))


async def test_did_web_on_localhost() -> None:
    """Over http, with a port, where private hosts are allowed."""
    async with rig() as r, serve_http(serve_did_web) as host:
        one = f"did:web:localhost%3A{host.port}"
        identity = await r.resolver.resolve(one)
        assert (identity.did, identity.host) == (one, f"localhost:{host.port}")
        assert r.resolver.cached(one) is identity
        assert host.targets == ["/.well-known/did.json"]


@pytest.mark.parametrize(
    ("raw", "failure"),
    [
        (reply(404), IdentityNotFound),
        (reply(410), IdentityNotFound),
        (reply(500), IdentityFailure),
        (reply(429), IdentityFailure),
        (reply(302, Location="http://127.0.0.1/"), IdentityFailure),
        (reply(200, b"x" * 70_000), InvalidIdentity),
        (reply(200, b"{}"), InvalidIdentity),
        (b"nonsense\r\n\r\n", IdentityFailure),
    ],
)
async def test_did_web_failures_are_its_own(raw: bytes, failure: type[IdentityFailure]) -> None:
    """A failing web host never looks like a failing directory."""

    async def answer(request: Request, stream: Stream) -> None:
        await stream.send_all(raw)

    async with rig() as r, serve_http(answer) as host:
        with pytest.raises(IdentityFailure) as caught:
            await r.resolver.resolve(f"did:web:localhost%3A{host.port}")
        assert type(caught.value) is failure
        assert len(host.requests) == 1


async def test_did_web_on_a_dead_host() -> None:
    """Nobody listens: the DID's own failure, which may pass."""
    async with rig() as r:
        with pytest.raises(IdentityFailure) as caught:
            await r.resolver.resolve("did:web:127.0.0.9%3A9")
        assert type(caught.value) is IdentityFailure


async def test_did_web_is_guarded() -> None:
    """A public name that resolves to loopback is refused; one that does not exist is no identity."""
    async with rig(allow_private=False) as r:
        with pytest.raises(InvalidIdentity, match="not public"):
            await r.resolver.resolve("did:web:pds.example.com")
        with pytest.raises(IdentityNotFound):
            await r.resolver.resolve("did:web:absent.example.com")
