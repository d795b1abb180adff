"""The names of hosts: which may be crawled, and one canonical form for each. Pure.

Owns the syntax of host names as operators, `requestCrawl` and DID documents give them (DESIGN 7, peers.md 1.6,
protocol.md 7.3). Does not resolve them: `net/address.py` judges what they resolve to.
"""

import ipaddress
import re
from dataclasses import dataclass

TEXT_CHARS_MAX = 300  # a name of 253, a scheme, a port
HOST_CHARS_MAX = 253  # RFC 1035
PORT_MAX = 65_535
TLDS_DISALLOWED = frozenset({"alt", "arpa", "example", "internal", "invalid", "local", "localhost", "onion"})
TLS_SCHEMES = frozenset({"https", "wss"})

_FORM = re.compile(r"(?:(https?|wss?)://)?(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::([0-9]{1,5}))?/?")
_NAME = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"  # the syntax of handles
)


class InvalidHostname(ValueError):
    """The text names no host, or none that this relay may speak to."""


@dataclass(frozen=True, slots=True)
class HostName:
    """A host to speak to. `name` is the key by which everything else knows it; `host` carries no brackets."""

    name: str
    host: str
    port: int
    tls: bool

    @property
    def http_url(self) -> str:
        """The base URL for requests, without a trailing slash."""
        return f"{'https' if self.tls else 'http'}://{_authority(self.host, self.port, tls=self.tls)}"

    @property
    def ws_url(self) -> str:
        """The base URL for subscriptions, without a trailing slash."""
        return f"{'wss' if self.tls else 'ws'}://{_authority(self.host, self.port, tls=self.tls)}"


def parse(text: str, *, allow_private: bool) -> HostName:
    """A bare name or an http, https, ws or wss URL without user, path or query (one closing slash is let pass).

    Without a scheme it means TLS, save for `localhost` and addresses, which are plain. Unless `allow_private`:
    DNS names outside the reserved top-level domains only, TLS only, port 443 only. Raises InvalidHostname.
    """
    match = _FORM.fullmatch(text.lower()) if len(text) <= TEXT_CHARS_MAX and text.isascii() else None
    if match is None:
        raise InvalidHostname(f"not a host name: {text[:80]!r}")
    scheme, written, digits = match.groups()
    host, is_address = _host(written)
    plain_by_default = is_address or is_loopback_name(host)
    tls = scheme in TLS_SCHEMES if scheme else not plain_by_default
    port = int(digits) if digits else _default_port(tls=tls)
    if not 0 < port <= PORT_MAX:
        raise InvalidHostname(f"no such port: {text[:80]!r}")
    if not allow_private:
        if is_address or "." not in host or host.rpartition(".")[2] in TLDS_DISALLOWED:
            raise InvalidHostname(f"not a public DNS name: {text[:80]!r}")
        if not tls or port != _default_port(tls=True):
            raise InvalidHostname(f"only https on port 443 is allowed: {text[:80]!r}")
    authority = _authority(host, port, tls=tls)
    if tls is plain_by_default:
        authority = f"{'https' if tls else 'http'}://{authority}"
    return HostName(authority, host, port, tls)


def is_loopback_name(host: str) -> bool:
    """Whether a lower-case name means this machine whatever DNS says (RFC 6761)."""
    return host == "localhost" or host.endswith(".localhost")


def _host(written: str) -> tuple[str, bool]:
    """The host in canonical spelling, and whether it is an address."""
    try:
        if written[0] == "[":
            return ipaddress.IPv6Address(written[1:-1]).compressed, True
        if written.rpartition(".")[2].isdigit():
            return str(ipaddress.IPv4Address(written)), True
    except ValueError as error:
        raise InvalidHostname(f"not an address: {written[:80]!r}") from error
    if len(written) > HOST_CHARS_MAX or _NAME.fullmatch(written) is None:
        raise InvalidHostname(f"not a DNS name: {written[:80]!r}")
    return written, False


def _default_port(*, tls: bool) -> int:
    return 443 if tls else 80


def _authority(host: str, port: int, *, tls: bool) -> str:
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if port == _default_port(tls=tls) else f"{bracketed}:{port}"
