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
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from mrc.core.conflict.entity import Decision, Entity, Outcome, Rules, alone, copied, note, outcome
from mrc.core.conflict.events import EntityEvent, Hlc, Json, order
from mrc.core.conflict.marks import Mark
from mrc.core.conflict.taking import AHEAD, Final, Given, Kept, Pending, Stands, Step, Wrong, does_forget, memory_at, stands_after, taken
from mrc.core.errors import InvariantViolation
from mrc.core.model import Offset, Region

DECIDED_AHEAD_MS_MAX = 300_000
"""A decision's clock may be ahead of the mark before it by this much."""


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


class Settled(msgspec.Struct, frozen=True):
    """What a `Partition.settle` has done.

    Attributes:
        entities: of which something became final, as they are to be written down.
        steps: per entity, what happened, in order.
        bodies: per entity, the values of its last events and of those that became final.
        raised: late events, and such from beyond the horizon, with the clocks that they were given; to be written down again.
        given: decisions that have come, to be written down; of those that are unfit it is to be said.
        asking: entities about which a person is asked from now on, with the clock up to which; None: not any more.
    """

    entities: dict[bytes, Kept]
    steps: dict[bytes, list[Step]]
    bodies: dict[bytes, dict[str, bytes | None]]
    raised: list[Pending]
    given: list[Given]
    asking: dict[bytes, int | None]


class Standing(msgspec.Struct, frozen=True, gc=False):
    """What stands for an entity now.

    Attributes:
        winner: by all events that are known.
        fields: see `Outcome.fields`.
        conflict: the id of the conflict that it won; empty: none.
        rules: the version by which it was decided.
        decision: the id of the person's decision by which it stands; empty: none.
        body: the winner's value.
        final: no pending event changes anything.
        vector: the last number of every region that it is made of.
        hlc: the latest clock that it is made of.
    """

    winner: EntityEvent
    fields: Mapping[str, Json]
    conflict: str
    rules: str
    decision: str
    body: bytes | None
    final: bool
    vector: Mapping[Region, int]
    hlc: Hlc


class _Ahead(msgspec.Struct, gc=False):
    """What an entity has come to by all events that are known of it.

    Attributes:
        entity: with its pending events taken.
        bodies: the values of its last events.
        last: the latest of the events that were taken.
        more: have come since; they are taken when somebody asks.
    """

    entity: Entity
    bodies: dict[str, bytes | None]
    last: Pending
    more: list[Pending] = []


class _Heard(msgspec.Struct, gc=False):
    """What an entity has come to by all events and all decisions that are known of it.

    Attributes:
        kept: with its pending events and its decisions taken.
        last: the place in the order of the latest of the events that were taken; None: of none.
        clock_ms: the latest clock of the decisions; -1: there are none.
        changed: it is not what was final.
    """

    kept: Kept
    last: tuple[Hlc, int, str] | None
    clock_ms: int
    changed: bool


AHEAD_MAX = 20_000
"""Entities of one partition that are held with their pending events taken; of others they are taken each time."""


class Versions(Protocol):
    """All versions of the rules that this region has had, by their hashes."""

    def rules(self, version: str) -> Rules:
        """Return a version, ready to be applied."""

    def read_again(self, one: Pending, version: str) -> None:
        """Read an event's type and fields as a version says."""


class Partition:
    """The events of one partition that are not final. Entities are kept by the caller, who hands them in when they are needed."""

    def __init__(
        self,
        version: str,
        versions: Versions,
        streams: Mapping[Region, Stream],
        pending: Iterable[Pending],
        given: Iterable[Given],
        asking: Mapping[bytes, int],
        final_ms: int = -1,
        memory_ms: int = -1,
    ) -> None:
        """Go on from what was written down.

        Args:
            version: of the rules by which is decided as yet.
            versions: what they say.
            streams: by region; a region that is missing: nothing was read yet.
            pending: in any order.
            given: in any order.
            asking: entities about which a person is asked, with the clock up to which.
            final_ms: what was sealed and is of this time or earlier is final; -1: nothing.
            memory_ms: what is over and from before this is forgotten, and what comes from before it is refused; -1: nothing.
        """
        self._versions = versions
        self.final_ms = final_ms
        self.memory_ms = memory_ms
        self._decide_by(version)
        self.streams = {region: streams.get(region) or Stream() for region in self._rules.set.regions}
        self._known: dict[Region, dict[str, Pending]] = {region: {} for region in self.streams}
        # In the order of their places, and so of marks.
        self._unsealed: dict[Region, deque[Pending]] = {region: deque() for region in self.streams}
        self._of_entity: dict[bytes, list[Pending]] = {}
        self._ahead: OrderedDict[bytes, _Ahead] = OrderedDict()
        self._heard: dict[bytes, _Heard] = {}
        # What is sealed waits by the millisecond in which it is due; `_due` is the heap of these.
        self._waiting: dict[int, list[Pending]] = {}
        self._due: list[int] = []
        self._held: dict[Region, deque[tuple[Offset, Mark | Decision]]] = {region: deque() for region in self.streams}
        self._news = 0
        self._given: dict[bytes, dict[tuple[Region, int, str], Given]] = {}
        self._turns: list[tuple[int, bytes]] = []
        self._asking = dict(asking)
        for one_given in given:
            self._accept(one_given)
        for key, until_ms in self._asking.items():
            heapq.heappush(self._turns, (until_ms, key))
        for one in sorted(pending, key=lambda one: one.place):
            stream = self.streams[one.event.origin]
            if one.place < stream.anew:
                self._read_again(one)
            self._note(one, sealed=one.place < stream.sealed)

    def __len__(self) -> int:
        """Return how many events are not final; those that came again count no more."""
        return self._news

    @property
    def heard(self) -> Iterable[bytes]:
        """The entities about which decisions were heard whose turn has not come."""
        return self._given

    @property
    def asking(self) -> int:
        """About how many entities a person is asked."""
        return len(self._asking)

    @property
    def version(self) -> str:
        """The version of the rules by which is decided as yet."""
        return self._rules.hash

    def has(self, region: Region) -> str:
        """Return the version of the rules that a region had by its last mark that counts; empty: there is none."""
        had = self.streams[region].had
        return had[-1].rules if had else ""

    def is_new(self, kept: Kept, event: EntityEvent, *, copy: bool) -> bool:
        """Whether an event that comes is none of those that ``kept``, its entity's final events, was made of, or that were refused.

        ``copy``: it comes from another region, so it may come again when ``kept`` is forgotten.
        """
        if self.forgets:
            if copy and event.hlc.wall_ms < self.memory_ms:
                return False
            if kept.is_forgotten(memory_at(event.hlc.wall_ms, self._rules, self.memory_ms)):
                return True
        return not kept.knows(event)

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

        ``new``: see `is_new`.
        """
        stream = self.streams[event.origin]
        if event.id in self._known[event.origin]:
            return None
        one = Pending(key, event, body, stream.arrived, new, offset, headers, wrong)
        stream.arrived += 1
        if new:
            stream.last = event.id
        self._note(one, sealed=False)
        if new and wrong is None and (ahead := self._ahead.get(key)) is not None:
            ahead.more.append(one)
        if new and wrong is None and (heard := self._heard.pop(key, None)) is not None:
            place = self._order(one)
            if (heard.last is None or place > heard.last) and event.hlc > Hlc(heard.clock_ms):
                self._heard[key] = heard
                heard.last = place
                self._hear_more(heard, one)
        return one

    def mark(self, region: Region, offset: Offset, said: Mark | Decision) -> None:
        """Take what a region says next.

        A mark counts once the event that it names has come; a decision, once the marks before it have. ``offset``: where it stands.
        """
        self._held[region].append((offset, said))

    def first_held(self, region: Region) -> Offset | None:
        """Return where the first mark or decision stands that does not count yet; after a crash it must be read again."""
        held = self._held[region]
        return held[0][0] if held else None

    def settle(self, load: Callable[[bytes], Kept]) -> Settled:
        """Seal what marks allow, and take the events that are final now.

        Args:
            load: returns an entity as its final events left it; it is changed.
        """
        done = Settled({}, {}, {}, [], [], {})
        for region in self.streams:
            self._count_marks(region, done)
        for upto_ms, version in self._agreed():
            if version != self._rules.hash:
                self._change(version)
            self._take(upto_ms, load, done)
            self._forget_before(upto_ms)
            self.final_ms = upto_ms
            self.memory_ms = memory_at(upto_ms, self._rules, self.memory_ms)
        return done

    def standing(self, key: bytes, kept: Kept, last: Outcome | None = None) -> Standing | None:
        """Return what stands for an entity by all that is known of it; None: nothing is.

        Args:
            key: the entity's.
            kept: what its final events have come to; it is not changed.
            last: what stood after the last of these, where that is known.
        """
        entity, bodies, stands = kept.entity, kept.bodies, kept.stands
        pending, given = self._coming(key, kept)
        final = not pending and not given
        if given or (pending and self.forgets):
            heard = self._heard.get(key) or self._hear_all(key, kept, pending, given)
            final = not heard.changed
            entity, bodies, stands, last = heard.kept.entity, heard.kept.bodies, heard.kept.stands, None
        elif pending:
            ahead = self._caught_up(key) or self._look_ahead(key, kept, pending)
            ahead.entity.closed = entity.closed
            entity, bodies = ahead.entity, ahead.bodies
            last = outcome(entity, self._rules)
            stands, _ = stands_after(Kept(), last, self._rules)
        if not entity.registers:
            return None
        heads = [register.head for register in entity.registers.values()]
        if stands is None:
            winner = alone(entity) if last is None else last.winner
            stands = Stands(winner.id, self._rules.hash)
        else:
            winner = next(head for head in heads if head.id == stands.winner)
        vector = {head.origin: head.number for head in heads}
        hlc = max([head.hlc for head in heads])
        return Standing(winner, stands.fields, stands.conflict, stands.rules, stands.decision, bodies[winner.id], final, vector, hlc)

    def is_decided(self, key: bytes, kept: Kept) -> bool:
        """Whether no pending event and no decision that is known can change what ``kept``, an entity's final events, have come to."""
        pending, given = self._coming(key, kept)
        return not pending and not given

    def _coming(self, key: bytes, kept: Kept) -> tuple[Sequence[Pending], Sequence[Given]]:
        """Return the events and the decisions about an entity whose turn is to come."""
        pending = [one for one in self._of_entity.get(key, ()) if one.wrong is None and self.is_new(kept, one.event, copy=True)]
        given = [one for one in self._given[key].values() if not one.unfit] if key in self._given else ()
        return pending, given

    def _hear_all(self, key: bytes, kept: Kept, pending: Sequence[Pending], given: Sequence[Given]) -> _Heard:
        copy = Kept(
            copied(kept.entity),
            {**kept.bodies, **{one.event.id: one.body for one in pending}},
            kept.stands,
            dict(kept.passed),
            kept.open,
            dict(kept.ahead),
            kept.passed_ms,
        )
        steps = taken(copy, pending, given, self._rules, None, self.memory_ms)
        changed = any(one.outcome if isinstance(one, Final) else one.conflict for one in steps)
        last = max(map(self._order, pending), default=None)
        heard = self._heard[key] = _Heard(copy, last, max((one.decision.clock_ms for one in given), default=-1), changed)
        if len(self._heard) > AHEAD_MAX:
            del self._heard[next(iter(self._heard))]
        return heard

    def _hear_more(self, heard: _Heard, one: Pending) -> None:
        heard.kept.bodies[one.event.id] = one.body
        steps = taken(heard.kept, [one], [], self._rules, None, self.memory_ms)
        heard.kept.bodies = _bodies_of_heads(heard.kept.entity, heard.kept.bodies)
        heard.changed |= any(one.outcome if isinstance(one, Final) else one.conflict for one in steps)

    def _caught_up(self, key: bytes) -> _Ahead | None:
        """Return what an entity has come to, with what has come since; None: it is not known, or something has come before the rest."""
        ahead = self._ahead.get(key)
        if ahead is not None and ahead.more:
            more, ahead.more = sorted(ahead.more, key=self._order), []
            if self._order(more[0]) <= self._order(ahead.last):
                del self._ahead[key]
                return None
            for one in more:
                self._advance(ahead, one)
        return ahead

    def _look_ahead(self, key: bytes, kept: Kept, pending: Sequence[Pending]) -> _Ahead:
        first, *_ = in_order = sorted(pending, key=self._order)
        ahead = self._ahead[key] = _Ahead(copied(kept.entity), dict(kept.bodies), first)
        for one in in_order:
            self._advance(ahead, one)
        if len(self._ahead) > AHEAD_MAX:
            self._ahead.popitem(last=False)
        return ahead

    def _advance(self, ahead: _Ahead, one: Pending) -> None:
        ahead.last = one
        if note(ahead.entity, one.event, self._rules):
            ahead.bodies[one.event.id] = one.body
            ahead.bodies = _bodies_of_heads(ahead.entity, ahead.bodies)

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

    def _decide_by(self, version: str) -> None:
        self._rules = self._versions.rules(version)
        self.forgets = does_forget(self._rules, self.memory_ms)

    def _change(self, version: str) -> None:
        self._decide_by(version)
        self._ahead.clear()
        self._heard.clear()
        for region, stream in self.streams.items():
            stream.anew = stream.arrived
            for one in self._known[region].values():
                self._read_again(one)

    def _read_again(self, one: Pending) -> None:
        if one.wrong is None or one.wrong.reason != AHEAD:
            self._versions.read_again(one, self._rules.hash)

    # ---------------------------------------------------------------- sealing

    def _count_marks(self, region: Region, done: Settled) -> None:
        held = self._held[region]
        waits: list[tuple[Offset, Mark | Decision]] = []
        furthest: int | None = None
        while held:
            offset, said = held.popleft()
            waits.append((offset, said))
            if isinstance(said, Decision):
                if len(waits) == 1:
                    self._hear(region, said, done)
                    waits.clear()
            elif (furthest is None or said.offset > furthest) and self._counts(region, said):
                # A mark before one that counts and speaks of more named an event that will never come: its copy was lost or compacted
                # away. Of the rules it speaks all the same.
                for _, one in waits:
                    self._hear(region, one, done)
                waits.clear()
                furthest = None
                self._seal(region, said, done)
            else:
                furthest = said.offset if furthest is None else max(furthest, said.offset)
        held.extend(waits)

    def _hear(self, region: Region, said: Mark | Decision, done: Settled) -> None:
        """Note the rules that a mark speaks of, or a decision. What came again says nothing new, by its clock."""
        stream = self.streams[region]
        if said.clock_ms <= stream.heard_ms:
            return
        if isinstance(said, Decision):
            given = Given(region, said, said.clock_ms > stream.heard_ms + DECIDED_AHEAD_MS_MAX or said.region != region)
            if self._accept(given):
                done.given.append(given)
            return
        if not stream.had:
            stream.had.append(Had(-1, said.rules))
        elif stream.had[-1].rules != said.rules:
            stream.had.append(Had(said.clock_ms, said.rules))
        stream.heard_ms = said.clock_ms

    def _accept(self, given: Given) -> bool:
        """Whether a decision is new. Its clock is part of its name: one of an earlier clock may have had its turn already, or not yet."""
        key, id = given.decision.key.encode(), (given.region, given.decision.clock_ms, given.decision.id)
        some = self._given.setdefault(key, {})
        if id in some:
            return False
        some[id] = given
        self._heard.pop(key, None)
        heapq.heappush(self._turns, (given.decision.clock_ms, key))
        return True

    def _counts(self, region: Region, mark: Mark) -> bool:
        stream = self.streams[region]
        known = mark.last in ("", stream.sealed_last) or self._behind(region, mark) is not None
        return known or mark.offset <= stream.sealed_offset

    def _behind(self, region: Region, mark: Mark) -> int | None:
        """Return the place of the event that a mark names; None: it has not come, or is sealed already."""
        last = self._known[region].get(mark.last)
        return last.place if last is not None and last.place >= self.streams[region].sealed else None

    def _seal(self, region: Region, mark: Mark, done: Settled) -> None:
        stream, unsealed = self.streams[region], self._unsealed[region]
        if mark.offset > stream.sealed_offset:
            if mark.last != stream.sealed_last and (upto := self._behind(region, mark)) is not None:
                while unsealed and unsealed[0].place <= upto:
                    self._seal_one(stream, mark, unsealed.popleft(), done)
                stream.sealed = upto + 1
            stream.sealed_offset, stream.sealed_last = mark.offset, mark.last
        stream.watermark_ms = max(stream.watermark_ms, mark.clock_ms)

    def _seal_one(self, stream: Stream, mark: Mark, one: Pending, done: Settled) -> None:
        event = one.event
        # Of a listed event the mark that lists it has judged its timestamp; its clock may be ahead because marks before it were.
        ahead = self._rules.set.detection == "causal" and event.hlc.wall_ms > mark.horizon_ms
        if ahead:
            # Its turn to be refused is now, not when its clock says.
            one.wrong = Wrong(AHEAD, f"its clock, {event.hlc}, is after {mark.horizon_ms}, up to where its region's resolver believes one")
        if ahead or event.hlc <= Hlc(stream.watermark_ms):
            self._ahead.pop(one.key, None)
            self._heard.pop(one.key, None)
            one.said_ms = event.hlc.wall_ms
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
        while self._turns and self._turns[0][0] <= final_ms:
            due.setdefault(heapq.heappop(self._turns)[1], [])
        upto = Hlc(final_ms)
        for key, pending in due.items():
            self._heard.pop(key, None)
            kept = load(key)
            bodies = kept.bodies
            for one in pending:
                bodies[one.event.id] = one.body
            self._forget(key, pending)
            given = self._words(key, final_ms) if key in self._given else []
            steps = taken(kept, pending, given, self._rules, upto, self.memory_ms)
            if key in self._ahead and any(isinstance(step, Final) and step.refused for step in steps):
                del self._ahead[key]
            if key in done.entities:
                done.steps[key] += steps
                done.bodies[key] |= bodies
            else:
                done.steps[key], done.bodies[key], done.entities[key] = steps, bodies, kept
            kept.bodies = _bodies_of_heads(kept.entity, bodies)
            self._ask(key, kept, done)

    def _words(self, key: bytes, final_ms: int) -> list[Given]:
        """Return the decisions about an entity whose turn it is; they wait no more."""
        some = self._given[key]
        due = [one for one in some.values() if one.decision.clock_ms <= final_ms]
        for one in due:
            del some[one.region, one.decision.clock_ms, one.decision.id]
        if not some:
            del self._given[key]
        return due

    def _ask(self, key: bytes, kept: Kept, done: Settled) -> None:
        """Note until when a person is asked about an entity."""
        until_ms = None if kept.open is None else kept.open.until_ms
        if until_ms == self._asking.get(key):
            return
        done.asking[key] = until_ms
        if until_ms is None:
            del self._asking[key]
        else:
            self._asking[key] = until_ms
            heapq.heappush(self._turns, (until_ms, key))

    def _note(self, one: Pending, *, sealed: bool) -> None:
        event = one.event
        self._known[event.origin][event.id] = one
        self._news += one.new
        if (some := self._of_entity.get(one.key)) is None:
            self._of_entity[one.key] = [one]
        else:
            some.append(one)
        if sealed:
            self._wait(one)
        else:
            self._unsealed[event.origin].append(one)

    def _wait(self, one: Pending) -> None:
        due_ms = due_at_ms(one.event.hlc)
        if due_ms not in self._waiting:
            self._waiting[due_ms] = []
            heapq.heappush(self._due, due_ms)
        self._waiting[due_ms].append(one)

    def _order(self, one: Pending) -> tuple[Hlc, int, str]:
        return order(one.event, self._rules.ranks)

    def _forget(self, key: bytes, pending: Sequence[Pending]) -> None:
        """Forget events of one entity: they are final."""
        for one in pending:
            event = one.event
            if self._known[event.origin].pop(event.id, None) is not one:
                raise InvariantViolation("an event that is not pending became final", where=event.id)
            self._news -= one.new
        rest = self._of_entity.get(key, [])
        if len(rest) > len(pending):
            gone = {(one.event.origin, one.place) for one in pending}
            self._of_entity[key] = [one for one in rest if (one.event.origin, one.place) not in gone]
        elif rest:
            del self._of_entity[key]
            self._ahead.pop(key, None)


def due_at_ms(hlc: Hlc) -> int:
    """Return the first watermark that is not earlier than a clock; watermarks are whole milliseconds."""
    return hlc.wall_ms + (hlc.counter > 0)


def is_final(one: Pending, streams: Mapping[Region, Stream], final_ms: int) -> bool:
    """Whether an event that was pending when it was written down has become final since; see `Partition.__init__`."""
    return one.place < streams[one.event.origin].sealed and due_at_ms(one.event.hlc) <= final_ms


def _bodies_of_heads(entity: Entity, bodies: Mapping[str, bytes | None]) -> dict[str, bytes | None]:
    return {id: bodies[id] for id in [register.head.id for register in entity.registers.values()]}


def _had(stream: Stream, upto_ms: int) -> str:
    """Return the rules that a region had just before ``upto_ms``, where it heard no change since the one before."""
    return next(one.rules for one in reversed(stream.had) if one.from_ms < upto_ms)
