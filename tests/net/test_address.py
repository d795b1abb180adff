"""Which addresses the guard lets through."""

from ipaddress import ip_address

import pytest

from relay.net.address import is_public, may_dial


@pytest.mark.parametrize(
    "text",
    [
        "1.1.1.1",
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2606:4700::1111",
        "2a01:4f8::1",
        "2003::1",
    ],
)
def test_public_addresses(text: str) -> None:
    """Ordinary unicast space, up to the edges of the reserved ranges, may be dialled on the two web ports."""
    address = ip_address(text)
    assert is_public(address)
    assert may_dial(address, 443, allow_private=False)
    assert may_dial(address, 80, allow_private=False)
    assert not may_dial(address, 8080, allow_private=False)
    assert may_dial(address, 8080, allow_private=True)


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::7f00:1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "fe80::1",
        "fc00::1",
        "fd12::1",
        "ff02::1",
        "100::1",
        "5f00::1",
        "4000::1",
        "2001::1",
        "2001:0:7f00:1::",
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "2001:1ff::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "2002:808:808::1",
        "3fff::1",
    ],
)
def test_reserved_addresses(text: str) -> None:
    """Private, special and embedding addresses are refused on every port, unless private hosts are allowed."""
    address = ip_address(text)
    assert not is_public(address)
    assert not may_dial(address, 443, allow_private=False)
    assert may_dial(address, 443, allow_private=True)
