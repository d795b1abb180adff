"""Every setting: its name, unit, default and meaning, and one frozen value of them all. Pure.

A setting is an environment variable and a flag of the same name (`RELAY_DATA_DIR`, `--data-dir`); the command line
makes its flags from this table. Bad values are all named at once.
"""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PREFIX = "RELAY_"

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class ConfigError(ValueError):
    """One or more settings are unusable; the text has a line for each."""


@dataclass(frozen=True, slots=True)
class Bind:
    """Where to listen."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table: `name` without the prefix, in lower case, as in `Settings`."""

    name: str
    default: str
    parse: Callable[[str], Any]
    help: str

    @property
    def variable(self) -> str:
        """The environment variable."""
        return PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        """The command-line flag."""
        return "--" + self.name.replace("_", "-")


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator decides at start. The table below has the meanings."""

    data_dir: Path
    firehose_bind: Bind
    http_bind: Bind
    plc_url: str
    admin_password: str | None
    allow_private_hosts: bool
    validation: str
    retention_hours: float
    retention_bytes: int | None
    trusted_proxies: tuple[IpNetwork, ...]
    consumers_max: int
    consumers_per_address_max: int
    consumer_stall_seconds: float
    identity_park_seconds: float
    reconnect_min_seconds: float
    reconnect_max_seconds: float
    host_ping_seconds: float
    log_level: str


def load(values: Mapping[str, str]) -> Settings:
    """Settings from variables by their full names; empty and absent ones take the default.

    Raises:
        ConfigError: with one line for every bad value.
    """
    parsed: dict[str, Any] = {}
    problems = []
    for setting in TABLE:
        text = values.get(setting.variable) or setting.default
        try:
            parsed[setting.name] = setting.parse(text)
        except ValueError as error:
            problems.append(f"{setting.variable}={text!r}: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return Settings(**parsed)


def unknown_variables(values: Mapping[str, str]) -> list[str]:
    """Variables with our prefix and a value that this version has no setting for."""
    known = {setting.variable for setting in TABLE}
    return sorted(name for name, value in values.items() if name.startswith(PREFIX) and value and name not in known)


def _bind(text: str) -> Bind:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError("expected HOST:PORT")
    return Bind(host.strip("[]"), int(port))


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("expected an http or https URL")
    return text.rstrip("/")


def _flag(text: str) -> bool:
    try:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
    except KeyError:
        raise ValueError("expected true or false") from None


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"expected one of {', '.join(words)}")
        return text.lower()

    return parse


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError("expected a number above 0")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number <= 0:
        raise ValueError("expected a whole number above 0")
    return number


def _optional_count(text: str) -> int | None:
    return _count(text) if text else None


def _networks(text: str) -> tuple[IpNetwork, ...]:
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


TABLE = (
    Setting("data_dir", "./data", Path, "Directory of the event log."),
    Setting("firehose_bind", "0.0.0.0:3000", _bind, "HOST:PORT of the streaming port."),
    Setting("http_bind", "0.0.0.0:3001", _bind, "HOST:PORT of queries, admin, health and metrics."),
    Setting("plc_url", "https://plc.directory", _url, "Directory of did:plc."),
    Setting("admin_password", "", lambda text: text or None, "Password of user `admin`; unset: admin is off."),
    Setting(
        "allow_private_hosts", "false", _flag, "Permit ws://, any port, loopback and private addresses, http did:web."
    ),
    Setting("validation", "strict", _one_of("strict", "lenient"), "strict or lenient."),
    Setting("retention_hours", "72", _positive, "Age of the oldest event in the replay window, in hours."),
    Setting(
        "retention_bytes", "", _optional_count,
        "Bytes of events in the replay window; unset: 60 % of the file system, fixed at first start.",
    ),
    Setting("trusted_proxies", "", _networks, "Networks (comma list) whose client address headers are believed."),
    Setting("consumers_max", "1000", _count, "Consumers of the stream at a time."),
    Setting("consumers_per_address_max", "50", _count, "Consumers from one address at a time."),
    Setting("consumer_stall_seconds", "60", _positive, "A consumer that takes no byte for so long is too slow."),
    Setting(
        "identity_park_seconds", "600", _positive, "How long events wait for an account whose identity can't be found."
    ),
    Setting("reconnect_min_seconds", "1", _positive, "First wait before a host is dialled again."),
    Setting("reconnect_max_seconds", "3600", _positive, "Longest wait before a host is dialled again."),
    Setting("host_ping_seconds", "30", _positive, "A host that is silent for so long is pinged."),
    Setting("log_level", "info", _one_of("debug", "info", "warning", "error"), "debug, info, warning or error."),
)  # fmt: skip
