"""No vector file goes unread."""

from pathlib import Path

from tests.atproto.vectors import VECTORS


def test_every_vector_file_is_claimed_by_a_test() -> None:
    """Every file is named, by its path under tests/vectors, in the tests beside this one."""
    tests = "\n".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    files = [path.relative_to(VECTORS) for path in VECTORS.rglob("*.*") if path.parent != VECTORS]
    unread = [str(path) for path in files if f'"{path.as_posix()}"' not in tests]
    assert len(files) >= 33
    assert unread == []
