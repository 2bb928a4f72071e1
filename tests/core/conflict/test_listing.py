"""What marks list, and the records that are found for it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest

from mrc.core.conflict.events import Hlc
from mrc.core.conflict.listing import KNEW_MAX, LISTED_MAX, Claimed, Claims, Listed, Lister, Passed
from mrc.core.conflict.marks import Entry, Knew, Listing, Mark, pack, unpack
from mrc.core.errors import MrcError
from mrc.core.model import Offset, Region

EAST, WEST = Region("east"), Region("west")


class Reader:
    """West, reading east's marks and copies; a record is its number, and its fingerprint."""

    def __init__(self, state: Listed | None = None) -> None:
        self.claims: Claims[int] = Claims(EAST, 0, state or Listed(), set())
        self.at = 0
        self.said: list[str] = []

    def copy(self, *names: int) -> Reader:
        for name in names:
            self._note(self.claims.come(Entry(-1, 0, name), name))
        return self

    def mark(
        self, *entries: tuple[int, int], after: int | None = None, upto: int = 0, knew: tuple[Knew, ...] = (), at_ms: int = 0
    ) -> Reader:
        """Hear a mark of (offset, name)."""
        listing = Listing(entries[0][0] if after is None else after, 1_000, pack([Entry(o, at_ms, n) for o, n in entries]), knew)
        mark = Mark(max(upto, entries[-1][0] + 1 if entries else 0), "", 0, 2_000, "")
        self._note(self.claims.hear(Offset(self.at), mark, listing))
        self.at += 1
        return self

    def _note(self, found: Sequence[Claimed[int] | Passed[int]]) -> None:
        self.said += [f"{one.stamp.id}={one.record}" if isinstance(one, Claimed) else f"passed {one.record}" for one in found]


def test_a_listed_event_gets_the_copy_of_its_fingerprint_whichever_comes_first() -> None:
    assert Reader().copy(1, 2).mark((0, 1), (1, 2)).said == ["east-0-0=1", "east-0-1=2"]
    assert Reader().mark((0, 1), (1, 2)).copy(1, 2).said == ["east-0-0=1", "east-0-1=2"]


def test_what_comes_again_is_passed_over_when_a_later_copy_is_claimed_and_not_before() -> None:
    reader = Reader().copy(1, 2).mark((0, 1), (1, 2)).copy(1, 2)
    assert reader.claims.unlisted == 2
    assert reader.copy(3).mark((2, 3)).said[2:] == ["passed 1", "passed 2", "east-0-2=3"]
    assert reader.claims.unlisted == 0


def test_one_alike_that_is_listed_later_is_not_taken_for_one_that_came_again() -> None:
    reader = Reader().copy(1, 1, 2).mark((0, 1)).mark((1, 1), (2, 2))
    assert reader.said == ["east-0-0=1", "east-0-1=1", "east-0-2=2"]


def test_where_no_copy_is_lost_every_event_gets_one_like_it_whatever_came_again_in_between() -> None:
    for seed in range(2_000):
        choose = random.Random(seed)
        names = [choose.randrange(1, 4) for _ in range(choose.randrange(2, 8))] + [9]
        assert claimed_of(choose, names, copies_of(choose, names)) == list(enumerate(names)), seed


def copies_of(choose: random.Random, names: Sequence[int]) -> list[int]:
    """Return the names in their order, with suffixes of what was copied that came again."""
    found, at = [], 0
    while at < len(names):
        found.append(names[at])
        at += 1
        if choose.random() < 0.3:
            at -= choose.randrange(min(at, 4) + 1)
    return found


def claimed_of(choose: random.Random, names: Sequence[int], copies: Sequence[int]) -> list[tuple[int, int]]:
    """Return which offsets were claimed by records of which names; marks and copies come in any order, and the process begins anew."""
    cuts = [0, *sorted(choose.choices(range(len(names)), k=2)), len(names)]
    marks = [list(enumerate(names))[begin:end] for begin, end in itertools.pairwise(cuts)]
    taken, heard, come = set[int](), 0, 0
    claims: Claims[int] = Claims(EAST, 0, Listed(), taken)
    found: list[tuple[int, int]] = []
    while heard < len(marks) or come < len(copies):
        if choose.random() < 0.1:
            heard = heard if claims.first_held is None else claims.first_held
            come = come if claims.first_record is None else claims.first_record
            claims = Claims(EAST, 0, claims.state, taken)
        elif heard < len(marks) and (come == len(copies) or choose.random() < 0.5):
            listing = Listing(cuts[heard], 1_000, pack([Entry(offset, 0, name) for offset, name in marks[heard]]))
            said = claims.hear(Offset(heard), Mark(cuts[heard + 1], "", 0, 2_000, ""), listing)
            heard += 1
            found += [(one.stamp.number - 1, copies[one.record]) for one in said if isinstance(one, Claimed)]
        elif come < len(copies):
            said = claims.come(Entry(-1, 0, copies[come]), come)
            come += 1
            found += [(one.stamp.number - 1, copies[one.record]) for one in said if isinstance(one, Claimed)]
    assert claims.first_held is None
    return found


def test_one_held_back_as_come_again_is_taken_when_what_was_due_before_it_is_given_up() -> None:
    reader = Reader().copy(1).mark((0, 1), (1, 2), (2, 1), (3, 3)).copy(1)
    assert reader.said == ["east-0-0=1"]
    assert reader.copy(3).said[1:] == ["east-0-2=1", "east-0-3=3"]


def test_an_event_whose_copy_never_comes_is_given_up_when_a_later_one_has_come() -> None:
    reader = Reader().mark((0, 1), (1, 2)).mark((2, 3), after=2)
    assert reader.claims.first_held == 0
    reader.copy(3)
    assert reader.said == ["east-0-2=3"]
    assert reader.claims.settled == 3
    assert reader.claims.first_held is None
    assert reader.copy(1, 4).mark((3, 4), after=3).said[1:] == ["passed 1", "east-0-3=4"]


def test_marks_that_come_again_list_nothing_new() -> None:
    reader = Reader().mark((0, 1)).mark((1, 2), after=1).mark((0, 1)).mark((1, 2), after=1).copy(1, 2)
    assert reader.said == ["east-0-0=1", "east-0-1=2"]


def test_of_two_marks_that_list_an_event_the_first_counts() -> None:
    looks = (Knew(0, {WEST: 5}, 10),), (Knew(0, {WEST: 9}, 900),)
    reader = Reader().mark((0, 1), knew=looks[0]).mark((0, 1), (1, 2), knew=looks[1])
    found = [*reader.claims.come(Entry(-1, 0, 1), 1), *reader.claims.come(Entry(-1, 0, 2), 2)]
    assert [(one.stamp.vector, one.stamp.hlc) for one in found if isinstance(one, Claimed)] == [
        ({WEST: 5, EAST: 1}, Hlc(11, 1)),
        ({WEST: 9, EAST: 2}, Hlc(901, 2)),
    ]


def test_whoever_goes_on_from_the_state_claims_the_rest_and_nothing_twice() -> None:
    marks = [((0, 1), (1, 2)), ((2, 3), (3, 4))]
    whole = Reader().mark(*marks[0]).mark(*marks[1])
    found = whole.copy(1, 2, 3, 4).said
    for copies in range(4):
        before = Reader().mark(*marks[0]).mark(*marks[1]).copy(*range(1, copies + 1))
        held = before.claims.first_held
        assert held == copies // 2
        after = Reader(before.claims.state)
        for mark in marks[held:]:
            after.mark(*mark)
        assert before.said + after.copy(*range(copies + 1, 5)).said == found, copies


def test_clocks_grow_with_the_log_and_stay_between_what_was_seen_and_when_it_was_read() -> None:
    reader = Reader()
    knew = (Knew(2, {WEST: 1}, 700),)
    listing = Listing(0, 1_000, pack([Entry(0, 500, 1), Entry(1, 400, 2), Entry(2, 600, 3), Entry(3, 1_500, 4), Entry(4, 900, 5)]), knew)
    reader.claims.hear(Offset(0), Mark(5, "", 800, 2_000, ""), listing)
    reader.claims.hear(Offset(1), Mark(7, "", 900, 2_000, ""), Listing(5, 1_000, pack([Entry(5, 1_000, 6), Entry(6, 2_001, 7)])))
    found = [one for name in range(1, 8) for one in reader.claims.come(Entry(-1, 0, name), name) if isinstance(one, Claimed)]
    assert [one.stamp.hlc for one in found] == [
        Hlc(500, 1),
        Hlc(500, 2),
        Hlc(701, 3),
        Hlc(1_000, 4),
        Hlc(1_000, 5),
        Hlc(1_000, 6),
        Hlc(1_000, 7),
    ]
    assert [bool(one.ahead) for one in found] == [False] * 6 + [True]


def test_marks_between_that_are_missing_are_named() -> None:
    reader = Reader().mark((7, 1), after=7)  # nothing is known of what was before the first mark
    with pytest.raises(MrcError, match="lists from 9 on, and all before it up to 8") as caught:
        reader.mark((9, 2))
    assert caught.value.code == "OFFSET_OUT_OF_RANGE"


@pytest.mark.parametrize(
    "events",
    [
        b"short",
        pack([Entry(1, 0, 1), Entry(1, 0, 1)]),
        pack([Entry(2, 0, 1), Entry(1, 0, 1)]),
        pack([Entry(9, 0, 1)]),
        pack([Entry(0, 0, 1)]),
    ],
)
def test_what_is_no_listing_is_refused(events: bytes) -> None:
    with pytest.raises(ValueError, match=r"it lists|cut off"):
        unpack(Mark(5, "", 0, 0, ""), Listing(1, 0, events))


def test_a_mark_that_lists_from_beyond_what_it_speaks_of_is_refused_and_hides_none() -> None:
    reader = Reader().mark((0, 1))
    with pytest.raises(ValueError, match="it lists from 9 on"):
        reader.mark(after=9, upto=2)
    assert reader.mark((1, 2), after=1).copy(1, 2).said == ["east-0-0=1", "east-0-1=2"]


def listed(lister: Lister, position: int) -> list[tuple[int, int, list[int], list[int]]]:
    """The marks' offset, last, what they list, and the looks that they tell of."""
    return [
        (
            offset,
            last,
            [one.offset for one in unpack(Mark(offset, "", 0, 0, ""), listing)],
            [knew.offset for knew in listing.knew],
        )
        for offset, last, listing in lister.next(Offset(position), 0)
    ]


def test_what_was_read_is_listed_once_with_the_looks_that_matter_to_it() -> None:
    lister = Lister(Listed())
    for offset in (0, 1, 4):
        lister.read(Entry(offset, 0, offset))
    lister.look(Offset(1), {WEST: 1}, 0)
    lister.look(Offset(3), {WEST: 1}, 0)  # says nothing new
    lister.look(Offset(9), {WEST: 2}, 0)
    assert listed(lister, 6) == [(6, 4, [0, 1, 4], [1, 9])]
    assert listed(lister, 6) == [(6, 4, [], [1, 9])]
    lister.read(Entry(9, 0, 9))
    assert listed(lister, 10) == [(10, 9, [9], [9])]


def test_much_takes_several_marks_that_follow_one_another() -> None:
    lister = Lister(Listed())
    count = 2 * LISTED_MAX + 1
    for offset in range(count):
        lister.read(Entry(offset, 0, offset))
    said = listed(lister, count + 5)
    assert [(offset, last, len(some)) for offset, last, some, _ in said] == [
        (LISTED_MAX, LISTED_MAX - 1, LISTED_MAX),
        (2 * LISTED_MAX, 2 * LISTED_MAX - 1, LISTED_MAX),
        (count + 5, count - 1, 1),
    ]


def test_looks_are_bounded_and_what_is_left_out_leaves_more_in_doubt() -> None:
    lister = Lister(Listed())
    for number in range(1, 3 * KNEW_MAX):
        lister.look(Offset(10 * number), {WEST: number}, 0)
    lister.read(Entry(10 * KNEW_MAX, 0, 1))
    ((*_, looks),) = listed(lister, 10 * 4 * KNEW_MAX)
    assert len(looks) <= KNEW_MAX
    assert looks[-1] == 10 * (3 * KNEW_MAX - 1)
    assert looks[-2] < 10 * KNEW_MAX


def test_what_others_have_said_in_its_place_is_not_said_again() -> None:
    lister = Lister(Listed())
    for offset in range(4):
        lister.read(Entry(offset, 0, offset))
    lister.look(Offset(1), {WEST: 1}, 0)
    lister.heard(Listed(offset=2, last=1, knew=Knew(2, {WEST: 3}, 0)))
    assert listed(lister, 4) == [(4, 3, [2, 3], [2])]


def test_whoever_goes_on_lists_what_may_have_been_listed_already_and_nothing_is_left_out() -> None:
    lister = Lister(Listed(offset=3, last=2, settled=3, knew=Knew(2, {WEST: 4}, 0)))
    for offset in range(2, 6):
        lister.read(Entry(offset, 0, offset))
    assert listed(lister, 6) == [(6, 5, [3, 4, 5], [2])]
