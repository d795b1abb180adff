"""Whether what came out of a relay is what went in. Pure.

Owns the comparison of a consumer's events with the network's record: per account the same events in the same order,
each unchanged but for `seq`, none lost, none twice, nothing else. `handle` of `#identity` may be missing (DESIGN 6).
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

from tests.world.frames import Parsed, parse
from tests.world.network import CONTENT, Emitted


def differences(emitted: Iterable[Emitted], received: Iterable[Parsed], *, hidden: Collection[str] = ()) -> list[str]:
    """What is wrong, one line each; empty when all is well.

    `hidden` are the DIDs whose `#commit` and `#sync` may be missing: accounts deleted or taken down since.
    """
    sent: dict[str, list[Emitted]] = defaultdict(list)
    came: dict[str, list[Parsed]] = defaultdict(list)
    for event in emitted:
        sent[event.did].append(event)
    for parsed in received:
        came[parsed.did].append(parsed)
    found = []
    for did in sorted(sent.keys() | came.keys()):
        found += _account(did, sent[did], came[did], hidden=did in hidden)
    return found


def _account(did: str, sent: list[Emitted], came: list[Parsed], *, hidden: bool) -> list[str]:
    found, place = [], 0
    for event in sent:
        if place < len(came) and event.expect != "drop" and _same(parse(event.message), came[place]):
            place += 1
        elif event.expect == "pass" and not (hidden and event.kind in CONTENT):
            found.append(f"{did}: lost {event.kind} {event.seq} of {event.host}")
    found += [f"{did}: unexpected {event.kind} as seq {event.seq}" for event in came[place:]]
    return found


def _same(sent: Parsed, came: Parsed) -> bool:
    return sent.kind == came.kind and _passed_on(sent, came) == came.body


def _passed_on(sent: Parsed, came: Parsed) -> dict[str, Any]:
    if sent.kind == "#identity" and "handle" not in came.payload:
        return {name: value for name, value in sent.body.items() if name != "handle"}
    return sent.body
