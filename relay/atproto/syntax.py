"""String formats of the protocol. Pure.

Owns which strings are a DID, handle, NSID, record key, repository path, TID, datetime, AT URI, language tag, CID
or URI. Does not resolve any of them, and does not ask whether they are registered anywhere.
Source: protocol.md 2.7, 4.2, 4.3, 6.1; the interoperability vectors under tests/vectors/syntax.

Every `is_…` takes any text and says whether it has the format; nothing here normalises.
"""

import re
from datetime import UTC, datetime

from relay.atproto.errors import InvalidSyntax

_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"

_DID = re.compile(r"did:[a-z]+:[a-zA-Z0-9._:%-]*[a-zA-Z0-9._-]")
_HANDLE = re.compile(rf"(?:{_LABEL}\.)+[a-zA-Z](?:[a-zA-Z0-9-]{{0,61}}[a-zA-Z0-9])?")
_NSID = re.compile(rf"[a-zA-Z](?:[a-zA-Z0-9-]{{0,61}}[a-zA-Z0-9])?(?:\.{_LABEL})+\.[a-zA-Z][a-zA-Z0-9]{{0,62}}")
_RECORD_KEY = re.compile(r"[A-Za-z0-9._:~-]{1,512}")
_TID = re.compile(r"[2-7a-j][2-7a-z]{12}")
_DATETIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]{1,20})?"
    r"(Z|(?!-00:00)[+-][0-9]{2}:[0-9]{2})"
)
_LANGUAGE = re.compile(r"(?:[a-z]{2,3}|[ixX](?=-))(?:-[a-zA-Z0-9]+)*")
_LANGUAGE_VARIANT = re.compile(r"[a-z0-9]{5,8}|[0-9][a-z0-9]{3}")
_CID = re.compile(r"(?!Qm)[a-zA-Z0-9+=]{8,256}")
_URI = re.compile(r"[a-zA-Z][a-zA-Z0-9.+-]*:[^\s]+")

_DID_CHARS_MAX = 2048
_HANDLE_CHARS_MAX = 253
_NSID_CHARS_MAX = 317
_URI_CHARS_MAX = 8192
_DATETIME_CHARS_MAX = 64
_TID_DIGITS = "234567abcdefghijklmnopqrstuvwxyz"
_TID_VALUES = str.maketrans(_TID_DIGITS, "0123456789abcdefghijklmnopqrstuv")


def is_did(text: str) -> bool:
    """Any method; at most 2,048 characters."""
    return len(text) <= _DID_CHARS_MAX and _DID.fullmatch(text) is not None


def is_handle(text: str) -> bool:
    """A domain name of at least two labels whose last one does not begin with a digit."""
    return len(text) <= _HANDLE_CHARS_MAX and _HANDLE.fullmatch(text) is not None


def is_at_identifier(text: str) -> bool:
    """A DID or a handle."""
    return is_did(text) or is_handle(text)


def is_nsid(text: str) -> bool:
    """At least three segments, the last a name; at most 317 characters in all."""
    return len(text) <= _NSID_CHARS_MAX and _NSID.fullmatch(text) is not None


def is_record_key(text: str) -> bool:
    """1 to 512 of the permitted characters, neither `.` nor `..`."""
    return text not in (".", "..") and _RECORD_KEY.fullmatch(text) is not None


def is_path(text: str) -> bool:
    """A repository path: NSID, slash, record key."""
    collection, slash, record_key = text.partition("/")
    return slash == "/" and is_nsid(collection) and is_record_key(record_key)


def is_at_uri(text: str) -> bool:
    """`at://` and an authority, then at most a collection and a record key."""
    if len(text) > _URI_CHARS_MAX or not text.startswith("at://"):
        return False
    authority, *path = text[5:].split("/", 2)
    if not is_at_identifier(authority):
        return False
    return (len(path) < 1 or is_nsid(path[0])) and (len(path) < 2 or is_record_key(path[1]))


def is_tid(text: str) -> bool:
    """13 base32 digits; text order is numeric order."""
    return _TID.fullmatch(text) is not None


def tid_microseconds(tid: str) -> int:
    """The time in a TID, in microseconds since 1970. Raises InvalidSyntax on anything that is not a TID."""
    if not is_tid(tid):
        raise InvalidSyntax(f"not a TID: {tid[:80]!r}")
    return int(tid.translate(_TID_VALUES), 32) >> 10


def tid_from_microseconds(microseconds: int) -> str:
    """The greatest TID of that time (Unix microseconds, below 2^53)."""
    value = microseconds << 10 | 1023
    return "".join(_TID_DIGITS[value >> shift & 31] for shift in range(60, -1, -5))


def is_datetime(text: str) -> bool:
    """The intersection of RFC 3339 and ISO 8601, with a time zone, naming a real instant of year 0 or later."""
    match = _DATETIME.fullmatch(text) if len(text) <= _DATETIME_CHARS_MAX else None
    if match is None:
        return False
    local, zone = match.groups()
    # Python knows no year 0; year 2000 is a leap year as 0 is.
    year_zero = local.startswith("0000")
    if year_zero:
        local = "2000" + local[4:]
    try:
        instant = datetime.fromisoformat(local + ("+00:00" if zone == "Z" else zone))
    except ValueError:
        return False
    return not year_zero or instant.astimezone(UTC).year >= 2000


def is_language(text: str) -> bool:
    """A BCP 47 tag in the usual spelling, with no variant and no extension named twice."""
    if _LANGUAGE.fullmatch(text) is None:
        return False
    variants: list[str] = []
    singletons: list[str] = []
    for subtag in text.lower().split("-")[1:]:
        if subtag == "x" or text[1] == "-":
            break
        if len(subtag) == 1:
            singletons.append(subtag)
        elif not singletons and _LANGUAGE_VARIANT.fullmatch(subtag):
            variants.append(subtag)
    return len({*variants}) == len(variants) and len({*singletons}) == len(singletons)


def is_cid(text: str) -> bool:
    """Text that may be a CID, of any base (the lexicon's string format); see `cid.py` for real ones."""
    return _CID.fullmatch(text) is not None


def is_uri(text: str) -> bool:
    """A scheme, a colon, and at least one character, without white space; at most 8 KiB."""
    return len(text) <= _URI_CHARS_MAX and _URI.fullmatch(text) is not None
