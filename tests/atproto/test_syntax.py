"""String formats, held against every syntax vector."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.atproto import syntax
from relay.atproto.errors import InvalidSyntax
from tests.atproto.vectors import read_lines

VALID: dict[str, Callable[[str], bool]] = {
    "syntax/aturi_syntax_valid.txt": syntax.is_at_uri,
    "syntax/atidentifier_syntax_valid.txt": syntax.is_at_identifier,
    "syntax/cid_syntax_valid.txt": syntax.is_cid,
    "syntax/datetime_syntax_valid.txt": syntax.is_datetime,
    "syntax/did_syntax_valid.txt": syntax.is_did,
    "syntax/handle_syntax_valid.txt": syntax.is_handle,
    "syntax/language_syntax_valid.txt": syntax.is_language,
    "syntax/nsid_syntax_valid.txt": syntax.is_nsid,
    "syntax/recordkey_syntax_valid.txt": syntax.is_record_key,
    "syntax/tid_syntax_valid.txt": syntax.is_tid,
    "syntax/uri_syntax_valid.txt": syntax.is_uri,
}
INVALID: dict[str, Callable[[str], bool]] = {
    "syntax/aturi_syntax_invalid.txt": syntax.is_at_uri,
    "syntax/atidentifier_syntax_invalid.txt": syntax.is_at_identifier,
    "syntax/cid_syntax_invalid.txt": syntax.is_cid,
    "syntax/datetime_syntax_invalid.txt": syntax.is_datetime,
    "syntax/datetime_parse_invalid.txt": syntax.is_datetime,
    "syntax/did_syntax_invalid.txt": syntax.is_did,
    "syntax/handle_syntax_invalid.txt": syntax.is_handle,
    "syntax/language_syntax_invalid.txt": syntax.is_language,
    "syntax/language_parse_invalid.txt": syntax.is_language,
    "syntax/nsid_syntax_invalid.txt": syntax.is_nsid,
    "syntax/recordkey_syntax_invalid.txt": syntax.is_record_key,
    "syntax/tid_syntax_invalid.txt": syntax.is_tid,
    "syntax/uri_syntax_invalid.txt": syntax.is_uri,
}


@pytest.mark.parametrize("name", VALID)
def test_valid_vectors(name: str) -> None:
    """Every line has the format."""
    lines = read_lines(name)
    assert lines
    assert [line for line in lines if not VALID[name](line)] == []


@pytest.mark.parametrize("name", INVALID)
def test_invalid_vectors(name: str) -> None:
    """No line has the format."""
    lines = read_lines(name)
    assert lines
    assert [line for line in lines if INVALID[name](line)] == []


@given(st.text(max_size=40) | st.text("did:plcwebat/.-_~%#T2Z09+xi \n", max_size=40))
def test_any_text_has_an_answer(text: str) -> None:
    """Nothing raises, and a line break at the end is never overlooked."""
    for check in VALID.values():
        check(text)
        assert not check(text + "\n")


@pytest.mark.parametrize(
    ("path", "valid"),
    [
        ("app.bsky.feed.post/3jzfcijpj2z2a", True),
        ("a.b.c/self", True),
        ("a.b.c/:", True),
        ("a.b.c/" + "o" * 512, True),
        ("a.b.c/" + "o" * 513, False),
        ("a.b.c", False),
        ("a.b.c/", False),
        ("/self", False),
        ("a.b/self", False),
        ("a.b.c/d/e", False),
        ("a.b.c//d", False),
        ("/a.b.c/d", False),
        ("a.b.c/.", False),
        ("a.b.c/..", False),
        ("A0/374913", False),
        ("a.b.c/é", False),
    ],
)
def test_paths(path: str, valid: bool) -> None:
    """A collection, one slash, a record key."""
    assert syntax.is_path(path) is valid


def test_tid_time() -> None:
    """2023-06-30T15:03:01.887007Z (protocol.md 4.2)."""
    assert syntax.tid_microseconds("3jzfcijpj2z2a") == 1_688_137_381_887_007
    assert syntax.tid_microseconds("2222222222222") == 0
    for malformed in ("", "3jzfcijpj2z2", "3jzfcijpj2z21", "zzzzzzzzzzzzz", "3jzfcijpj2z2a\n"):
        with pytest.raises(InvalidSyntax):
            syntax.tid_microseconds(malformed)
