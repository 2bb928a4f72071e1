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


def run(source: Sequence[Seen], target: Sequence[Seen], *, torn: bool = False, faithful: bool = True, stamped: bool = True) -> Aligner:
    """Feed both logs as the readers would: whichever side is wanted, to their ends."""
    aligner = Aligner(OffsetMap(0, 0), stamped=stamped)
    aligner.map.torn, aligner.map.faithful = torn, faithful
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


def stray(time: int) -> list[Seen]:
    """A target in which nobody's record stands before copies of the source's first fifty."""
    return [Seen(0, time, 42), *records(0, 50, begin=1)]


def test_in_a_torn_log_a_stray_record_may_be_the_changed_copy_of_a_later_one_of_its_time() -> None:
    known = run(records(0, 300), stray(200), torn=True, faithful=False).map
    assert known.to_target(0) == Bounded(Offset(0), 1, "identical-records")
    assert known.to_target(40) == Bounded(Offset(0), 41, "identical-records")
    assert run(records(0, 300), stray(7), torn=True, faithful=False).map.to_target(0) == Exact(Offset(1), FOUND), (
        "7 has a copy that is alike"
    )
    for otherwise in (run(records(0, 300), stray(200)), run(records(0, 300), stray(200), torn=True)):
        assert otherwise.map.to_target(40) == Exact(Offset(41), FOUND)


def test_a_stray_record_is_nobodys_copy_once_all_of_its_time_have_theirs() -> None:
    target = [*stray(200), *records(50, 250, begin=51)]
    assert run(records(0, 300), target, torn=True, faithful=False).map.to_target(0) == Exact(Offset(1), FOUND)


def test_where_timestamps_tell_nothing_a_stray_record_may_be_anybodys_copy() -> None:
    known = run(records(0, 300), stray(5_000), torn=True, faithful=False, stamped=False).map
    assert known.strays == [(299, 0)]
    assert known.to_target(40) == Bounded(Offset(0), 41, "identical-records")


def test_a_record_without_a_timestamp_is_changed_by_every_copy() -> None:
    source = [seen if seen.offset != 200 else Seen(200, -1, seen.fingerprint) for seen in records(0, 300)]
    known = run(source, stray(5_000), torn=True).map
    assert known.to_target(40) == Bounded(Offset(0), 41, "identical-records")


def test_in_a_torn_log_a_twin_may_be_an_earlier_one_sent_again() -> None:
    source = [Seen(0, 0, 7), *records(1, 5, begin=1), Seen(6, 0, 7)]
    target = [*records(1, 5), Seen(5, 0, 7)]
    assert run(source, target).map.to_target(3) == Exact(Offset(2), FOUND)
    assert run(source, target, torn=True).map.to_target(3) == Bounded(Offset(2), 1, "sent-again")
