"""A host's finished sequence numbers: nothing twice, nothing skipped (DESIGN 5.2)."""

import random

from relay.eventlog.progress import HostProgress, Receipt


def test_a_fresh_host_is_asked_from_its_oldest_event() -> None:
    assert HostProgress().connect() == 0


def test_finished_events_are_recognised_when_a_host_replays_them() -> None:
    progress = HostProgress(last=9, unfinished=[5])
    assert progress.connect() == 4
    assert [progress.receive(seq) for seq in (5, 6, 9, 10)] == [
        Receipt.NEW,
        Receipt.REPLAYED,
        Receipt.REPLAYED,
        Receipt.NEW,
    ]
    assert progress.unfinished == [5, 10]


def test_a_host_with_inclusive_cursors_repeats_one_event_and_keeps_its_numbering() -> None:
    progress = HostProgress(last=7)
    assert progress.connect() == 7
    assert progress.receive(7) is Receipt.REPLAYED
    assert progress.receive(8) is Receipt.NEW


def test_numbers_below_the_cursor_mean_a_new_numbering() -> None:
    progress = HostProgress(last=700)
    progress.connect()
    assert progress.receive(51) is Receipt.RENUMBERED
    assert progress.connect() == 0  # and so the 50 before it are asked for
    assert [progress.receive(seq) for seq in (1, 51)] == [Receipt.NEW, Receipt.NEW]
    assert progress.last == 51


def test_old_events_in_flight_do_not_finish_new_numbers() -> None:
    progress = HostProgress()
    progress.connect()
    progress.receive(3)
    old_epoch = progress.epoch
    progress.forget()
    progress.connect()
    progress.receive(3)
    progress.finish(3, old_epoch)
    assert progress.unfinished == [3]


def test_numbers_must_increase_on_one_connection() -> None:
    progress = HostProgress()
    progress.connect()
    assert progress.receive(4) is Receipt.NEW
    assert progress.receive(4) is Receipt.OUT_OF_ORDER
    assert progress.receive(2) is Receipt.OUT_OF_ORDER
    assert progress.receive(5) is Receipt.NEW


def test_events_in_flight_are_not_taken_twice_after_a_reconnection() -> None:
    progress = HostProgress()
    progress.connect()
    progress.receive(1)
    progress.receive(2)
    assert progress.connect() == 2
    assert progress.receive(3) is Receipt.NEW
    assert progress.unfinished == [1, 2, 3]


def test_unfinished_numbers_that_a_host_no_longer_holds_are_let_go() -> None:
    progress = HostProgress(last=9, unfinished=[5, 7])
    progress.connect()
    progress.receive(7)
    assert progress.unfinished == [7]
    progress.receive(12)
    assert progress.unfinished == [7, 12]


def test_random_crashes_and_reconnections_process_every_event_exactly_once() -> None:
    """Against a list model: a host with all its events, a relay that crashes between writes."""
    for seed in range(200):
        rng = random.Random(seed)
        total = 60
        processed: list[int] = []
        stored: tuple[int, list[int]] = (0, [])
        progress = HostProgress()
        in_memory: list[int] = []
        sent = progress.connect()
        while len(processed) < total:
            match rng.choice("rrrrffwcx"):
                case "r":
                    if sent < total:
                        sent += 1
                        if progress.receive(sent) is Receipt.NEW:
                            in_memory.append(sent)
                case "f" if in_memory:
                    # one batch: the event comes out, and the host's row with it
                    seq = in_memory.pop(rng.randrange(len(in_memory)))
                    processed.append(seq)
                    progress.finish(seq, progress.epoch)
                    stored = (progress.last, progress.unfinished)
                case "w":
                    stored = (progress.last, progress.unfinished)
                case "c":
                    sent = progress.connect()
                case "x":
                    progress = HostProgress(*stored)
                    in_memory.clear()
                    sent = progress.connect()
        assert sorted(processed) == list(range(1, total + 1))
