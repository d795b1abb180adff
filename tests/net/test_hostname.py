"""Which texts name a host, and by which one name it is known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.net.hostname import HostName, InvalidHostname, parse


@pytest.mark.parametrize(
    "text",
    [
        "pds.example.com",
        "PDS.Example.COM",
        "https://PDS.example.com",
        "HTTPS://pds.example.com:443/",
        "wss://pds.example.com",
        "pds.example.com:443",
        "pds.example.com/",
    ],
)
@pytest.mark.parametrize("allow_private", [False, True])
def test_spellings_of_a_public_host_give_one_name(text: str, allow_private: bool) -> None:
    """Scheme, case, default port and a closing slash do not make another host."""
    expected = HostName("pds.example.com", "pds.example.com", 443, True)
    assert parse(text, allow_private=allow_private) == expected


@pytest.mark.parametrize(
    ("text", "name", "http_url", "ws_url"),
    [
        ("localhost:2583", "localhost:2583", "http://localhost:2583", "ws://localhost:2583"),
        ("http://localhost:2583", "localhost:2583", "http://localhost:2583", "ws://localhost:2583"),
        ("ws://LOCALHOST:2583/", "localhost:2583", "http://localhost:2583", "ws://localhost:2583"),
        (
            "https://localhost:2583",
            "https://localhost:2583",
            "https://localhost:2583",
            "wss://localhost:2583",
        ),
        ("localhost", "localhost", "http://localhost", "ws://localhost"),
        ("localhost:80", "localhost", "http://localhost", "ws://localhost"),
        ("localhost:443", "localhost:443", "http://localhost:443", "ws://localhost:443"),
        ("a.localhost:1", "a.localhost:1", "http://a.localhost:1", "ws://a.localhost:1"),
        ("http://pds.example.com", "http://pds.example.com", "http://pds.example.com", "ws://pds.example.com"),
        ("ws://pds.example.com:80", "http://pds.example.com", "http://pds.example.com", "ws://pds.example.com"),
        (
            "pds.example.com:8443",
            "pds.example.com:8443",
            "https://pds.example.com:8443",
            "wss://pds.example.com:8443",
        ),
        ("127.0.0.1:8080", "127.0.0.1:8080", "http://127.0.0.1:8080", "ws://127.0.0.1:8080"),
        ("https://10.0.0.1", "https://10.0.0.1", "https://10.0.0.1", "wss://10.0.0.1"),
        ("[::1]:8080", "[::1]:8080", "http://[::1]:8080", "ws://[::1]:8080"),
        ("http://[0:0::1]", "[::1]", "http://[::1]", "ws://[::1]"),
        ("pds:3000", "pds:3000", "https://pds:3000", "wss://pds:3000"),
        ("http://pds.svc.local:3000", "http://pds.svc.local:3000", "http://pds.svc.local:3000", None),
    ],
)
def test_private_hosts_need_permission(text: str, name: str, http_url: str, ws_url: str | None) -> None:
    """Ports, plain transport, addresses and local names serve with `allow_private` alone."""
    host = parse(text, allow_private=True)
    assert (name, http_url) == (host.name, host.http_url)
    assert ws_url in (None, host.ws_url)
    with pytest.raises(InvalidHostname):
        parse(text, allow_private=False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://",
        "/",
        "https://user@pds.example.com",
        "https://user:pass@pds.example.com",
        "https://pds.example.com/xrpc",
        "https://pds.example.com//",
        "https://pds.example.com?x=1",
        "https://pds.example.com#x",
        "ftp://pds.example.com",
        "at://pds.example.com",
        "//pds.example.com",
        "pds.example.com:",
        "pds.example.com:0",
        "pds.example.com:65536",
        "pds.example.com:-1",
        "pds.example.com.",
        ".example.com",
        "pds..example.com",
        "-pds.example.com",
        "pds-.example.com",
        "pds_1.example.com",
        "pds.example.c\u00f6m",
        "pds.example.com\n",
        " pds.example.com",
        "pds.example.1com",
        "127.1",
        "2130706433",
        "0177.0.0.1",
        "1.2.3.256",
        "::1",
        "[::1",
        "[]",
        "[fe80::1%eth0]",
        "[127.0.0.1]",
        "a" * 64 + ".com",
        ".".join(["abcdefgh"] * 30),
        "a." * 5000 + "com",
    ],
)
@pytest.mark.parametrize("allow_private", [False, True])
def test_what_names_no_host(text: str, allow_private: bool) -> None:
    """Anything but scheme, host and port is refused, with permission for private hosts or without."""
    with pytest.raises(InvalidHostname):
        parse(text, allow_private=allow_private)


@pytest.mark.parametrize(
    "tld", ["local", "arpa", "invalid", "localhost", "internal", "example", "onion", "alt", "LOCAL"]
)
def test_reserved_top_level_domains_are_not_public(tld: str) -> None:
    """Names that can't be in public DNS are not crawled from it."""
    with pytest.raises(InvalidHostname):
        parse(f"pds.{tld}", allow_private=False)


_NAMES = st.from_regex(
    r"((https?|wss?)://)?([a-z][a-z0-9-]{0,5}\.){0,3}(localhost|com|test|\[::[0-9a-f]{1,4}\]|10\.0\.0\.[1-9])(:[1-9][0-9]{0,3})?/?",
    fullmatch=True,
)


@given(text=_NAMES | st.text(max_size=40), allow_private=st.booleans())
def test_a_name_names_the_same_host(text: str, allow_private: bool) -> None:
    """A canonical name and both URLs parse to the host they came from; nothing else is ever raised."""
    try:
        host = parse(text, allow_private=allow_private)
    except InvalidHostname:
        return
    for form in (host.name, host.http_url, host.ws_url):
        assert host == parse(form, allow_private=allow_private)
