"""did:web documents from their own hosts. Trio.

Owns the URL of a did:web and how many hosts are asked at once. A DID of this method is its host's name, and the
resolver looks up one DID once at a time: so no host is asked twice at the same time. Does not cache and does not
read documents. Source: protocol.md 6.3.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from relay.identity.failure import IdentityFailure, IdentityNotFound, InvalidIdentity
from relay.identity.limits import DOCUMENT_BYTES_MAX, ResolverLimits
from relay.net import hostname
from relay.net.http_client import BodyTooBig, HttpAddressRefused, HttpClient, HttpError, HttpNameNotFound

METHOD = "did:web:"


class WebHosts:
    """Looks up did:web documents."""

    def __init__(self, *, http: HttpClient, allow_private: bool, limits: ResolverLimits) -> None:
        self._http = http
        self._allow_private = allow_private
        self._slots = trio.CapacityLimiter(limits.web_concurrency)

    @asynccontextmanager
    async def turn(self, did: str) -> AsyncIterator[None]:
        """Waits until a look-up may begin. Raises InvalidIdentity."""
        document_url(did, allow_private=self._allow_private)
        async with self._slots:
            yield

    async def fetch(self, did: str) -> bytes:
        """The document, within one `turn`. Raises an IdentityFailure."""
        url = document_url(did, allow_private=self._allow_private)
        try:
            response = await self._http.get(url, body_bytes_max=DOCUMENT_BYTES_MAX)
        except HttpNameNotFound as error:
            raise IdentityNotFound(str(error)) from error
        except (BodyTooBig, HttpAddressRefused) as error:
            raise InvalidIdentity(str(error)) from error
        except HttpError as error:
            raise IdentityFailure(str(error)) from error
        match response.status:
            case 200:
                return response.body
            case 404 | 410:
                raise IdentityNotFound(f"{url} answered {response.status}")
        raise IdentityFailure(f"{url} answered {response.status}")


def document_url(did: str, *, allow_private: bool) -> str:
    """Where the document of a did:web is. Raises InvalidIdentity: paths and upper case never serve; ports,
    addresses and plain http only with `allow_private`."""
    identifier = did.removeprefix(METHOD)
    host, colon, port = identifier.partition("%3A")
    if host != host.lower() or set(host) & set(":/%[]") or (colon and not port.isdigit()):
        raise InvalidIdentity(f"not a did:web of a host: {did[:80]!r}")
    try:
        name = hostname.parse(f"{host}:{port}" if colon else host, allow_private=allow_private)
    except hostname.InvalidHostname as error:
        raise InvalidIdentity(f"{did[:80]!r}: {error}") from error
    return f"{name.http_url}/.well-known/did.json"
