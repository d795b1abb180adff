"""The JSON form of values, held against the data model's vectors."""

from typing import Any

import pytest
from hypothesis import given

from relay.atproto.cbor import CborValue, decode, encode
from relay.atproto.cid import cid_text, dag_cbor_cid
from relay.atproto.data_model import from_json, to_json
from relay.atproto.errors import InvalidData
from tests.atproto.strategies import values
from tests.atproto.vectors import read_json, unpadded_base64


@pytest.mark.parametrize("case", read_json("data-model/data-model-fixtures.json"), ids=lambda case: case["cid"])
def test_json_cbor_and_cid_vectors(case: dict[str, Any]) -> None:
    """All three forms of the same value lead to each other."""
    block = unpadded_base64(case["cbor_base64"])
    assert encode(from_json(case["json"])) == block
    assert to_json(decode(block)) == case["json"]
    assert cid_text(dag_cbor_cid(block)) == case["cid"]


@pytest.mark.parametrize("case", read_json("data-model/data-model-valid.json"), ids=lambda case: case["note"])
def test_valid_vectors(case: dict[str, Any]) -> None:
    """Accepted, and the same after a turn through DAG-CBOR."""
    assert to_json(decode(encode(from_json(case["json"])))) == case["json"]


@pytest.mark.parametrize("case", read_json("data-model/data-model-invalid.json"), ids=lambda case: case["note"])
def test_invalid_vectors(case: dict[str, Any]) -> None:
    """Refused."""
    with pytest.raises(InvalidData):
        from_json(case["json"])


@pytest.mark.parametrize(
    "number", [1.5, float("nan"), float("inf"), -float("inf"), 2**63, -(2**63) - 1, 1e30], ids=repr
)
def test_numbers_outside_the_model(number: float) -> None:
    """Floats, and integers beyond 64 bits."""
    with pytest.raises(InvalidData):
        from_json({"number": number})


def test_nesting_is_bounded() -> None:
    """As in DAG-CBOR."""
    value: Any = 0
    for _ in range(100_000):
        value = [value]
    with pytest.raises(InvalidData):
        from_json({"a": value})


@given(values)
def test_every_value_has_a_json_form(value: CborValue) -> None:
    """And comes back from it, where no key has a meaning of its own."""
    assert from_json({"value": to_json(value)}) == {"value": value}
