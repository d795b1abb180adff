"""Binary and textual CIDs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.atproto import cid
from relay.atproto.errors import InvalidCid

EMPTY_NODE = bytes.fromhex("a2616580616cf6")
EMPTY_NODE_TEXT = "bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm"


def test_known_block() -> None:
    """The empty tree's node has a CID known from real hosts (protocol.md 3.2)."""
    binary = cid.dag_cbor_cid(EMPTY_NODE)
    assert cid.cid_text(binary) == EMPTY_NODE_TEXT
    assert cid.parse_cid_text(EMPTY_NODE_TEXT) == binary
    assert cid.is_dag_cbor(binary)


@given(st.binary(min_size=32, max_size=32), st.sampled_from([cid.DAG_CBOR_PREFIX, cid.RAW_PREFIX]))
def test_text_survives(digest: bytes, prefix: bytes) -> None:
    """Blessed CIDs go to text and back."""
    text = cid.cid_text(prefix + digest)
    assert len(text) == 59
    assert cid.parse_cid_text(text) == prefix + digest


@pytest.mark.parametrize(
    "text",
    [
        "",
        "b",
        EMPTY_NODE_TEXT[:-1],
        EMPTY_NODE_TEXT + "a",
        EMPTY_NODE_TEXT.upper(),
        "B" + EMPTY_NODE_TEXT[1:],
        "z" + EMPTY_NODE_TEXT[1:],
        EMPTY_NODE_TEXT[:-1] + "1",
        EMPTY_NODE_TEXT[:-1] + "é",
        EMPTY_NODE_TEXT[:-1] + "n",  # bits behind the last byte that are not zero
        EMPTY_NODE_TEXT[:-2] + "==",
        "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",  # dag-pb
        "QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR",
    ],
)
def test_other_text_is_refused(text: str) -> None:
    """Other lengths, cases, bases, codecs, and a second spelling of the same bytes."""
    with pytest.raises(InvalidCid):
        cid.parse_cid_text(text)


@given(st.integers(0, 2**63 - 1))
def test_varints_survive(number: int) -> None:
    """Written, then read, between other bytes."""
    encoded = cid.write_varint(number)
    assert cid.read_varint(b"\x80" + encoded + b"\x01", 1) == (number, 1 + len(encoded))


@pytest.mark.parametrize("data", ["", "80", "8000", "ff80", "808000", "80808080808080808001"])
def test_malformed_varints(data: str) -> None:
    """Cut short, not minimal, over 9 bytes."""
    with pytest.raises(InvalidCid):
        cid.read_varint(bytes.fromhex(data), 0)


@given(st.binary(max_size=120))
def test_any_bytes_are_a_cid_or_refused(data: bytes) -> None:
    """Nothing but InvalidCid is raised."""
    try:
        binary, end = cid.read_cid(data, 0)
    except InvalidCid:
        return
    assert binary == data[:end]
    cid.check_cid(binary)


def test_whole_cids_only() -> None:
    """Bytes behind, and an SHA-256 digest of another length."""
    binary = cid.dag_cbor_cid(b"")
    for wrong in (binary + b"\x00", binary[:-1], b"\x12\x20" + bytes(32), bytes.fromhex("0171121f") + bytes(31)):
        with pytest.raises(InvalidCid):
            cid.check_cid(wrong)
        assert not cid.is_dag_cbor(wrong)
    assert not cid.is_dag_cbor(cid.RAW_PREFIX + bytes(32))
