"""The aligner on logs that are longer than its window."""

from __future__ import annotations

from collections.abc import Sequence

from mrc.core.model import Offset, Seen
from mrc.core.translation.aligner import AHEAD_STUCK, FORGOTTEN, HISTORY, Aligner
from mrc.core.translation.offset_map import Bounded, Exact, OffsetMap

PIECE = 5_000
FOUND = "the record was found on both sides"


def records(first: int, count: int, begin: int = 0) -> list[Seen]:
    """``count`` records from offset ``begin`` on, copies of the source's records from ``first`` on."""
    return [Seen(begin + n, first + n, 1_000_000_007 * (first + n)) for n in range(count)]


def run(source: Sequence[Seen], target: Sequence[Seen]) -> Aligner:
    """Feed both logs as the readers would: whichever side is wanted, to their ends."""
    aligner = Aligner(OffsetMap(0, 0))
    s = t = 0
    for _ in range(10_000):
        if s < len(source) and aligner.wants_source:
            piece = source[s : s + PIECE]
            s += len(piece)
            aligner.feed_source(piece, piece[-1].offset + 1)
        if t < len(target) and aligner.wants_target:
            piece = target[t : t + PIECE]
            t += len(piece)
            aligner.feed_target(piece, piece[-1].offset + 1)
        if aligner.stuck:
            aligner.note_source_end(source[-1].offset + 1)
        if s == len(source) and t == len(target) and not aligner.stuck:
            return aligner
    raise AssertionError(f"stands still at {s} and {t}")


def test_a_replication_that_began_late_is_found() -> None:
    late = AHEAD_STUCK + 100_000
    known = run(records(0, late + 3_000), records(late, 3_000)).map
    assert known.to_target(late + 10) == Exact(Offset(10), FOUND)
    assert known.to_target(late) == Exact(Offset(0), FOUND)
    assert known.to_target(5) == Exact(Offset(0), FOUND)


def test_a_record_of_the_targets_own_before_a_long_log_stops_nothing_and_skips_nothing() -> None:
    count = AHEAD_STUCK + 200_000
    own = [Seen(0, 5, 42)]
    known = run(records(0, count), [*own, *records(0, count, begin=1)]).map
    for committed in (count - 1, count - 10, count - 1_000):
        assert known.to_target(committed) == Exact(Offset(committed + 1), FOUND)
    early = known.to_target(1_000)
    assert isinstance(early, Bounded)
    assert early.offset <= 1_001
    assert early.repeats_max >= 1_001 - early.offset


def test_what_is_sent_again_from_long_ago_is_still_told_from_new_records() -> None:
    count = 5 * HISTORY
    again = records(0, count // 2, begin=count)
    new = records(count, 10, begin=count + len(again))
    known = run(records(0, count + 10), [*records(0, count), *again, *new]).map
    at_the_head = known.to_target(count + 5)
    assert at_the_head == Exact(Offset(count + len(again) + 5), FOUND)
    before = known.to_target(count)
    assert isinstance(before, Exact | Bounded)
    old = known.to_target(count // 2)
    assert isinstance(old, Bounded)
    assert (old.offset, old.reason) == (count // 2, "sent-again")
    assert old.repeats_max >= count // 2


def test_what_is_sent_again_from_before_all_that_is_remembered_is_bounded_by_its_age() -> None:
    count = FORGOTTEN + 4 * HISTORY
    again = records(0, 100, begin=count)
    known = run(records(0, count), [*records(0, count), *again]).map
    answer = known.to_target(200)
    assert isinstance(answer, Bounded)
    assert answer.offset == 200
    assert answer.repeats_max >= 100
