"""Keys and DID documents for the tests."""

from typing import Any

import orjson
from coincurve import PrivateKey

from relay.atproto.keys import VerifyingKey


def key(secret: int) -> VerifyingKey:
    """The public half of a small secret number on secp256k1."""
    return VerifyingKey.from_bytes(b"k" + PrivateKey.from_int(secret).public_key.format())


def document(
    did: str, *, secret: int = 1, pds: str = "https://pds.example.com", handle: str = "alice.example.com"
) -> dict[str, Any]:
    """A document as plc.directory writes it."""
    return {
        "@context": ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"],
        "id": did,
        "alsoKnownAs": [f"at://{handle}"],
        "verificationMethod": [
            {
                "id": f"{did}#atproto",
                "type": "Multikey",
                "controller": did,
                "publicKeyMultibase": key(secret).did_key.removeprefix("did:key:"),
            }
        ],
        "service": [
            {"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": pds},
        ],
    }


def document_bytes(did: str, *, secret: int = 1, pds: str = "https://pds.example.com") -> bytes:
    return orjson.dumps(document(did, secret=secret, pds=pds))
