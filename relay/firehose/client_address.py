"""Whose connection it is when proxies stand between. Pure.

Believes `X-Forwarded-For` only as far as an unbroken chain of trusted proxies reaches, counted from our end: what
stands further left was written by the client itself.
"""

from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

IpNetwork = IPv4Network | IPv6Network

_IPV6_SITE_BITS = 64  # one customer's network: addresses inside are free, so they count as one


def client_address(peer: str, forwarded_for: Iterable[str], trusted_proxies: Collection[IpNetwork]) -> str:
    """The client's address as text.

    Takes the socket's peer, the values of every `X-Forwarded-For` header in order, and the networks whose word is
    taken. Stops at the first entry that is not an address.
    """
    address = _parse(peer)
    if address is None:
        return peer
    for entry in reversed(",".join(forwarded_for).split(",")):
        if not any(address in network for network in trusted_proxies):
            break
        before = _parse(entry.strip())
        if before is None:
            break
        address = before
    return str(address)


def is_trusted(peer: str, trusted_proxies: Collection[IpNetwork]) -> bool:
    """Whether the socket's peer is a proxy, behind which there may be anybody."""
    address = _parse(peer)
    return address is not None and any(address in network for network in trusted_proxies)


def address_group(address: str) -> str:
    """What counts as one address for a limit: an IPv4 address, an IPv6 /64, or the text itself."""
    parsed = _parse(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((parsed.packed, _IPV6_SITE_BITS), strict=False))
    return address


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
