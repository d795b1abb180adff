"""Reads the files under tests/vectors."""

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parents[1] / "vectors"


def read_json(name: str) -> Any:
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


def read_lines(name: str) -> list[str]:
    """The lines that are neither empty nor a comment, spaces kept."""
    lines = (VECTORS / name).read_text(encoding="utf-8").split("\n")
    return [line for line in lines if line and not line.startswith("#")]


def unpadded_base64(text: str) -> bytes:
    return b64decode(text + "=" * (-len(text) % 4))
