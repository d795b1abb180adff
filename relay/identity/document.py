"""DID documents: bytes to the little that a relay needs of them. Pure.

Owns the selection of the signing key, the PDS and the handle (protocol.md 6.4). Does not fetch documents, and does
not check that the handle points back.
"""

from dataclasses import dataclass
from typing import Any

import orjson

from relay.atproto.errors import InvalidData, InvalidKey
from relay.atproto.keys import VerifyingKey, parse_legacy, parse_multikey
from relay.atproto.syntax import is_handle
from relay.net import hostname


class InvalidDocument(InvalidData):
    """Not a DID document of this DID, or one without a usable signing key or PDS."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who an account is: `host` is the canonical name of its PDS (`HostName.name`), `handle` the first `at://`
    alias as written, `fetched_at` the Unix time at which the document was asked for."""

    did: str
    key: VerifyingKey
    host: str
    handle: str | None
    fetched_at: float


def parse(did: str, document: bytes, *, fetched_at: float, allow_private: bool) -> Identity:
    """The identity in a document. Raises InvalidDocument, whatever the bytes are."""
    try:
        fields = orjson.loads(document)
    except orjson.JSONDecodeError as error:
        raise InvalidDocument(f"the document of {did} is not JSON: {error}") from error
    if not isinstance(fields, dict) or fields.get("id") != did:
        raise InvalidDocument(f"the document is not that of {did}")
    key = _signing_key(did, fields)
    host = _pds(did, fields, allow_private=allow_private)
    return Identity(did, key, host, _handle(fields), fetched_at)


def _signing_key(did: str, fields: dict[str, Any]) -> VerifyingKey:
    """The first valid one counts."""
    reason = "there is none"
    for method in _entries(fields, "verificationMethod", (f"{did}#atproto", "#atproto")):
        kind, multibase = method.get("type"), method.get("publicKeyMultibase")
        if method.get("controller") != did:
            reason = "another DID controls it"
        elif not isinstance(kind, str) or not isinstance(multibase, str):
            reason = "its type or publicKeyMultibase is not a string"
        else:
            try:
                return parse_multikey(multibase) if kind == "Multikey" else parse_legacy(kind, multibase)
            except InvalidKey as error:
                reason = str(error)
    raise InvalidDocument(f"{did} has no signing key: {reason}")


def _pds(did: str, fields: dict[str, Any], *, allow_private: bool) -> str:
    for service in _entries(fields, "service", (f"{did}#atproto_pds", "#atproto_pds")):
        if service.get("type") != "AtprotoPersonalDataServer":
            continue
        endpoint = service.get("serviceEndpoint")
        if not isinstance(endpoint, str) or not endpoint.lower().startswith(("https://", "http://")):
            raise InvalidDocument(f"the PDS of {did} has no http(s) URL")
        try:
            return hostname.parse(endpoint, allow_private=allow_private).name
        except hostname.InvalidHostname as error:
            raise InvalidDocument(f"the PDS of {did} is refused: {error}") from error
    raise InvalidDocument(f"{did} has no PDS")


def _handle(fields: dict[str, Any]) -> str | None:
    aliases = fields.get("alsoKnownAs")
    for alias in aliases if isinstance(aliases, list) else ():
        if isinstance(alias, str) and alias.startswith("at://"):
            handle = alias.removeprefix("at://")
            return handle if is_handle(handle) else None
    return None


def _entries(fields: dict[str, Any], name: str, ids: tuple[str, str]) -> list[dict[str, Any]]:
    entries = fields.get(name)
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, dict) and entry.get("id") in ids]
