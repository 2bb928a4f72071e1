"""Events without headers: what marks list, and the records that are found for it.

A region's resolver lists, in its marks, the events of its own log (`Lister`). Every region, that one too, gives a listed event its stamp
from the marks alone and its body from a record that it has read (`Claims`):

- its origin is the log's region, its number its offset and one, its id region, partition and offset;
- its clock is its record's timestamp, but not later than it was read by its region's resolver, later than all listed before it and than
  the marks before it, and later than what it is taken to have seen, unless that is far ahead of its region's clock;
- it is taken to have seen what its region's log held of the others when that log ended at its place or before: the last such look that
  the mark tells of. *Seen* means: the copy was there, so its writer can have read it.

**What holds.** A look first notes which copies have been read and then asks where the own log ends. What is appended behind that end
was written while those copies stood there. So an event is never taken to have seen one whose copy was not in its region's log yet (as far
as a broker knows its log's end: what is not replicated within its own region yet does not count). The other way round there is doubt, and
doubt is concurrency: what was appended between the arrival of a copy and the next look is taken not to have seen it, though it may have.
And a copy that was there need not have been read by the application: then a conflict is missed. What was lost on its way counts as seen
with what came behind it.

**Which record.** A copy does not know its original's offset. Copies come in the order of the log, and suffixes of it come again; so the
first record of a fingerprint behind the last one that was taken is the event's. Records alike are interchangeable: a copy that comes again
may be taken for a later one that is like it, but not while an earlier event's copy is still to come. An event of which no
copy has come when a later one's has is given up: its copy was lost or compacted away. A record that was passed over when a later one was
taken, came again or is somebody else's. Nothing is passed over before, for its listing may still be on its way.

Invariant: the first mark that lists an offset counts, and marks come in one order everywhere (what comes again of them lists nothing new),
so stamps are the same in every region, whatever else was read before or after.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Generic, NamedTuple, Protocol, TypeVar

import msgspec

from mrc.core.conflict.events import Hlc
from mrc.core.conflict.headers import Stamp
from mrc.core.conflict.marks import Entry, Knew, Listing, Mark, pack, unpack
from mrc.core.errors import MrcError
from mrc.core.model import Offset, Region

LISTED_MAX = 5_000
"""Events that one mark lists; 160 KB as it is written."""

KNEW_MAX = 64
"""Looks that are remembered until the events behind them are listed; beyond, the last one is replaced, which only leaves more in doubt."""

FOLLOWED_MS_MAX = 60_000
"""A clock that is further ahead than this is not followed by events that may have seen it."""

T = TypeVar("T")


class Listed(msgspec.Struct):
    """How far one region's listing has been read, and what of it was found; durable.

    Attributes:
        offset: below it everything is listed; -1: no mark yet.
        last: the last listed offset; -1: none.
        clock_ms: what is listed next is of this time or later.
        settled: what is listed below it was found or given up.
        known_ms: the latest clock of that.
        knew: the last look.
    """

    offset: int = -1
    last: int = -1
    clock_ms: int = -1
    settled: int = 0
    known_ms: int = -1
    knew: Knew | None = None


class Claimed(NamedTuple, Generic[T]):
    """A listed event and the record that was found for it. ``ahead``: why it is refused, see `mrc.core.conflict.taking.AHEAD`."""

    stamp: Stamp
    ahead: str
    record: T


class Taken(Protocol):
    """Fingerprints of the copies that were taken, of the last ones at least: one like these may have come again."""

    def __contains__(self, fingerprint: int, /) -> bool: ...

    def add(self, fingerprint: int, /) -> None:
        """Note a copy that was taken."""


class Passed(NamedTuple, Generic[T]):
    """A record that no listed event has claimed, while a later one was claimed."""

    record: T


class _Due(NamedTuple):
    """A listed event that waits for its record."""

    offset: int
    stamp: Stamp
    ahead: str


class _Line(Generic[T]):
    """Things that wait in a line, to be found by a name that some of them share."""

    def __init__(self) -> None:
        self._items: deque[tuple[int, T]] = deque()
        self._begin = 0
        self._places: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, name: int) -> bool:
        return name in self._places

    @property
    def first(self) -> T | None:
        """The one that waits longest."""
        return self._items[0][1] if self._items else None

    @property
    def first_name(self) -> int | None:
        """Its name."""
        return self._items[0][0] if self._items else None

    def add(self, name: int, item: T) -> None:
        self._places.setdefault(name, []).append(self._begin + len(self._items))
        self._items.append((name, item))

    def take(self, name: int) -> list[tuple[int, T]]:
        """Take out everything, with its names, up to the first of this name, which is the last that is returned."""
        place, found = self._places[name][0], []
        while self._begin <= place:
            each, item = self._items.popleft()
            self._begin += 1
            places = self._places[each]
            del places[0]
            if not places:
                del self._places[each]
            found.append((each, item))
        return found


class Claims(Generic[T]):
    """One region's stream without headers: its records, as they come, and what its marks list.

    Memory: every record that no mark has listed yet, and of every listed event without a record some 500 bytes.

    Args:
        region: of the stream.
        partition: of the topic.
        state: how far it was read before.
        taken: which copies were; None: the records are the log's own, and are found by their offsets.
    """

    def __init__(self, region: Region, partition: int, state: Listed, taken: Taken | None) -> None:
        self._region = region
        self._partition = partition
        self._state = state
        self._taken = taken
        self._records: _Line[T] = _Line()
        self._due: _Line[_Due] = _Line()
        self._held: deque[tuple[Offset, Listed]] = deque()

    @property
    def state(self) -> Listed:
        """What is to be written down: as the first mark found it that has listed what is still due; that mark is read again."""
        now = self._state
        if not self._held:
            return now
        return msgspec.structs.replace(self._held[0][1], settled=now.settled, known_ms=now.known_ms, knew=now.knew)

    @property
    def heard(self) -> Listed:
        """How far its marks have been heard, whatever is still due of it."""
        return self._state

    @property
    def settled(self) -> int:
        """The number of the last event that was found or given up; 0: none."""
        return self._state.settled

    @property
    def known_ms(self) -> int:
        """See `Listed.known_ms`."""
        return self._state.known_ms

    @property
    def unlisted(self) -> int:
        """How many records no mark has listed yet, with those that have come again behind the last that one has."""
        return len(self._records)

    @property
    def first_record(self) -> T | None:
        """The first record that no listed event has claimed; it is read again after a crash."""
        return self._records.first

    @property
    def first_held(self) -> Offset | None:
        """Where the first mark stands that has listed what is still due; it is read again after a crash."""
        return self._held[0][0] if self._held else None

    def come(self, entry: Entry, record: T) -> list[Claimed[T] | Passed[T]]:
        """Take the next record. ``entry``: as its region would list it; of a copy the offset says nothing."""
        name = self._name(entry)
        self._records.add(name, record)
        if name not in self._due or not self._fits(name):
            return []
        found = self._match(name)
        self._let_go()
        return found

    def hear(self, at: Offset, mark: Mark, listing: Listing) -> list[Claimed[T] | Passed[T]]:
        """Take what the next mark lists. ``at``: where it stands.

        Raises:
            ValueError: as `unpack`.
            MrcError: ``OFFSET_OUT_OF_RANGE`` where a mark before it is missing.
        """
        entries, state = unpack(mark, listing), self._state
        before = msgspec.structs.replace(state)
        if state.offset < 0:
            state.offset = listing.after
        elif listing.after > state.offset:
            message = (
                f"the mark at {at} lists from {listing.after} on, and all before it up to {state.offset}: marks between them are missing"
            )
            raise MrcError("OFFSET_OUT_OF_RANGE", message, where=f"{self._region}'s marks of partition {self._partition}")
        found: list[Claimed[T] | Passed[T]] = []
        for one in entries:
            if one.offset < state.offset:
                continue
            due = self._listed(one, mark, listing)
            if one.offset < state.settled:
                continue
            if not self._held or self._held[-1][0] != at:
                self._held.append((at, before))
            name = self._name(one)
            self._due.add(name, due)
            if name in self._records and self._fits(name):
                found += self._match(name)
        state.offset = max(state.offset, mark.offset)
        state.clock_ms = max(state.clock_ms, mark.clock_ms)
        if listing.knew and (state.knew is None or listing.knew[-1].offset >= state.knew.offset):
            state.knew = listing.knew[-1]
        self._let_go()
        return found

    def _name(self, entry: Entry) -> int:
        return entry.offset if self._taken is None else entry.fingerprint

    def _fits(self, name: int) -> bool:
        """Whether the first record of this name can be the event's that is due: it is the first one, or none like it was taken."""
        return self._taken is None or name == self._due.first_name or name not in self._taken

    def _listed(self, one: Entry, mark: Mark, listing: Listing) -> _Due:
        """Return a listed event with its stamp; it is the next one that is new."""
        state, number = self._state, one.offset + 1
        knew = next((knew for knew in reversed(listing.knew) if knew.offset <= one.offset), None)
        ahead = one.at_ms > mark.horizon_ms
        if not ahead:
            state.clock_ms = max(min(one.at_ms, listing.read_ms), state.clock_ms, 0 if knew is None else knew.clock_ms + 1)
        state.last = one.offset
        vector = {**({} if knew is None else knew.numbers), self._region: number}
        # What is refused is so now, not when its clock says; the number keeps the order within a millisecond.
        stamp = Stamp(self._region, event_id(self._region, self._partition, one.offset), vector, Hlc(max(state.clock_ms, 0), number))
        words = f"its timestamp, {one.at_ms}, is after {mark.horizon_ms}, up to where its region's resolver believes one" if ahead else ""
        return _Due(one.offset, stamp, words)

    def _match(self, name: int) -> list[Claimed[T] | Passed[T]]:
        """Claim the first record of this name; what is due before is given up but for records, held back as come again, that fit it."""
        *skipped, (_, due) = self._due.take(name)
        *before, (_, record) = self._records.take(name)
        found = self._fitted(skipped, before) if skipped else [Passed(one) for _, one in before]
        return [*found, self._claimed(name, due, record)]

    def _fitted(self, skipped: list[tuple[int, _Due]], records: list[tuple[int, T]]) -> list[Claimed[T] | Passed[T]]:
        found: list[Claimed[T] | Passed[T]] = []
        left = Counter(name for name, _ in skipped)
        due = iter(skipped)
        for name, record in records:
            if not left[name]:
                found.append(Passed(record))
                continue
            of = None
            while of != name:
                of, one = next(due)
                left[of] -= 1
            found.append(self._claimed(name, one, record))
        return found

    def _claimed(self, name: int, due: _Due, record: T) -> Claimed[T]:
        self._state.settled = due.offset + 1
        if not due.ahead:
            self._state.known_ms = max(self._state.known_ms, due.stamp.hlc.wall_ms)
        if self._taken is not None:
            self._taken.add(name)
        return Claimed(due.stamp, due.ahead, record)

    def _let_go(self) -> None:
        """Hold no mark any more of which nothing is due."""
        first = self._due.first
        while self._held and (first is None or self._upto(0) <= first.offset):
            self._held.popleft()

    def _upto(self, place: int) -> int:
        """Return up to which offset the held mark at this place lists."""
        return self._held[place + 1][1].offset if place + 1 < len(self._held) else self._state.offset


class Lister:
    """What a region's marks say of its own events. What was said is never taken back: whoever goes on from before says it again.

    Args:
        own: how far its own marks had been heard.
    """

    def __init__(self, own: Listed) -> None:
        self._upto = 0
        self._last = -1
        self._knew: list[Knew] = []
        self._waiting: deque[Entry] = deque()
        self.heard(own)

    def heard(self, own: Listed) -> None:
        """Note what the region's own marks have said, whoever wrote them."""
        self._upto = max(self._upto, own.offset, own.settled)
        self._last = max(self._last, own.last, own.settled - 1)
        if own.knew is not None and (not self._knew or own.knew.offset > self._knew[-1].offset):
            self._knew.append(own.knew)
        while self._waiting and self._waiting[0].offset < self._upto:
            self._waiting.popleft()

    def read(self, entry: Entry) -> None:
        """Take the next event of the region's log."""
        if entry.offset >= self._upto:
            self._waiting.append(entry)

    def look(self, end: Offset, numbers: Mapping[Region, int], clock_ms: int) -> None:
        """Note a look at the log's end. ``numbers`` and ``clock_ms`` must have been taken before it; see `Knew`."""
        if not numbers or (self._knew and self._knew[-1].numbers == numbers):
            return
        if len(self._knew) == KNEW_MAX:
            self._knew.pop()
        self._knew.append(Knew(end, dict(numbers), clock_ms))

    def next(self, position: Offset, read_ms: int) -> list[tuple[int, int, Listing]]:
        """Return what the next marks say, at least one: the mark's offset, the last listed one (-1: none), and what it lists.

        Args:
            position: how far the log has been read.
            read_ms: the wall clock by which.
        """
        made = []
        while True:
            some = [self._waiting.popleft() for _ in range(min(LISTED_MAX, len(self._waiting)))]
            upto = max(position, self._upto) if not self._waiting else some[-1].offset + 1
            first = some[0].offset if some else upto
            listing = Listing(self._upto, read_ms, pack(some), self._knew_of(first, upto))
            self._last = some[-1].offset if some else self._last
            self._upto = upto
            made.append((upto, self._last, listing))
            if not self._waiting:
                break
        while len(self._knew) > 1 and self._knew[1].offset <= self._upto:
            del self._knew[0]
        return made

    def _knew_of(self, first: int, upto: int) -> tuple[Knew, ...]:
        """Return the looks that matter to events from ``first`` to below ``upto``, and the last one: whoever goes on needs it."""
        begin = max((place for place, one in enumerate(self._knew) if one.offset <= first), default=0)
        return tuple(one for one in self._knew[begin:] if one.offset < upto or one is self._knew[-1])


def event_id(region: Region, partition: int, offset: int) -> str:
    """Return the id of the event at ``offset``; empty for -1."""
    return f"{region}-{partition}-{offset}" if offset >= 0 else ""
