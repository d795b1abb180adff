"""Public keys and signature checks. Pure.

Owns the key forms of DID documents and the rule of what a valid signature is: ECDSA over SHA-256, 64 bytes
r || s, low S. Does not fetch keys and does not sign.
Source: protocol.md 5; libsecp256k1 through coincurve's cffi handle is 9 times faster than OpenSSL on that curve
(measurements.md 2).

base58btc is done here because importing multiformats costs 47 ms for these few lines.
"""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from relay.atproto.errors import InvalidKey

K256 = "k256"
P256 = "p256"

_CODECS: Final = {K256: b"\xe7\x01", P256: b"\x80\x24"}
_LEGACY_TYPES: Final = {
    "EcdsaSecp256k1VerificationKey2019": K256,
    "EcdsaSecp256r1VerificationKey2019": P256,
}
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_SIGNATURE_BYTES = 64
_COMPRESSED_BYTES = 33
_UNCOMPRESSED_BYTES = 65
_MULTIBASE_CHARS_MAX = 128

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_VALUES: Final = {digit: value for value, digit in enumerate(_BASE58)}


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key: `curve` is "k256" or "p256", `compressed` the 33-byte point.

    Made by the functions of this module, which prove the point to be on the curve. Equal by curve and point.
    """

    curve: str
    compressed: bytes
    _handle: Any = field(repr=False, compare=False)

    @property
    def did_key(self) -> str:
        """The `did:key:z…` form."""
        return "did:key:z" + _encode_base58(_CODECS[self.curve] + self.compressed)

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is a valid low-S signature, 64 bytes r || s, of `message` by this key."""
        if len(signature) != _SIGNATURE_BYTES:
            return False
        if self.curve == K256:
            return _verify_k256(self._handle, message, signature)
        return _verify_p256(self._handle, message, signature)

    def to_bytes(self) -> bytes:
        """34 bytes: the curve and the compressed point."""
        return self.curve[:1].encode() + self.compressed

    @staticmethod
    def from_bytes(data: bytes) -> "VerifyingKey":
        """The key that `to_bytes` gave `data` for. Raises InvalidKey on anything else."""
        curve = {b"k": K256, b"p": P256}.get(data[:1])
        if curve is None or len(data) != 1 + _COMPRESSED_BYTES:
            raise InvalidKey("not a stored key")
        return _load(curve, data[1:])


def parse_did_key(text: str) -> VerifyingKey:
    """The key in a `did:key:z…`. Raises InvalidKey."""
    if not text.startswith("did:key:"):
        raise InvalidKey(f"not a did:key: {text[:80]!r}")
    return parse_multikey(text.removeprefix("did:key:"))


def parse_multikey(text: str) -> VerifyingKey:
    """The key in the `publicKeyMultibase` of a `Multikey`: codec and compressed point. Raises InvalidKey."""
    data = _decode_multibase(text)
    for curve, codec in _CODECS.items():
        if data.startswith(codec) and len(data) == len(codec) + _COMPRESSED_BYTES:
            return _load(curve, data[len(codec) :])
    raise InvalidKey(f"neither a compressed p256 nor a compressed k256 key: {text[:80]!r}")


def parse_legacy(type_: str, multibase: str) -> VerifyingKey:
    """The key in a verification method of either `EcdsaSecp256…VerificationKey2019` type: a point without codec,
    compressed or not. Raises InvalidKey."""
    curve = _LEGACY_TYPES.get(type_)
    if curve is None:
        raise InvalidKey(f"unknown key type: {type_[:80]!r}")
    return _load(curve, _decode_multibase(multibase))


def _load(curve: str, point: bytes) -> VerifyingKey:
    """Raises InvalidKey unless `point` is on the curve, in the 33-byte or the 65-byte form."""
    # Both libraries know further forms (hybrid points, the point at infinity) that the protocol does not.
    forms = {_COMPRESSED_BYTES: (b"\x02", b"\x03"), _UNCOMPRESSED_BYTES: (b"\x04",)}
    if not point.startswith(forms.get(len(point), ())):
        raise InvalidKey("point is neither compressed nor uncompressed")
    if curve == K256:
        return _load_k256(point)
    return _load_p256(point)


def _load_k256(point: bytes) -> VerifyingKey:
    context = GLOBAL_CONTEXT.ctx
    handle = ffi.new("secp256k1_pubkey *")
    if not lib.secp256k1_ec_pubkey_parse(context, handle, point, len(point)):
        raise InvalidKey("point is not on secp256k1")
    compressed = ffi.new("unsigned char [33]")
    size = ffi.new("size_t *", _COMPRESSED_BYTES)
    lib.secp256k1_ec_pubkey_serialize(context, compressed, size, handle, lib.SECP256K1_EC_COMPRESSED)
    return VerifyingKey(K256, bytes(ffi.buffer(compressed, _COMPRESSED_BYTES)), handle)


def _load_p256(point: bytes) -> VerifyingKey:
    try:
        handle = EllipticCurvePublicKey.from_encoded_point(SECP256R1(), point)
    except ValueError as exc:
        raise InvalidKey("point is not on P-256") from exc
    return VerifyingKey(P256, handle.public_bytes(Encoding.X962, PublicFormat.CompressedPoint), handle)


def _verify_k256(handle: Any, message: bytes, signature: bytes) -> bool:
    # libsecp256k1 reads 64 bytes whatever the buffer holds (the caller checked), and refuses high S by itself.
    context = GLOBAL_CONTEXT.ctx
    parsed = ffi.new("secp256k1_ecdsa_signature *")
    if not lib.secp256k1_ecdsa_signature_parse_compact(context, parsed, signature):
        return False
    return bool(lib.secp256k1_ecdsa_verify(context, parsed, sha256(message).digest(), handle))


def _verify_p256(handle: EllipticCurvePublicKey, message: bytes, signature: bytes) -> bool:
    # OpenSSL refuses zero and what is not below the order, but not a high S.
    r = int.from_bytes(signature[:32], "big")
    s = int.from_bytes(signature[32:], "big")
    if s > _P256_ORDER // 2:
        return False
    try:
        handle.verify(encode_dss_signature(r, s), message, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _decode_multibase(text: str) -> bytes:
    """The bytes behind `z` in base58btc. Raises InvalidKey on other bases."""
    if not text.startswith("z") or len(text) > _MULTIBASE_CHARS_MAX:
        raise InvalidKey(f"not base58btc multibase of a key: {text[:80]!r}")
    number = 0
    for digit in text[1:]:
        if digit not in _BASE58_VALUES:
            raise InvalidKey(f"not base58btc: {text[:80]!r}")
        number = number * 58 + _BASE58_VALUES[digit]
    zeros = len(text[1:]) - len(text[1:].lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def _encode_base58(data: bytes) -> str:
    number = int.from_bytes(data, "big")
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = _BASE58[digit] + digits
    return "1" * (len(data) - len(data.lstrip(b"\x00"))) + digits
