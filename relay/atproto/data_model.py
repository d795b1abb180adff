"""The JSON form of the data model: links and bytes as marked objects. Pure.

Owns the mapping between JSON values and DAG-CBOR values and the model's rules for `$link`, `$bytes`, `$type` and blobs.
Does not parse JSON text, and checks no lexicon. Source: the protocol's data model; tests/vectors/data-model.
"""

from base64 import b64decode, b64encode
from typing import Any

from relay.atproto.cbor import DEPTH_MAX, INTEGER_MAX, INTEGER_MIN, CborValue, Link
from relay.atproto.cid import cid_text, parse_cid_text
from relay.atproto.errors import InvalidSyntax


def from_json(value: object) -> dict[str, CborValue]:
    """The DAG-CBOR value of a decoded JSON object. Raises InvalidSyntax or InvalidCid."""
    decoded = _from_json(value, DEPTH_MAX)
    if not isinstance(decoded, dict):
        raise InvalidSyntax("not an object")
    return decoded


def to_json(value: CborValue) -> Any:
    """The JSON form of a DAG-CBOR value, ready for a JSON encoder."""
    if isinstance(value, Link):
        return {"$link": cid_text(value.cid)}
    if isinstance(value, bytes):
        return {"$bytes": b64encode(value).decode("ascii").rstrip("=")}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    return value


def _from_json(value: object, depth_left: int) -> CborValue:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return _integer(value)
    if depth_left == 0:
        raise InvalidSyntax(f"nested deeper than {DEPTH_MAX}")
    if isinstance(value, list):
        return [_from_json(item, depth_left - 1) for item in value]
    if not isinstance(value, dict):
        raise InvalidSyntax(f"{type(value).__name__} is not JSON")
    if "$link" in value:
        return Link(parse_cid_text(_only_text(value, "$link")))
    if "$bytes" in value:
        return _bytes(_only_text(value, "$bytes"))
    decoded = {key: _from_json(item, depth_left - 1) for key, item in value.items()}
    _check_type(decoded)
    return decoded


def _integer(number: float) -> int:
    if isinstance(number, float) and not number.is_integer():
        raise InvalidSyntax(f"not an integer: {number}")
    if not INTEGER_MIN <= number <= INTEGER_MAX:
        raise InvalidSyntax("integer beyond 64 bits with a sign")
    return int(number)


def _only_text(value: dict[str, object], name: str) -> str:
    text = value[name]
    if len(value) != 1 or not isinstance(text, str):
        raise InvalidSyntax(f"{name} is not text, or not alone")
    return text


def _bytes(text: str) -> bytes:
    try:
        return b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)
    except ValueError as exc:
        raise InvalidSyntax("$bytes is not base64") from exc


def _check_type(value: dict[str, CborValue]) -> None:
    """`$type`, where present, is a name; a blob has its reference, media type and size."""
    match value:
        case {"$type": "blob"}:
            match value:
                case {"ref": Link(), "mimeType": str(), "size": int(size)} if type(size) is int and size >= 0:
                    pass
                case _:
                    raise InvalidSyntax("blob lacks ref, mimeType or size")
        case {"$type": str(name)} if name:
            pass
        case {"$type": _}:
            raise InvalidSyntax("$type is not a name")
