"""Which addresses may be dialled: the guard against being sent into private networks. Pure.

Judges addresses as they are about to be connected to, so that no answer of DNS, however late, gets round it
(peers.md 1.6). Does not resolve or connect: `net/dial.py` does.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

PORTS_PUBLIC = frozenset({80, 443})

# The IANA special-purpose registries, kept here because `ipaddress.is_global` differs between patch versions of
# Python. Anycast services such as AS112 are listed too: no host of accounts can live there.
_IPV4_RESERVED = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)
_IPV6_UNICAST = IPv6Network("2000::/3")  # v4-mapped, NAT64, unique-local and link-local lie outside
_IPV6_RESERVED = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarking
            "2001:db8::/32",
            "2002::/16",  # 6to4: an IPv4 address of any kind inside
            "2620:4f:8000::/48",
            "3fff::/20",
        ),
    )
)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address lies in public unicast space, not reserved, and carries no other address inside."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _IPV4_RESERVED)
    return address in _IPV6_UNICAST and not any(address in network for network in _IPV6_RESERVED)


def may_dial(address: IPv4Address | IPv6Address, port: int, *, allow_private: bool) -> bool:
    """Whether a connection to this address and port may be opened."""
    return allow_private or (port in PORTS_PUBLIC and is_public(address))
