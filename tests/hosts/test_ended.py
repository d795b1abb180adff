"""How an end is shown."""

from relay.hosts.ended import Cause, Ended, describe


def test_what_a_host_says_cannot_break_a_log_line() -> None:
    """It is cut short and printable."""
    shown = str(Ended(Cause.ERROR_FRAME, "a\nb\x1b[31m" + "x" * 1000))
    assert shown.startswith("error_frame: a b [31mxx")
    assert shown.isprintable()
    assert len(shown) < 250


def test_an_exception_group_is_told_by_its_first_member() -> None:
    """However deep it stands."""
    group = ExceptionGroup("outer", [ExceptionGroup("inner", [ValueError("why"), KeyError("not this")])])
    assert describe(group) == "ValueError: why"
    assert describe(ConnectionResetError()) == "ConnectionResetError"
