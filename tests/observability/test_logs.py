"""Log lines in both forms."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from relay.observability.logs import configure


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restore_root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_json_lines() -> None:
    stream = io.StringIO()
    configure(level="info", stream=stream)
    logger = logging.getLogger("relay.hosts.supervisor")
    logger.info("connected to %s", "pds.test", extra={"host": "pds.test", "seq": 7, "blob": b"\x00"})
    logger.debug("not shown")
    (line,) = stream.getvalue().splitlines()
    fields = json.loads(line)
    assert fields.pop("ts").endswith("+00:00")
    assert fields == {
        "level": "info",
        "logger": "relay.hosts.supervisor",
        "msg": "connected to pds.test",
        "host": "pds.test",
        "seq": 7,
        "blob": "b'\\x00'",
    }


def test_json_lines_keep_a_traceback_and_any_text_on_one_line() -> None:
    stream = io.StringIO()
    configure(level="debug", stream=stream)
    try:
        raise ValueError("bad\nthing \ud800")
    except ValueError:
        logging.getLogger("relay").exception("it\nfailed \udfff", extra={"level": "fake", "text": "\ud800"})
    (line,) = stream.getvalue().splitlines()
    fields = json.loads(line)
    assert fields["level"] == "error"
    assert fields["msg"].startswith("it\nfailed")
    assert "ValueError: bad" in fields["error"]


def test_text_for_a_terminal() -> None:
    stream = Terminal()
    configure(level="warning", stream=stream)
    logging.getLogger("relay.net").info("not shown")
    logging.getLogger("relay.net").warning("slow", extra={"seconds": 3})
    line = stream.getvalue()
    assert line.endswith("WARNING relay.net: slow seconds=3\n")


def test_configure_replaces_itself_and_quietens_libraries() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure(level="debug", stream=first)
    configure(level="debug", stream=second)
    logging.getLogger("httpx").info("HTTP Request: GET …")
    logging.getLogger("relay").info("once")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


def test_unknown_level() -> None:
    with pytest.raises(ValueError, match="log level must be one of"):
        configure(level="loud", stream=io.StringIO())
