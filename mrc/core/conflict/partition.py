"""One partition of a topic with its copies from other regions: from the order of arrival to events that are final.

Every region's events come in a *stream*, in the order of that region's log. In between stand *marks*, which the region's resolver wrote:
"behind the event X of my log nothing is earlier than W". A mark *seals* the events up to X. What stands behind X and yet says to be of W
or earlier was late: its clock is *raised* above W, by the same amount everywhere, for it depends on the log and the marks alone. So an
event's place in the order never depends on when anybody read it, and nothing that comes can be put before what is final.

Marks also say which version of the rules their writer has. An event is decided by the version that all regions have had at its clock;
where they had not the same, it waits until they have, and is decided by that one. Clocks, marks and logs are the same everywhere, so the
place where rules change is too. What stands already is not decided again.

Invariant: whoever has read the same logs and marks, in whatever interleaving and however often, has sealed the same events with the same
clocks, and decides them by the same rules. What came again is noticed when it is sealed, by its number.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from mrc.core.conflict.entity import Entity, Outcome, Rules, alone, take
from mrc.core.conflict.events import EntityEvent, Hlc, Json, order
from mrc.core.errors import InvariantViolation
from mrc.core.model import Offset, Region, Written

AHEAD = "clock-ahead"
"""Why an event is refused whatever the rules."""


class Mark(Written, frozen=True):
    """A region's word about one partition of its own log.

    Attributes:
        offset: in that log; the mark speaks of what stands below it.
        last: id of the last event below; empty: there is none.
        clock_ms: what stands behind ``last`` is later than this, or is made so.
        horizon_ms: what ``last`` and those before it say to be later than this is refused: some clock is far ahead.
        rules: the version of the rules that its writer has; decided by where all regions have the same.
        by: the version by which its writer decides as yet; for people.
    """

    offset: int
    last: str
    clock_ms: int
    horizon_ms: int
    rules: str
    by: str = ""


class Had(msgspec.Struct):
    """Which version of the rules a region has had: behind ``from_ms``, up to the next."""

    from_ms: int
    rules: str


class Stream(msgspec.Struct):
    """How far one region's stream has been read; durable.

    Attributes:
        last: id of the last event that was new.
        arrived: events so far: the next one's place.
        sealed: events below this place are sealed.
        sealed_offset: of the furthest mark.
        sealed_last: the event that it named.
        watermark_ms: nothing unsealed is of this time or earlier; -1: not known yet.
        heard_ms: the latest clock of any mark so far, of one that was passed over too.
        had: the versions of the rules that its region has had where nothing is decided yet, in order; empty: no mark yet.
        anew: what has a place below was written down as earlier rules had read it.
    """

    last: str = ""
    arrived: int = 0
    sealed: int = 0
    sealed_offset: int = -1
    sealed_last: str = ""
    watermark_ms: int = -1
    heard_ms: int = -1
    had: list[Had] = []
    anew: int = 0


class Wrong(msgspec.Struct, frozen=True):
    """Why an event's type and fields cannot be read as the rules say: a kebab-case word, and a sentence for people."""

    reason: str
    detail: str


class Pending(msgspec.Struct, omit_defaults=True):
    """An event that is not final; durable.

    Attributes:
        key: its entity's.
        event: as the rules read it by which it would be decided now.
        body: the record's value.
        place: in its origin's stream.
        new: it was new when it came; what came again only waits to be passed over.
        offset: where it was read.
        headers: the record's, without the stamp.
        wrong: set where it cannot be read so; it is refused when its turn comes and that is still so.
    """

    key: bytes
    event: EntityEvent
    body: bytes | None
    place: int
    new: bool
    offset: int = -1
    headers: tuple[tuple[str, bytes | None], ...] = ()
    wrong: Wrong | None = None


class Stands(msgspec.Struct, omit_defaults=True):
    """How it was last decided what stands, where it was not simply the last event.

    Attributes:
        winner: id of the event.
        rules: the version by which it was decided.
        fields: see `Outcome.fields`.
        conflict: its id; empty: none.
        asked: ids of the events that have lost this conflict and asked for a compensation.
    """

    winner: str
    rules: str
    fields: Mapping[str, Json] = {}
    conflict: str = ""
    asked: tuple[str, ...] = ()


class Kept(msgspec.Struct, omit_defaults=True):
    """An entity as it is written down.

    Attributes:
        entity: what its final events have come to.
        bodies: the values of the last ones, by their ids.
        stands: see there; None: the last event, simply.
        passed: per region, the greatest number of an event that was refused: what is not above it came again.
    """

    entity: Entity = msgspec.field(default_factory=Entity)
    bodies: dict[str, bytes | None] = {}
    stands: Stands | None = None
    passed: dict[Region, int] = {}

    def knows(self, event: EntityEvent) -> bool:
        """Whether an event of this number, or a later one of its region, was taken or refused already."""
        register = self.entity.registers.get(event.origin)
        return (register is not None and event.number <= register.head.number) or event.number <= self.passed.get(event.origin, -1)


class Final(msgspec.Struct, frozen=True):
    """An event that is final.

    Attributes:
        pending: the event.
        outcome: what stood after it; None: it was refused, came again or was overtaken, and changed nothing.
        refused: it cannot be read, see `Pending.wrong`.
        asks: ids of the events that lose by it and have not asked for a compensation yet.
    """

    pending: Pending
    outcome: Outcome | None
    asks: tuple[str, ...] = ()
    refused: bool = False


class Settled(msgspec.Struct, frozen=True):
    """What a `Partition.settle` has done.

    Attributes:
        entities: whose events became final, as they are to be written down.
        finals: per entity, those events, in order.
        bodies: per entity, the values of its last events and of those that became final.
        raised: late events, and such from beyond the horizon, with the clocks that they were given; to be written down again.
    """

    entities: dict[bytes, Kept]
    finals: dict[bytes, list[Final]]
    bodies: dict[bytes, dict[str, bytes | None]]
    raised: list[Pending]


class Standing(msgspec.Struct, frozen=True):
    """What stands for an entity now.

    Attributes:
        winner: by all events that are known.
        fields: see `Outcome.fields`.
        conflict: the id of the conflict that it won; empty: none.
        rules: the version by which it was decided.
        body: the winner's value.
        final: no pending event changes anything.
        vector: the last number of every region that it is made of.
        hlc: the latest clock that it is made of.
    """

    winner: EntityEvent
    fields: Mapping[str, Json]
    conflict: str
    rules: str
    body: bytes | None
    final: bool
    vector: Mapping[Region, int]
    hlc: Hlc


class Versions(Protocol):
    """All versions of the rules that this region has had, by their hashes."""

    def rules(self, version: str) -> Rules:
        """Return a version, ready to be applied."""

    def read_again(self, one: Pending, version: str) -> None:
        """Read an event's type and fields as a version says."""


class Partition:
    """The events of one partition that are not final. Entities are kept by the caller, who hands them in when they are needed."""

    def __init__(self, version: str, versions: Versions, streams: Mapping[Region, Stream], pending: Iterable[Pending]) -> None:
        """Go on from what was written down.

        Args:
            version: of the rules by which is decided as yet.
            versions: what they say.
            streams: by region; a region that is missing: nothing was read yet.
            pending: in any order.
        """
        self._versions = versions
        self._rules = versions.rules(version)
        self.streams = {region: streams.get(region) or Stream() for region in self._rules.set.regions}
        self._known: dict[Region, dict[str, Pending]] = {region: {} for region in self.streams}
        self._unsealed: dict[Region, dict[str, Pending]] = {region: {} for region in self.streams}
        self._of_entity: dict[bytes, list[Pending]] = {}
        self._waiting: list[tuple[Hlc, str, int, Pending]] = []
        self._held: dict[Region, deque[tuple[Offset, Mark]]] = {region: deque() for region in self.streams}
        self._news = 0
        for one in sorted(pending, key=lambda one: one.place):
            stream = self.streams[one.event.origin]
            if one.place < stream.anew:
                self._read_again(one)
            self._note(one, sealed=one.place < stream.sealed)

    def __len__(self) -> int:
        """Return how many events are not final; those that came again count no more."""
        return self._news

    @property
    def version(self) -> str:
        """The version of the rules by which is decided as yet."""
        return self._rules.hash

    def has(self, region: Region) -> str:
        """Return the version of the rules that a region had by its last mark that counts; empty: there is none."""
        had = self.streams[region].had
        return had[-1].rules if had else ""

    def arrive(
        self,
        key: bytes,
        event: EntityEvent,
        body: bytes | None,
        *,
        new: bool,
        offset: int = -1,
        headers: tuple[tuple[str, bytes | None], ...] = (),
        wrong: Wrong | None = None,
    ) -> Pending | None:
        """Take the next event of its origin's stream, see `Pending`; None where it is among the pending ones already.

        ``new``: its number is above that of its region's last final event about the entity.
        """
        stream = self.streams[event.origin]
        if event.id in self._known[event.origin]:
            return None
        one = Pending(key, event, body, stream.arrived, new, offset, headers, wrong)
        stream.arrived += 1
        if new:
            stream.last = event.id
        self._note(one, sealed=False)
        return one

    def mark(self, region: Region, offset: Offset, mark: Mark) -> None:
        """Take the next mark of a region; it counts once the event that it names has come. ``offset``: where the mark itself stands."""
        self._held[region].append((offset, mark))

    def first_held(self, region: Region) -> Offset | None:
        """Return where the first mark stands that does not count yet; after a crash it must be read again."""
        held = self._held[region]
        return held[0][0] if held else None

    def settle(self, load: Callable[[bytes], Kept]) -> Settled:
        """Seal what marks allow, and take the events that are final now.

        Args:
            load: returns an entity as it was written down last, new for each call.
        """
        done = Settled({}, {}, {}, [])
        for region in self.streams:
            self._count_marks(region, done)
        for upto_ms, version in self._agreed():
            if version != self._rules.hash:
                self._change(version)
            self._take(Hlc(upto_ms), load, done)
            self._forget_before(upto_ms)
        return done

    def standing(self, key: bytes, kept: Kept) -> Standing | None:
        """Return what stands for an entity by all that is known of it; None: nothing is. ``kept`` may not be used afterwards."""
        pending = [one for one in self._of_entity.get(key, ()) if one.wrong is None]
        finals = _taken(kept, pending, self._rules)
        final = all(one.outcome is None for one in finals)
        registers = kept.entity.registers
        if not registers:
            return None
        stands = kept.stands
        winner = alone(kept.entity) if stands is None else next(r.head for r in registers.values() if r.head.id == stands.winner)
        vector = {region: register.head.number for region, register in registers.items()}
        hlc = max(register.head.hlc for register in registers.values())
        bodies = {**kept.bodies, **{one.event.id: one.body for one in pending}}
        fields, conflict, version = ({}, "", self._rules.hash) if stands is None else (stands.fields, stands.conflict, stands.rules)
        return Standing(winner, fields, conflict, version, bodies[winner.id], final, vector, hlc)

    # ---------------------------------------------------------------- rules

    def _agreed(self) -> list[tuple[int, str]]:
        """Return up to which clocks can be decided what was not yet, and by which rules: spans in order.

        Every region's marks have been heard up to the least of the watermarks, so what all of them had up to there is known, and what
        any region hears later speaks of later clocks.
        """
        final_ms = min(stream.watermark_ms for stream in self.streams.values())
        if final_ms < 0:
            return []
        changes = {one.from_ms for stream in self.streams.values() for one in stream.had if 0 <= one.from_ms < final_ms}
        spans = []
        for upto_ms in (*sorted(changes), final_ms):
            versions = {_had(stream, upto_ms) for stream in self.streams.values()}
            if len(versions) == 1:
                spans.append((upto_ms, versions.pop()))
        return spans

    def _forget_before(self, upto_ms: int) -> None:
        """Forget which rules regions had where everything is decided."""
        for stream in self.streams.values():
            while len(stream.had) > 1 and stream.had[1].from_ms <= upto_ms:
                del stream.had[0]
                stream.had[0].from_ms = -1

    def _change(self, version: str) -> None:
        self._rules = self._versions.rules(version)
        for region, stream in self.streams.items():
            stream.anew = stream.arrived
            for one in self._known[region].values():
                self._read_again(one)

    def _read_again(self, one: Pending) -> None:
        if one.wrong is None or one.wrong.reason != AHEAD:
            self._versions.read_again(one, self._rules.hash)

    # ---------------------------------------------------------------- sealing

    def _count_marks(self, region: Region, done: Settled) -> None:
        held, stream = self._held[region], self.streams[region]
        waits: list[tuple[Offset, Mark]] = []
        while held:
            offset, mark = held.popleft()
            waits.append((offset, mark))
            if self._counts(region, mark):
                # A mark before one that counts named an event that will never come: its copy was lost or compacted away. Of the rules
                # it speaks all the same.
                for _, one in waits:
                    _hear(stream, one)
                waits.clear()
                self._seal(region, mark, done)
        held.extend(waits)

    def _counts(self, region: Region, mark: Mark) -> bool:
        stream = self.streams[region]
        known = mark.last in ("", stream.sealed_last) or mark.last in self._unsealed[region]
        return known or mark.offset <= stream.sealed_offset

    def _seal(self, region: Region, mark: Mark, done: Settled) -> None:
        stream, unsealed = self.streams[region], self._unsealed[region]
        if mark.offset > stream.sealed_offset:
            if mark.last != stream.sealed_last and mark.last in unsealed:
                upto = unsealed[mark.last].place
                for one in _upto(unsealed, upto):
                    self._seal_one(stream, mark, one, done)
                stream.sealed = upto + 1
            stream.sealed_offset, stream.sealed_last = mark.offset, mark.last
        stream.watermark_ms = max(stream.watermark_ms, mark.clock_ms)

    def _seal_one(self, stream: Stream, mark: Mark, one: Pending, done: Settled) -> None:
        event = one.event
        del self._unsealed[event.origin][event.id]
        ahead = event.hlc.wall_ms > mark.horizon_ms
        if ahead:
            # Its turn to be refused is now, not when its clock says.
            one.wrong = Wrong(AHEAD, f"its clock, {event.hlc}, is after {mark.horizon_ms}, up to where its region's resolver believes one")
        if ahead or event.hlc <= Hlc(stream.watermark_ms):
            # Numbers grow with the log, so late events of one entity keep their order.
            one.event = msgspec.structs.replace(event, hlc=Hlc(stream.watermark_ms, event.number))
            done.raised.append(one)
        self._wait(one)

    # ---------------------------------------------------------------- taking

    def _take(self, final: Hlc, load: Callable[[bytes], Kept], done: Settled) -> None:
        due: dict[bytes, list[Pending]] = {}
        while self._waiting and self._waiting[0][0] <= final:
            one = heapq.heappop(self._waiting)[-1]
            due.setdefault(one.key, []).append(one)
        for key, pending in due.items():
            kept = done.entities.get(key) or load(key)
            bodies = {**kept.bodies, **{one.event.id: one.body for one in pending}}
            done.finals.setdefault(key, []).extend(_taken(kept, pending, self._rules))
            done.bodies[key] = {**done.bodies.get(key, {}), **bodies}
            kept.bodies = {register.head.id: bodies[register.head.id] for register in kept.entity.registers.values()}
            done.entities[key] = kept
            for one in pending:
                self._forget(one)

    def _note(self, one: Pending, *, sealed: bool) -> None:
        event = one.event
        self._known[event.origin][event.id] = one
        self._news += one.new
        self._of_entity.setdefault(one.key, []).append(one)
        if sealed:
            self._wait(one)
        else:
            self._unsealed[event.origin][event.id] = one

    def _wait(self, one: Pending) -> None:
        heapq.heappush(self._waiting, (one.event.hlc, one.event.origin, one.place, one))

    def _forget(self, one: Pending) -> None:
        if self._known[one.event.origin].pop(one.event.id, None) is not one:
            raise InvariantViolation("an event that is not pending became final", where=one.event.id)
        self._news -= one.new
        rest = self._of_entity[one.key]
        rest.remove(one)
        if not rest:
            del self._of_entity[one.key]


def _taken(kept: Kept, pending: Sequence[Pending], rules: Rules) -> list[Final]:
    """Take events in their order, those alone that can be read; ``kept`` is what they come to."""
    finals = []
    for one in sorted(pending, key=lambda one: order(one.event, rules.ranks)):
        event = one.event
        if kept.knows(event):
            finals.append(Final(one, None))
        elif one.wrong is not None:
            kept.passed[event.origin] = event.number
            finals.append(Final(one, None, refused=True))
        elif (found := take(kept.entity, event, rules)) is not None:
            finals.append(Final(one, found, _stands(kept, found, rules)))
    return finals


def _stands(kept: Kept, found: Outcome, rules: Rules) -> tuple[str, ...]:
    """Note what stands; return the ids of those that ask for a compensation now. What was decided before is not asked for again."""
    before, conflict = kept.stands, found.conflict
    if conflict is None:
        kept.stands = Stands(found.winner.id, rules.hash, found.fields) if found.fields else None
        return ()
    asked = before.asked if before is not None and before.conflict == conflict.id else ()
    lost = tuple(one.id for one in conflict.losers) if conflict.on_loss and not conflict.open else ()
    asks = tuple(id for id in lost if id not in asked)
    kept.stands = Stands(conflict.winner, rules.hash, found.fields or {}, conflict.id, (*asked, *asks))
    return asks


def _hear(stream: Stream, mark: Mark) -> None:
    """Note the rules that a mark speaks of. One that came again, or whose writer's clock went back, says nothing new."""
    if mark.clock_ms <= stream.heard_ms:
        return
    if not stream.had:
        stream.had.append(Had(-1, mark.rules))
    elif stream.had[-1].rules != mark.rules:
        stream.had.append(Had(mark.clock_ms, mark.rules))
    stream.heard_ms = mark.clock_ms


def _had(stream: Stream, upto_ms: int) -> str:
    """Return the rules that a region had just before ``upto_ms``, where it heard no change since the one before."""
    return next(one.rules for one in reversed(stream.had) if one.from_ms < upto_ms)


def _upto(unsealed: Mapping[str, Pending], place: int) -> Iterator[Pending]:
    """Return the unsealed events up to this place; they are in the order of their places."""
    found = []
    for one in unsealed.values():
        if one.place > place:
            break
        found.append(one)
    return iter(found)
