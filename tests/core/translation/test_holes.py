"""Records that were never copied, and copies that were changed on their way."""

from __future__ import annotations

from collections.abc import Iterable

from mrc.core.model import Offset, Seen
from mrc.core.translation.aligner import Aligner
from mrc.core.translation.offset_map import Bounded, Deleted, Exact, Hole, OffsetMap, Unanswerable


def seen(offset: int, event: int) -> Seen:
    """A record whose content is its event's number."""
    return Seen(offset, event, 1_000_000_007 * (event + 1))


def feed(aligner: Aligner, source: Iterable[int], target: Iterable[int], *, at: int = 0) -> None:
    """Feed events of both logs from their beginnings; the target's from offset ``at`` on."""
    here = [seen(event, event) for event in source]
    there = [seen(at + n, event) for n, event in enumerate(target)]
    aligner.feed_source(here, len(here))
    send(aligner, there)


def send(aligner: Aligner, there: list[Seen]) -> None:
    """Feed more of the target."""
    aligner.feed_target(there, there[-1].offset + 1)
    if aligner.stuck:
        aligner.note_source_end(aligner.source_position)


def send_again(aligner: Aligner, events: Iterable[int]) -> None:
    """Feed late copies."""
    begin = aligner.target_position
    send(aligner, [seen(begin + n, event) for n, event in enumerate(events)])


def complete(begin_target: int = 0) -> OffsetMap:
    known = OffsetMap(0, begin_target)
    known.complete = True
    return known


def test_records_that_a_flow_passed_are_a_hole_and_their_positions_have_no_answer() -> None:
    known = complete()
    aligner = Aligner(known)
    feed(aligner, range(30), [*range(10), *range(20, 30)])
    assert known.lacking == [Hole(10, 20, 10)]
    assert [known.to_target(at) for at in (10, 15, 19)] == [Unanswerable("never-copied")] * 3
    assert isinstance(known.to_target(20), Exact)
    assert known.to_target(15, final=True) == known.to_target(20)


def test_a_hole_is_filled_by_copies_that_come_later_in_their_order() -> None:
    known = complete()
    aligner = Aligner(known)
    feed(aligner, range(30), [*range(10), *range(20, 30)])
    send_again(aligner, range(10, 19))
    assert known.lacking == [Hole(19, 20, 1)]
    send_again(aligner, [19])
    assert known.lacking == []


def test_what_lies_below_the_flows_beginning_is_no_hole() -> None:
    known = complete()
    aligner = Aligner(known)
    aligner.note_flow_begin(20)
    feed(aligner, range(30), [*range(10), *range(20, 30)])
    assert known.lacking == []
    known.note_hole(Hole(5, 8, 3))
    aligner.note_flow_begin(20)
    assert known.lacking == []


def test_what_the_target_has_deleted_by_now_is_no_hole_but_has_no_answer() -> None:
    known = complete(begin_target=1_000)
    aligner = Aligner(known)
    feed(aligner, range(30), range(12, 30), at=1_000)
    assert known.lacking == []
    assert known.to_target(5) == Unanswerable("before-map")
    assert isinstance(known.to_target(12), Exact)


def test_a_copy_that_was_changed_on_its_way_is_not_skipped_and_no_hole() -> None:
    known = complete()
    aligner = Aligner(known)
    feed(aligner, range(30), [*range(10), 999, *range(11, 30)])
    answer = known.to_target(10)
    assert isinstance(answer, Bounded)
    assert answer.offset == 10
    assert known.to_target(11) == Exact(Offset(11), "the record was found on both sides")
    assert known.lacking == []
    back = known.to_source(10)
    assert not isinstance(back, Unanswerable)
    assert back.offset == 10


def test_where_no_copy_is_recognised_no_target_position_is_exact() -> None:
    known = OffsetMap(0, 0)
    aligner = Aligner(known)
    feed(aligner, range(10), range(100, 110))
    assert isinstance(known.to_source(5), Bounded)


def test_what_the_target_has_deleted_is_counted_from_a_position_on() -> None:
    aligner = Aligner(complete(10))
    feed(aligner, range(20), range(20), at=10)
    known = aligner.map
    assert known.deleted(3, 10) == Deleted(0, 3), "nothing is gone"
    assert known.deleted(3, 18) == Deleted(5, 8)
    assert known.deleted(8, 18) == Deleted(0, 8), "it has read all of them"
    assert known.deleted(0, 40) == Deleted(20, 20)


def test_what_was_deleted_before_the_logs_were_compared_counts_too() -> None:
    aligner = Aligner(complete(7))
    feed(aligner, range(20), range(7, 20), at=7)
    known = aligner.map
    assert known.holes == [Hole(0, 7, 7, gone=True)]
    assert known.deleted(3, 7) == Deleted(4, 7)
    assert known.deleted(3, 10) == Deleted(7, 10)
    assert known.deleted(7, 7) == Deleted(0, 7)
    known.complete = False  # records may have been left out on purpose
    assert known.deleted(3, 7) == Deleted(0, 3)
