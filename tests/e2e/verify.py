"""Re-verification at the consumer, with code that is not ours: libipld, hashlib, libsecp256k1. Trio (asks the PLC)."""

import hashlib

import coincurve
import httpx
import libipld
from coincurve.ecdsa import cdata_to_der, deserialize_compact

from tests.e2e.observed import Observed

_DAG_CBOR_SHA256 = b"\x01\x71\x12\x20"
_CID_BYTES = 36
_SECP256K1_PUB = b"\xe7\x01"


class Verifier:
    """Checks events as a consumer that trusts nobody but the PLC directory would. Caches one key per DID."""

    def __init__(self, *, plc: str, http: httpx.AsyncClient) -> None:
        self._plc = plc
        self._http = http
        self._keys: dict[str, coincurve.PublicKey] = {}

    async def check(self, event: Observed) -> None:
        """Raises AssertionError unless hashes, commit object, fields, records and signature agree."""
        if event.kind not in ("#commit", "#sync"):
            return
        root, blocks = _read_car(event.payload["blocks"])
        commit = libipld.decode_dag_cbor(blocks[root])
        assert root == event.payload.get("commit", root)
        assert (commit["did"], commit["rev"], commit["version"]) == (event.did, event.payload["rev"], 3)
        for op in event.payload.get("ops", []):
            assert op["action"] == "delete" or op["cid"] in blocks, op["path"]
        signature = commit.pop("sig")
        await self._check_signature(event.did, libipld.encode_dag_cbor(commit), signature)

    async def _check_signature(self, did: str, message: bytes, signature: bytes) -> None:
        der = cdata_to_der(deserialize_compact(signature))
        known = self._keys.get(did)
        if known is None or not known.verify(der, message):
            known = self._keys[did] = await self._fetch_key(did)
        assert known.verify(der, message), f"bad signature of {did}"

    async def _fetch_key(self, did: str) -> coincurve.PublicKey:
        answer = (await self._http.get(f"{self._plc}/{did}/data")).raise_for_status().json()
        multibase = answer["verificationMethods"]["atproto"].removeprefix("did:key:")
        key: bytes = libipld.decode_multibase(multibase)[1]
        assert key.startswith(_SECP256K1_PUB), multibase
        return coincurve.PublicKey(key[2:])


def _read_car(car: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """The first root and the blocks by binary CID, every block hashed."""
    header, position = _section(car, 0)
    blocks: dict[bytes, bytes] = {}
    while position < len(car):
        section, position = _section(car, position)
        cid, block = section[:_CID_BYTES], section[_CID_BYTES:]
        assert cid == _DAG_CBOR_SHA256 + hashlib.sha256(block).digest(), "a block does not hash to its CID"
        blocks[cid] = block
    return libipld.decode_dag_cbor(header)["roots"][0], blocks


def _section(car: bytes, position: int) -> tuple[bytes, int]:
    """What stands after the varint at `position`, as long as it says, and where that ends."""
    length = shift = 0
    while True:
        byte = car[position]
        position += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return car[position : position + length], position + length
