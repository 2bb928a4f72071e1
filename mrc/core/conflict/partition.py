"""One partition of a topic with its copies from other regions: from the order of arrival to events that are final.

Every region's events come in a *stream*, in the order of that region's log. In between stand *marks*, which the region's resolver wrote:
"behind the event X of my log nothing is earlier than W". A mark *seals* the events up to X. What stands behind X and yet says to be of W
or earlier was late: its clock is *raised* above W, by the same amount everywhere, for it depends on the log and the marks alone. So an
event's place in the order never depends on when anybody read it, and nothing that comes can be put before what is final.

Invariant: whoever has read the same logs and marks, in whatever interleaving and however often, has sealed the same events with the same
clocks. What came again is noticed when it is sealed, by its number.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from mrc.core.conflict.entity import Entity, Outcome, Rules, copied, note, outcome, take
from mrc.core.conflict.events import EntityEvent, Hlc
from mrc.core.errors import InvariantViolation
from mrc.core.model import Offset, Region, Written


class Mark(Written, frozen=True):
    """A region's word about one partition of its own log.

    Attributes:
        offset: in that log; the mark speaks of what stands below it.
        last: id of the last event below; empty: there is none.
        clock_ms: what stands behind ``last`` is later than this, or is made so.
        horizon_ms: what ``last`` and those before it say to be later than this is refused: some clock is far ahead.
        rules: the version of the rules by which its writer decides.
    """

    offset: int
    last: str
    clock_ms: int
    horizon_ms: int
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
    """

    last: str = ""
    arrived: int = 0
    sealed: int = 0
    sealed_offset: int = -1
    sealed_last: str = ""
    watermark_ms: int = -1


class Pending(msgspec.Struct, array_like=True, gc=False, eq=False):
    """An event that is not final; durable.

    Attributes:
        key: its entity's.
        body: the record's value.
        place: in its origin's stream.
        new: it was new when it came; what came again only waits to be passed over.
    """

    key: bytes
    event: EntityEvent
    body: bytes | None
    place: int
    new: bool


class Kept(msgspec.Struct, array_like=True, gc=False):
    """An entity as it is written down: what its final events have come to, and the values of the last ones."""

    entity: Entity = msgspec.field(default_factory=Entity)
    bodies: dict[str, bytes | None] = {}


class Final(msgspec.Struct, frozen=True, gc=False):
    """An event that is final, and what stood after it; None: it came again or was overtaken, and changed nothing."""

    pending: Pending
    outcome: Outcome | None


class Settled(msgspec.Struct, frozen=True):
    """What a `Partition.settle` has done.

    Attributes:
        entities: whose events became final, as they are to be written down.
        finals: per entity, those events: what came again, then the rest in order.
        bodies: per entity, the values of its last events and of those that became final.
        raised: late events, with the clocks that they were given; to be written down again.
        refused: events from beyond the horizon; they count no more.
    """

    entities: dict[bytes, Kept]
    finals: dict[bytes, list[Final]]
    bodies: dict[bytes, dict[str, bytes | None]]
    raised: list[Pending]
    refused: list[Pending]


class Standing(msgspec.Struct, frozen=True, gc=False):
    """What stands for an entity now.

    Attributes:
        outcome: by all events that are known.
        body: the winner's value.
        final: no pending event changes anything.
        vector: the last number of every region that it is made of.
        hlc: the latest clock that it is made of.
    """

    outcome: Outcome
    body: bytes | None
    final: bool
    vector: Mapping[Region, int]
    hlc: Hlc


class _Ahead(msgspec.Struct, gc=False):
    """What an entity has come to by all that is known of it.

    Attributes:
        entity: with its pending events taken.
        bodies: the values of its last events.
        last: the latest of the events that were taken.
    """

    entity: Entity
    bodies: dict[str, bytes | None]
    last: Pending


AHEAD_MAX = 20_000
"""Entities of one partition that are held with their pending events taken; of others they are taken each time."""


class Partition:
    """The events of one partition that are not final. Entities are kept by the caller, who hands them in when they are needed."""

    def __init__(self, rules: Rules, streams: Mapping[Region, Stream], pending: Iterable[Pending], final_ms: int = -1) -> None:
        """Go on from what was written down.

        Args:
            rules: of the kind of entity.
            streams: by region; a region that is missing: nothing was read yet.
            pending: in any order.
            final_ms: what was sealed and is of this time or earlier is final; -1: nothing.
        """
        self._rules = rules
        self._ranks = {region: rules.ranks.of(region) for region in rules.set.regions}
        self.final_ms = final_ms
        self.streams = {region: streams.get(region) or Stream() for region in rules.set.regions}
        self._known: dict[Region, dict[str, Pending]] = {region: {} for region in self.streams}
        self._unsealed: dict[Region, dict[str, Pending]] = {region: {} for region in self.streams}
        self._of_entity: dict[bytes, list[Pending]] = {}
        self._ahead: OrderedDict[bytes, _Ahead] = OrderedDict()
        # What is sealed waits by the millisecond in which it is due; `_due` is the heap of these.
        self._waiting: dict[int, list[Pending]] = {}
        self._due: list[int] = []
        self._held: dict[Region, deque[tuple[Offset, Mark]]] = {region: deque() for region in self.streams}
        self._news = 0
        self.foreign: set[Region] = set()
        for one in sorted(pending, key=lambda one: one.place):
            self._note(one, sealed=one.place < self.streams[one.event.origin].sealed)

    def __len__(self) -> int:
        """Return how many events are not final; those that came again count no more."""
        return self._news

    def arrive(self, key: bytes, event: EntityEvent, body: bytes | None, *, new: bool) -> Pending | None:
        """Take the next event of its origin's stream; None where it is among the pending ones already.

        Args:
            key: the entity's.
            event: the next one.
            body: the record's value.
            new: its number is above that of its region's last final event about the entity.
        """
        stream = self.streams[event.origin]
        if event.id in self._known[event.origin]:
            return None
        one = Pending(key, event, body, stream.arrived, new)
        stream.arrived += 1
        if new:
            stream.last = event.id
        self._note(one, sealed=False)
        if (ahead := self._ahead.get(key)) is not None:
            if self._order(one) > self._order(ahead.last):
                self._advance(ahead, one)
            else:
                del self._ahead[key]
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
            load: returns an entity as its final events left it; it is changed.
        """
        done = Settled({}, {}, {}, [], [])
        for region in self.streams:
            self._count_marks(region, done)
        self.final_ms = min(stream.watermark_ms for stream in self.streams.values())
        if self.final_ms >= 0:
            self._take(self.final_ms, load, done)
        return done

    def standing(self, key: bytes, kept: Kept, last: Outcome | None = None) -> Standing | None:
        """Return what stands for an entity by all that is known of it; None: nothing is.

        Args:
            key: the entity's.
            kept: what its final events have come to; it is not changed.
            last: what stood after the last of these, where that is known.
        """
        entity, bodies = kept.entity, kept.bodies
        final = not any(_is_new(entity, one.event) for one in self._of_entity.get(key, ()))
        if not final:
            ahead = self._ahead.get(key) or self._look_ahead(key, kept)
            ahead.entity.decision = entity.decision
            entity, bodies, last = ahead.entity, ahead.bodies, None
        if not entity.registers:
            return None
        last = last or outcome(entity, self._rules)
        heads = [register.head for register in entity.registers.values()]
        vector = {head.origin: head.number for head in heads}
        return Standing(last, bodies[last.winner.id], final, vector, max([head.hlc for head in heads]))

    def _look_ahead(self, key: bytes, kept: Kept) -> _Ahead:
        pending = sorted(self._of_entity[key], key=self._order)
        ahead = self._ahead[key] = _Ahead(copied(kept.entity), dict(kept.bodies), pending[0])
        for one in pending:
            self._advance(ahead, one)
        if len(self._ahead) > AHEAD_MAX:
            self._ahead.popitem(last=False)
        return ahead

    def _advance(self, ahead: _Ahead, one: Pending) -> None:
        ahead.last = one
        if note(ahead.entity, one.event, self._rules):
            ahead.bodies[one.event.id] = one.body
            ahead.bodies = _bodies_of_heads(ahead.entity, ahead.bodies)

    # ---------------------------------------------------------------- sealing

    def _count_marks(self, region: Region, done: Settled) -> None:
        held = self._held[region]
        if not held:
            return
        foreign = held[-1][1].rules != self._rules.hash
        (self.foreign.add if foreign else self.foreign.discard)(region)
        waits: list[tuple[Offset, Mark]] = []
        while held:
            offset, mark = held.popleft()
            if self._counts(region, mark):
                # A mark before one that counts named an event that will never come: its copy was lost or compacted away.
                waits.clear()
                self._seal(region, mark, done)
            else:
                waits.append((offset, mark))
        held.extend(waits)

    def _counts(self, region: Region, mark: Mark) -> bool:
        stream = self.streams[region]
        if mark.rules != self._rules.hash:
            return False
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
        if event.hlc.wall_ms > mark.horizon_ms:
            self._ahead.pop(one.key, None)
            self._forget(one)
            done.refused.append(one)
            return
        if event.hlc <= Hlc(stream.watermark_ms):
            self._ahead.pop(one.key, None)
            # Numbers grow with the log, so late events of one entity keep their order.
            one.event = msgspec.structs.replace(event, hlc=Hlc(stream.watermark_ms, event.number))
            done.raised.append(one)
        self._wait(one)

    # ---------------------------------------------------------------- taking

    def _take(self, final_ms: int, load: Callable[[bytes], Kept], done: Settled) -> None:
        due: dict[bytes, list[Pending]] = {}
        while self._due and self._due[0] <= final_ms:
            for one in self._waiting.pop(heapq.heappop(self._due)):
                due.setdefault(one.key, []).append(one)
        for key, pending in due.items():
            kept = load(key)
            entity, bodies = kept.entity, kept.bodies
            if len(pending) > 1:
                pending.sort(key=self._order)
            fresh = [one for one in pending if _is_new(entity, one.event)]
            came_again = [one for one in pending if not _is_new(entity, one.event)] if len(fresh) < len(pending) else []
            for one in pending:
                bodies[one.event.id] = one.body
                self._forget(one)
            finals = [Final(one, None) for one in came_again]
            finals += [Final(one, take(entity, one.event, self._rules)) for one in fresh]
            done.bodies[key] = bodies
            kept.bodies = _bodies_of_heads(entity, bodies)
            done.entities[key] = kept
            done.finals[key] = finals

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
        due_ms = due_at_ms(one.event.hlc)
        if due_ms not in self._waiting:
            self._waiting[due_ms] = []
            heapq.heappush(self._due, due_ms)
        self._waiting[due_ms].append(one)

    def _order(self, one: Pending) -> tuple[Hlc, int, str]:
        """See `order`; every event's region is one of the rules'."""
        event = one.event
        return (event.hlc, self._ranks[event.origin], event.id)

    def _forget(self, one: Pending) -> None:
        if self._known[one.event.origin].pop(one.event.id, None) is not one:
            raise InvariantViolation("an event that is not pending became final", where=one.event.id)
        self._news -= one.new
        rest = self._of_entity[one.key]
        rest.remove(one)
        if not rest:
            del self._of_entity[one.key]
            self._ahead.pop(one.key, None)


def due_at_ms(hlc: Hlc) -> int:
    """Return the first watermark that is not earlier than a clock; watermarks are whole milliseconds."""
    return hlc.wall_ms + (hlc.counter > 0)


def is_final(one: Pending, streams: Mapping[Region, Stream], final_ms: int) -> bool:
    """Whether an event that was pending when it was written down has become final since; see `Partition.__init__`."""
    return one.place < streams[one.event.origin].sealed and due_at_ms(one.event.hlc) <= final_ms


def _bodies_of_heads(entity: Entity, bodies: Mapping[str, bytes | None]) -> dict[str, bytes | None]:
    return {id: bodies[id] for id in [register.head.id for register in entity.registers.values()]}


def _is_new(entity: Entity, event: EntityEvent) -> bool:
    register = entity.registers.get(event.origin)
    return register is None or event.number > register.head.number


def _upto(unsealed: Mapping[str, Pending], place: int) -> Iterator[Pending]:
    """Return the unsealed events up to this place; they are in the order of their places."""
    found = []
    for one in unsealed.values():
        if one.place > place:
            break
        found.append(one)
    return iter(found)
