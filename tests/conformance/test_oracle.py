"""The oracle's own judgement, on logs that fit on a line."""

from __future__ import annotations

import pytest

from tests.conformance.oracle import Cost, Event, Judge, Log, numbered


def log(*events: tuple[int, str], start: int = 0, end: int | None = None) -> Log:
    last = events[-1][0] + 1 if events else 0
    return Log(start, last if end is None else end, tuple(Event(*event) for event in events))


SOURCE = log((0, "a"), (1, "b"), (3, "c"), (4, "d"), end=6)
COPIES = log((0, "a"), (1, "b"), (2, "c"), (4, "d"), end=6)
AGAIN = log((0, "a"), (1, "b"), (2, "c"), (3, "b"), (4, "c"), (5, "d"))


@pytest.mark.parametrize(
    ("target", "committed", "answer", "cost"),
    [
        (COPIES, 3, 2, Cost((), 0, False)),
        (COPIES, 2, 2, Cost((), 0, False)),
        (COPIES, 3, 0, Cost((), 2, False)),
        (COPIES, 3, 4, Cost(("c",), 0, False)),
        (COPIES, 0, 9, Cost(("a", "b", "c", "d"), 0, True)),
        (COPIES, 6, 5, Cost((), 0, False)),
        # Copied again: what stands behind the answer is read again; nobody skips what has a copy ahead.
        (AGAIN, 4, 5, Cost((), 0, False)),
        (AGAIN, 4, 3, Cost((), 2, False)),
        (AGAIN, 3, 3, Cost((), 1, False)),
        # The target's own records count for nothing.
        (log((0, "x"), (1, "a"), (2, "y"), (3, "b")), 1, 2, Cost((), 0, False)),
    ],
)
def test_what_a_group_would_meet_in_the_target(target: Log, committed: int, answer: int, cost: Cost) -> None:
    assert Judge(SOURCE, target, {}).to_target(committed, answer) == cost


@pytest.mark.parametrize(
    ("target", "committed", "answer", "cost"),
    [
        (COPIES, 2, 3, Cost((), 0, False)),
        (COPIES, 2, 4, Cost(("c",), 0, False)),
        (COPIES, 2, 1, Cost((), 1, False)),
        # The group has read b and c once, and comes to them again.
        (AGAIN, 3, 4, Cost((), 0, False)),
        (AGAIN, 1, 3, Cost(("b",), 0, False)),
    ],
)
def test_what_a_group_would_meet_in_the_source(target: Log, committed: int, answer: int, cost: Cost) -> None:
    assert Judge(SOURCE, target, {}).to_source(committed, answer) == cost


def test_an_event_that_only_the_target_still_holds_is_skipped_all_the_same() -> None:
    trimmed = log((3, "c"), (4, "d"), start=3)
    stood = {"a": 0, "b": 1}
    assert Judge(trimmed, COPIES, stood, headless=("a", "b")).to_target(1, 2).skipped == ("b",)
    assert Judge(trimmed, COPIES, stood).to_target(1, 2).skipped == ()


def test_what_was_compacted_away_since_it_was_read_counts_as_read() -> None:
    assert Judge(log((3, "c"), (4, "d")), COPIES, {"a": 0, "b": 1}).to_target(3, 1).repeated == 1


def test_records_that_look_the_same_are_told_apart_by_their_order() -> None:
    same = numbered(log((0, "x"), (1, "x"), (2, "y"), (3, "x")))
    assert [event.id for event in same.events] == ["x #0", "x #1", "y #0", "x #2"]
