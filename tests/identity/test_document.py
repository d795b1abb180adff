"""What a relay takes from a DID document, and which documents do not serve."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from coincurve import PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from relay.atproto.keys import VerifyingKey
from relay.identity.document import Identity, InvalidDocument, parse
from tests.identity.documents import document, key

DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
OTHER = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"

Edit = Callable[[dict[str, Any]], object]


def parsed(fields: object, *, allow_private: bool = False) -> Identity:
    return parse(DID, orjson.dumps(fields), fetched_at=7.0, allow_private=allow_private)


def edited(edit: Edit) -> dict[str, Any]:
    fields = document(DID)
    edit(fields)
    return fields


def test_a_plain_document() -> None:
    """Key, PDS and handle of a document as the directory writes it."""
    assert parsed(document(DID)) == Identity(DID, key(1), "pds.example.com", "alice.example.com", 7.0)


def legacy(secret: int, *, compressed: bool) -> str:
    """The secp256k1 point without codec, as old directories write it."""
    point = PrivateKey.from_int(secret).public_key.format(compressed=compressed)
    digits, number = "", int.from_bytes(point, "big")
    while number:
        number, digit = divmod(number, 58)
        digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"[digit] + digits
    return "z" + digits


@pytest.mark.parametrize("compressed", [True, False])
def test_legacy_key_form(compressed: bool) -> None:
    """The npm PLC server still writes the 2019 type."""
    fields = document(DID)
    fields["verificationMethod"][0] |= {
        "id": "#atproto",
        "type": "EcdsaSecp256k1VerificationKey2019",
        "publicKeyMultibase": legacy(5, compressed=compressed),
    }
    assert parsed(fields).key == key(5)


@pytest.mark.parametrize(
    "first",
    [
        {"controller": OTHER},
        {"type": "JsonWebKey2020"},
        {"type": None},
        {"publicKeyMultibase": "z6Mk"},
        {"publicKeyMultibase": 5},
        {"id": "#atproto_label"},
        {"id": f"{OTHER}#atproto"},
    ],
)
def test_first_valid_key_counts(first: dict[str, Any]) -> None:
    """An entry of another purpose, controller or form is passed over; of two valid ones the first counts."""
    fields = document(DID)
    [good] = fields["verificationMethod"]
    later = document(DID, secret=2)["verificationMethod"]
    fields["verificationMethod"] = [good | first, "nonsense", good, *later]
    assert parsed(fields).key == key(1)
    fields["verificationMethod"] = [good | first]
    with pytest.raises(InvalidDocument):
        parsed(fields)


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        ("https://PDS.example.com/", "pds.example.com"),
        ("https://pds.example.com:443", "pds.example.com"),
    ],
)
def test_pds_names_are_canonical(endpoint: str, name: str) -> None:
    """Spelling does not make another host; the full service id counts as the short one."""
    fields = document(DID, pds=endpoint)
    fields["service"][0]["id"] = f"{DID}#atproto_pds"
    fields["service"].insert(0, {"id": "#bsky_chat", "type": "Chat", "serviceEndpoint": "https://other.example.com"})
    assert parsed(fields).host == name


def test_private_pds_needs_permission() -> None:
    """A local PDS serves in a closed network only."""
    fields = document(DID, pds="http://localhost:2583")
    assert parsed(fields, allow_private=True).host == "localhost:2583"
    with pytest.raises(InvalidDocument):
        parsed(fields)


@pytest.mark.parametrize(
    "endpoint",
    [
        "pds.example.com",
        "wss://pds.example.com",
        "https://pds.example.com/path",
        "https://10.0.0.1",
        "https://u:p@pds.example.com",
        "https://pds.example.com?q",
        "ftp://pds.example.com",
        "",
        None,
        ["https://a.b"],
    ],
)
def test_refused_endpoints(endpoint: Any) -> None:
    """A PDS is a bare http(s) URL of a host that may be spoken to."""
    with pytest.raises(InvalidDocument):
        parsed(document(DID, pds=endpoint))


@pytest.mark.parametrize(
    ("aliases", "handle"),
    [
        (["at://b.example.com", "at://c.example.com"], "b.example.com"),
        (["https://x.example.com", 5, "at://b.example.com"], "b.example.com"),
        (["at://not a handle", "at://c.example.com"], None),
        ([], None),
        ("at://b.example.com", None),
        (None, None),
    ],
)
def test_handle_is_the_first_at_alias(aliases: object, handle: str | None) -> None:
    """No handle is no fault."""
    assert parsed(document(DID) | {"alsoKnownAs": aliases}).handle == handle


@pytest.mark.parametrize(
    "edit",
    [
        lambda fields: fields.update(id=OTHER),
        lambda fields: fields.pop("id"),
        lambda fields: fields.pop("verificationMethod"),
        lambda fields: fields.update(verificationMethod={}),
        lambda fields: fields.pop("service"),
        lambda fields: fields.update(service="x"),
        lambda fields: fields["service"][0].update(type="Other"),
        lambda fields: fields["service"][0].update(id="#pds"),
    ],
)
def test_documents_that_do_not_serve(edit: Edit) -> None:
    """Another's document, and one without key or PDS."""
    with pytest.raises(InvalidDocument):
        parsed(edited(edit))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b'"x"', b"[" * 100_000, b'{"id": 1e999}'])
def test_bytes_that_are_no_document(data: bytes) -> None:
    """Any bytes give InvalidDocument."""
    with pytest.raises(InvalidDocument):
        parse(DID, data, fetched_at=0.0, allow_private=True)


_JSON = st.recursive(
    st.none()
    | st.integers(-5, 5)
    | st.text(max_size=5)
    | st.sampled_from([DID, "#atproto", "#atproto_pds", "Multikey"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "type", "controller", "publicKeyMultibase", "serviceEndpoint"]), inner, max_size=5
        )
    ),
    max_leaves=12,
)


@given(
    replaced=st.dictionaries(st.sampled_from(["id", "alsoKnownAs", "verificationMethod", "service"]), _JSON),
    entry=st.dictionaries(st.sampled_from(["id", "type", "controller", "publicKeyMultibase"]), _JSON),
)
def test_shapes_never_crash(replaced: dict[str, Any], entry: dict[str, Any]) -> None:
    """Whatever shape a document has, it gives an identity of this DID or InvalidDocument."""
    fields = document(DID)
    fields["verificationMethod"][0] |= entry
    try:
        identity = parsed(fields | replaced, allow_private=True)
    except InvalidDocument:
        return
    assert identity.did == DID
    assert isinstance(identity.key, VerifyingKey)
