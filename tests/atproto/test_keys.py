"""Public keys and signatures, held against the vectors and against the libraries that sign."""

from hashlib import sha256
from typing import Any

import coincurve
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from multiformats import multibase

from relay.atproto import keys
from relay.atproto.errors import InvalidKey
from tests.atproto.vectors import read_json, unpadded_base64

K256_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
CURVES = {"k256": (ec.SECP256K1(), K256_ORDER, b"\xe7\x01"), "p256": (ec.SECP256R1(), P256_ORDER, b"\x80\x24")}
LEGACY = {"k256": "EcdsaSecp256k1VerificationKey2019", "p256": "EcdsaSecp256r1VerificationKey2019"}
MESSAGE = b"a commit without its signature"


def _base58(data: bytes) -> str:
    return multibase.encode(data, "base58btc")


def _private(curve: str, secret: int = 0xC0FFEE) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(secret, CURVES[curve][0])


def _point(private: ec.EllipticCurvePrivateKey, form: PublicFormat = PublicFormat.CompressedPoint) -> bytes:
    return private.public_key().public_bytes(Encoding.X962, form)


def _did_key(curve: str, point: bytes) -> str:
    return "did:key:" + _base58(CURVES[curve][2] + point)


def _sign(curve: str, message: bytes = MESSAGE, secret: int = 0xC0FFEE) -> tuple[int, int]:
    """(r, s) with a low s."""
    r, s = decode_dss_signature(_private(curve, secret).sign(message, ec.ECDSA(SHA256())))
    return r, min(s, CURVES[curve][1] - s)


def _compact(r: int, s: int) -> bytes:
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


@pytest.mark.parametrize("case", read_json("crypto/signature-fixtures.json"), ids=lambda case: case["comment"])
def test_signature_vectors(case: dict[str, Any]) -> None:
    """Both forms of each key are the same key; only low-S, 64-byte signatures are valid."""
    key = keys.parse_did_key(case["publicKeyDid"])
    assert keys.parse_legacy(case["didDocSuite"], case["publicKeyMultibase"]) == key
    assert key.curve == {"ES256": "p256", "ES256K": "k256"}[case["algorithm"]]
    message, signature = unpadded_base64(case["messageBase64"]), unpadded_base64(case["signatureBase64"])
    assert key.verify(message, signature) is case["validSignature"]


@pytest.mark.parametrize("case", read_json("crypto/w3c_didkey_K256.json"), ids=lambda case: case["publicDidKey"])
def test_k256_did_key_vectors(case: dict[str, str]) -> None:
    """The public key of the private one."""
    point = coincurve.PrivateKey(bytes.fromhex(case["privateKeyBytesHex"])).public_key.format()
    key = keys.parse_did_key(case["publicDidKey"])
    assert (key.curve, key.compressed, key.did_key) == ("k256", point, case["publicDidKey"])


@pytest.mark.parametrize("case", read_json("crypto/w3c_didkey_P256.json"), ids=lambda case: case["publicDidKey"])
def test_p256_did_key_vectors(case: dict[str, str]) -> None:
    """The public key of the private one."""
    secret = int.from_bytes(multibase.decode("z" + case["privateKeyBytesBase58"]), "big")
    key = keys.parse_did_key(case["publicDidKey"])
    assert (key.curve, key.compressed) == ("p256", _point(_private("p256", secret)))
    assert key.did_key == case["publicDidKey"]


@given(st.sampled_from(sorted(CURVES)), st.integers(1, 2**255), st.binary(max_size=100))
def test_signatures(curve: str, secret: int, message: bytes) -> None:
    """A signature is valid for its message and key, and for nothing else."""
    key = keys.parse_did_key(_did_key(curve, _point(_private(curve, secret))))
    r, s = _sign(curve, message, secret)
    assert key.verify(message, _compact(r, s))
    assert not key.verify(message + b"x", _compact(r, s))
    assert not key.verify(message, _compact(s, r))
    assert not key.verify(message, _compact(r, CURVES[curve][1] - s))
    other = keys.parse_did_key(_did_key(curve, _point(_private(curve, secret + 1))))
    assert other != key
    assert not other.verify(message, _compact(r, s))


@pytest.mark.parametrize("curve", CURVES)
def test_numbers_out_of_range(curve: str) -> None:
    """r and s from 1 to the order, s not above its half."""
    key = keys.parse_did_key(_did_key(curve, _point(_private(curve))))
    order = CURVES[curve][1]
    r, s = _sign(curve)
    for wrong in ((0, s), (r, 0), (0, 0), (order, s), (r, order), (r, order // 2 + 1), (2**256 - 1, 2**256 - 1)):
        assert not key.verify(MESSAGE, _compact(*wrong))
    if r + order < 2**256:
        assert not key.verify(MESSAGE, _compact(r + order, s))


@pytest.mark.parametrize("curve", CURVES)
def test_lengths_other_than_64(curve: str) -> None:
    """Cut short, with bytes behind, with a recovery byte, DER: refused before any library sees them."""
    key = keys.parse_did_key(_did_key(curve, _point(_private(curve))))
    good = _compact(*_sign(curve))
    der = _private(curve).sign(MESSAGE, ec.ECDSA(SHA256()))
    for wrong in (b"", good[:1], good[:32], good[:63], good + b"\x00", b"\x00" + good, good + good, der):
        assert not key.verify(MESSAGE, wrong)


@pytest.mark.parametrize("curve", CURVES)
def test_key_forms(curve: str) -> None:
    """did:key, Multikey, both lengths of the legacy form and the stored one are the same key, and verify."""
    private = _private(curve)
    compressed, uncompressed = _point(private), _point(private, PublicFormat.UncompressedPoint)
    key = keys.parse_did_key(_did_key(curve, compressed))
    same = [
        keys.parse_multikey(_did_key(curve, compressed).removeprefix("did:key:")),
        keys.parse_legacy(LEGACY[curve], _base58(compressed)),
        keys.parse_legacy(LEGACY[curve], _base58(uncompressed)),
        keys.VerifyingKey.from_bytes(key.to_bytes()),
    ]
    assert set(same) == {key}
    assert key.compressed == compressed
    assert all(form.verify(MESSAGE, _compact(*_sign(curve))) for form in same)
    assert len(key.to_bytes()) == 34


@pytest.mark.parametrize("curve", CURVES)
def test_malformed_keys(curve: str) -> None:
    """Wrong codec, length, form or base; a point that is not on the curve."""
    private, codec = _private(curve), CURVES[curve][2]
    compressed, uncompressed = _point(private), _point(private, PublicFormat.UncompressedPoint)
    off_curve = next(
        b"\x02" + x.to_bytes(32, "big")
        for x in range(1, 100)
        if not _is_on_curve(curve, b"\x02" + x.to_bytes(32, "big"))
    )
    hybrid = bytes((6 + (uncompressed[-1] & 1),)) + uncompressed[1:]
    good = _base58(codec + compressed)
    multikeys = [
        *("", "z", good[1:], "u" + good[1:], good + "0", good + "é", good[:-1], "z" * 1_000, "z" + "1" * 127),
        *(_base58(data) for data in (compressed, codec, codec + compressed + b"\x00", codec + compressed[:-1])),
        *(_base58(data) for data in (codec + uncompressed, codec + off_curve, codec + b"\x04" + compressed[1:])),
        *(_base58(b"\xed\x01" + data) for data in (compressed, compressed[1:])),
        _base58(codec + b"\x02" + b"\xff" * 32),
    ]
    for text in multikeys:
        with pytest.raises(InvalidKey):
            keys.parse_multikey(text)
        with pytest.raises(InvalidKey):
            keys.parse_did_key("did:key:" + text)
    with pytest.raises(InvalidKey):
        keys.parse_did_key(good)
    for point in (
        b"",
        b"\x00",
        off_curve,
        hybrid,
        codec + compressed,
        compressed + b"\x00",
        uncompressed[:-1] + b"\x00",
    ):
        with pytest.raises(InvalidKey):
            keys.parse_legacy(LEGACY[curve], _base58(point))
    with pytest.raises(InvalidKey):
        keys.parse_legacy("Ed25519VerificationKey2020", _base58(compressed))
    for stored in (b"", b"k", compressed, b"x" + compressed, curve[:1].encode() + compressed + b"\x00"):
        with pytest.raises(InvalidKey):
            keys.VerifyingKey.from_bytes(stored)


def _is_on_curve(curve: str, point: bytes) -> bool:
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(CURVES[curve][0], point)
    except ValueError:
        return False
    return True


def test_the_same_point_on_two_curves_is_two_keys() -> None:
    """Equality is by curve and point."""
    x = next(
        x.to_bytes(32, "big")
        for x in range(1, 1_000)
        if all(_is_on_curve(curve, b"\x02" + x.to_bytes(32, "big")) for curve in CURVES)
    )
    assert keys.parse_did_key(_did_key("k256", b"\x02" + x)) != keys.parse_did_key(_did_key("p256", b"\x02" + x))


@given(st.text(max_size=60))
def test_any_text_is_a_key_or_refused(text: str) -> None:
    """Nothing but InvalidKey is raised."""
    for parse in (keys.parse_multikey, keys.parse_did_key, lambda text: keys.parse_legacy(LEGACY["k256"], text)):
        with pytest.raises(InvalidKey):
            parse(text)


def test_agrees_with_the_library_that_made_the_signature() -> None:
    """libsecp256k1 itself made and accepts what we accept."""
    private = coincurve.PrivateKey(sha256(b"seed").digest())
    recoverable = private.sign_recoverable(MESSAGE)
    key = keys.parse_did_key(_did_key("k256", private.public_key.format()))
    assert key.verify(MESSAGE, recoverable[:64])
