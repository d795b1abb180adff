"""Opening TCP connections to hosts: names resolved without threads, every address guarded. Trio.

Owns name resolution, the order of attempts and their deadlines, and the one TLS context. Does not speak TLS or
anything above it: the callers do, with `Dialer.ssl_context`.
"""

import os
import ssl
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import zip_longest

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.resolver
import trio

from relay.net.address import may_dial
from relay.net.hostname import is_loopback_name

ADDRESSES_TRIED_MAX = 6  # an answer of DNS can hold hundreds

_LOOPBACK = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
_TRIO = dns.asyncbackend.get_backend("trio")

Address = IPv4Address | IPv6Address


class DialError(Exception):
    """No connection to the host could be opened."""


class NameNotFound(DialError):
    """The name does not exist, or has no address."""


class NameLookupFailed(DialError):
    """The name servers gave no answer; another time they may."""


class AddressRefused(DialError):
    """The name resolves only to addresses, or asks for a port, that the guard does not let through."""


class ConnectFailed(DialError):
    """No address accepted a connection."""


class DialTimeout(DialError):
    """The overall deadline passed."""


def create_tls_context() -> ssl.SSLContext:
    """The context that all outbound connections share: one for each costs 16-20 ms and 0.7 MB (measurements.md 3).

    Certificates of `SSL_CERT_FILE` where that is set (raises OSError where it can't be read), else of the system.
    """
    context = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or None)
    context.set_alpn_protocols(["http/1.1"])
    return context


def create_dns_resolver() -> dns.asyncresolver.Resolver:
    """The system's name servers. Raises dns.resolver.NoResolverConfiguration where it names none."""
    return dns.asyncresolver.Resolver()


class Dialer:
    """Opens connections within deadlines, to public addresses only unless `allow_private`."""

    def __init__(
        self,
        *,
        allow_private: bool,
        ssl_context: ssl.SSLContext,
        dns_resolver: dns.asyncresolver.Resolver,
        attempt_seconds: float,
        total_seconds: float,
    ) -> None:
        self.ssl_context = ssl_context
        self._allow_private = allow_private
        self._dns_resolver = dns_resolver
        self._attempt_seconds = attempt_seconds
        self._total_seconds = total_seconds

    async def open_socket(self, host: str, port: int) -> trio.socket.SocketType:
        """A connected socket without Nagle's delay to a name or an address. Raises a DialError.

        The guard sees each address at the moment of connecting to it. Addresses are tried in turn, each for
        `attempt_seconds`, the whole for `total_seconds`.
        """
        with trio.move_on_after(self._total_seconds):
            addresses = await self._addresses(host)
            allowed = [one for one in addresses if may_dial(one, port, allow_private=self._allow_private)]
            if not allowed:
                raise AddressRefused(f"{host}:{port} is not public ({addresses[0]})")
            return await self._connect_first(allowed[:ADDRESSES_TRIED_MAX], host, port)
        raise DialTimeout(f"{host}:{port} not connected within {self._total_seconds} s")

    async def _connect_first(self, addresses: Sequence[Address], host: str, port: int) -> trio.socket.SocketType:
        failures = []
        for address in addresses:
            with trio.move_on_after(self._attempt_seconds) as attempt:
                try:
                    return await _connect(address, port)
                except OSError as error:
                    failures.append(f"{address}: {error.strerror or error}")
            if attempt.cancelled_caught:
                failures.append(f"{address}: no answer")
        raise ConnectFailed(f"{host}:{port} not reachable ({'; '.join(failures)})")

    async def _addresses(self, host: str) -> Sequence[Address]:
        """At least one address. IPv4 goes first: a host without it is rarer than a network without IPv6."""
        try:
            return [ip_address(host)]
        except ValueError:
            pass
        if is_loopback_name(host):
            return _LOOPBACK
        found: dict[str, list[Address]] = {"A": [], "AAAA": []}
        failures: list[Exception] = []
        async with trio.open_nursery() as nursery:
            for kind in found:
                nursery.start_soon(self._query, host, kind, found, failures)
        pairs = zip_longest(found["A"], found["AAAA"])
        addresses = [address for pair in pairs for address in pair if address is not None]
        if addresses:
            return addresses
        for failure in failures:
            if not isinstance(failure, dns.resolver.NXDOMAIN):
                raise NameLookupFailed(f"{host} not resolved: {failure}") from failure
        raise NameNotFound(f"{host} has no address")

    async def _query(self, host: str, kind: str, found: dict[str, list[Address]], failures: list[Exception]) -> None:
        try:
            answer = await self._dns_resolver.resolve(
                host,
                kind,
                raise_on_no_answer=False,
                lifetime=self._total_seconds,
                search=self._allow_private,  # service names of a cluster or a compose network
                backend=_TRIO,
            )
        except (dns.exception.DNSException, OSError) as error:
            failures.append(error)
        else:
            found[kind] = [ip_address(record.address) for record in answer.rrset or ()]


async def _connect(address: Address, port: int) -> trio.socket.SocketType:
    family = trio.socket.AF_INET if address.version == 4 else trio.socket.AF_INET6
    connection = trio.socket.socket(family, trio.socket.SOCK_STREAM)
    try:
        connection.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
        await connection.connect((str(address), port))
    except BaseException:
        connection.close()
        raise
    return connection
