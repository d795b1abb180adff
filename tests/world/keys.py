"""Signing keys of both curves, their texts, and a verifier. Pure.

Owns private keys made from given bytes, did:key and legacy multibase texts, low-S 64-byte signatures (protocol.md
section 5), and the check of such a signature by OpenSSL. Does not know documents or repositories.
"""

import random
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import coincurve
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

Curve = Literal["k256", "p256"]

ORDER: dict[str, int] = {
    "k256": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
    "p256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
}
CODEC: dict[str, bytes] = {"k256": bytes([0xE7, 0x01]), "p256": bytes([0x80, 0x24])}
LEGACY_TYPE: dict[str, str] = {
    "k256": "EcdsaSecp256k1VerificationKey2019",
    "p256": "EcdsaSecp256r1VerificationKey2019",
}
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def base58(data: bytes) -> str:
    """Base58btc text of `data` (no multibase prefix)."""
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = BASE58[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def unbase58(text: str) -> bytes:
    """The bytes of base58btc text; raises ValueError on a foreign character."""
    number = 0
    for character in text:
        number = number * 58 + BASE58.index(character)
    zeros = len(text) - len(text.lstrip("1"))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")


@dataclass(frozen=True)
class SigningKey:
    """A private key. `secret` is 32 bytes, big-endian, in [1, order)."""

    curve: Curve
    secret: bytes

    @classmethod
    def generate(cls, rng: random.Random, curve: Curve = "k256") -> "SigningKey":
        """A key from the generator's next numbers."""
        return cls(curve, rng.randrange(1, ORDER[curve]).to_bytes(32, "big"))

    @cached_property
    def _k256(self) -> coincurve.PrivateKey:
        return coincurve.PrivateKey(self.secret)

    @cached_property
    def _p256(self) -> ec.EllipticCurvePrivateKey:
        return ec.derive_private_key(int.from_bytes(self.secret, "big"), ec.SECP256R1())

    @cached_property
    def compressed(self) -> bytes:
        """The public point, 33 bytes."""
        return self._point(compressed=True)

    def _point(self, *, compressed: bool) -> bytes:
        if self.curve == "k256":
            return bytes(self._k256.public_key.format(compressed=compressed))
        form = PublicFormat.CompressedPoint if compressed else PublicFormat.UncompressedPoint
        return self._p256.public_key().public_bytes(Encoding.X962, form)

    @cached_property
    def multikey(self) -> str:
        """`z…`: the `publicKeyMultibase` of a Multikey, and the tail of a did:key."""
        return "z" + base58(CODEC[self.curve] + self.compressed)

    @property
    def did_key(self) -> str:
        return "did:key:" + self.multikey

    @property
    def legacy_multibase(self) -> str:
        """`publicKeyMultibase` of the legacy forms: the uncompressed point without a codec."""
        return "z" + base58(self._point(compressed=False))

    @property
    def legacy_type(self) -> str:
        return LEGACY_TYPE[self.curve]

    def sign(self, message: bytes) -> bytes:
        """64 bytes r||s over SHA-256 of `message`; deterministic, low S."""
        if self.curve == "k256":
            return bytes(self._k256.sign_recoverable(message))[:64]
        der = self._p256.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        r, s = decode_dss_signature(der)
        return r.to_bytes(32, "big") + min(s, ORDER["p256"] - s).to_bytes(32, "big")


def high_s(signature: bytes, curve: Curve) -> bytes:
    """The malleable twin of a low-S signature: valid ECDSA, forbidden here."""
    s = ORDER[curve] - int.from_bytes(signature[32:], "big")
    return signature[:32] + s.to_bytes(32, "big")


def der(signature: bytes) -> bytes:
    """The DER form of a 64-byte signature: forbidden here."""
    return encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))


def verify(did_key: str, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is a 64-byte low-S signature of `message` by the key; OpenSSL for both curves."""
    raw = unbase58(did_key.removeprefix("did:key:z"))
    name = next(name for name, codec in CODEC.items() if raw[:2] == codec)
    curve: ec.EllipticCurve = ec.SECP256K1() if name == "k256" else ec.SECP256R1()
    if len(signature) != 64:
        return False
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if not (0 < r < ORDER[name] and 0 < s <= ORDER[name] // 2):
        return False
    key = ec.EllipticCurvePublicKey.from_encoded_point(curve, raw[2:])
    try:
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
