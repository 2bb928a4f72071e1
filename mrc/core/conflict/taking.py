"""An entity's events and people's decisions about it, taken in their order: what each step comes to. Only what is given is changed.

Rules may say that a deleted entity is forgotten after some time. Then there is, at each place in the order, a *memory*: a clock that is so
much earlier, and never goes back. An entity that is over, and all of which is from before the memory, begins anew with the next event; an
event that says itself to be from before it is refused, for nobody could tell any more whether it came again.

Invariant: what an entity comes to depends on which events and decisions were taken and by which rules, never on in how many portions, nor
on whether an entity that begins anew was still written down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from mrc.core.conflict.entity import Closed, Conflict, Decision, Entity, Outcome, Rules, alone, answered, take
from mrc.core.conflict.events import EntityEvent, Hlc, Json, order
from mrc.core.errors import InvariantViolation
from mrc.core.model import Region

AHEAD = "clock-ahead"
"""Why an event is refused whatever the rules."""

TOO_LATE = "too-late"
"""Why an event is refused that says itself to be from before what is remembered."""


class Given(msgspec.Struct, frozen=True):
    """A decision whose turn has not come; durable.

    Attributes:
        region: in whose log it stands.
        unfit: its clock was no place for it when it was heard. It counts nowhere, and is kept up to that clock: it may come again.
    """

    region: Region
    decision: Decision
    unfit: bool = False


class Wrong(msgspec.Struct, frozen=True):
    """Why an event's type and fields cannot be read as the rules say: a kebab-case word, and a sentence for people."""

    reason: str
    detail: str


class Pending(msgspec.Struct, array_like=True, gc=False, eq=False):
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
        said_ms: of the clock that it says itself, where it was given another; -1: it was not.
    """

    key: bytes
    event: EntityEvent
    body: bytes | None
    place: int
    new: bool
    offset: int = -1
    headers: tuple[tuple[str, bytes | None], ...] = ()
    wrong: Wrong | None = None
    said_ms: int = -1

    @property
    def says_ms(self) -> int:
        """Of the clock that it says itself."""
        return self.event.hlc.wall_ms if self.said_ms < 0 else self.said_ms


class Stands(msgspec.Struct, array_like=True, gc=False):
    """How it was last decided what stands, where it was not simply the last event.

    Attributes:
        winner: id of the event.
        rules: the version by which it was decided.
        fields: see `Outcome.fields`.
        conflict: its id; empty: none.
        asked: ids of the events that have lost this conflict and asked for a compensation.
        decision: id of the person's decision by which it stands; empty: none.
    """

    winner: str
    rules: str
    fields: Mapping[str, Json] = {}
    conflict: str = ""
    asked: tuple[str, ...] = ()
    decision: str = ""


class Kept(msgspec.Struct, array_like=True, gc=False):
    """An entity as it is written down.

    Attributes:
        entity: what its final events have come to.
        bodies: the values of the last ones, by their ids.
        stands: see there; None: the last event, simply.
        passed: per region, the greatest number of an event that was refused: what is not above it came again.
        open: the conflict about which a person is asked.
        ahead: per region, the numbers of events that were refused because their clock was far ahead. Their writer's numbers may be as far
            ahead as its clock was, so they say nothing of others.
        passed_ms: the latest clock that an event which was refused or passed over said itself; -1: there was none.
    """

    entity: Entity = msgspec.field(default_factory=Entity)
    bodies: dict[str, bytes | None] = {}
    stands: Stands | None = None
    passed: dict[Region, int] = {}
    open: Conflict | None = None
    ahead: dict[Region, tuple[int, ...]] = {}
    passed_ms: int = -1

    @property
    def latest_ms(self) -> int:
        """The latest clock of all that came of it; -1: nothing did."""
        return max([self.passed_ms, *(register.head.hlc.wall_ms for register in self.entity.registers.values())])

    def is_over(self) -> bool:
        """Whether a deletion stands, or nothing at all, and nobody is asked."""
        registers = self.entity.registers.values()
        if self.open is not None or not registers:
            return self.open is None
        if self.stands is None:
            return alone(self.entity).deleted
        return any(one.head.deleted for one in registers if one.head.id == self.stands.winner)

    def is_forgotten(self, memory_ms: int) -> bool:
        """Whether it is over, and all of it is from before the memory."""
        return self.latest_ms < memory_ms and self.is_over()

    def begin_anew(self) -> None:
        """Forget everything but the values, which are the caller's."""
        self.entity, self.stands, self.passed, self.ahead, self.passed_ms = Entity(), None, {}, {}, -1

    def knows(self, event: EntityEvent) -> bool:
        """Whether an event of this number, or a later one of its region, was taken or refused already."""
        register, number = self.entity.registers.get(event.origin), event.number
        if (register is not None and number <= register.head.number) or number <= self.passed.get(event.origin, -1):
            return True
        return bool(self.ahead) and number in self.ahead.get(event.origin, ())

    def refuse(self, one: Pending, reason: str) -> None:
        """Note that an event was refused: it is known then when it comes again."""
        event = one.event
        self.passed_ms = max(self.passed_ms, one.says_ms)
        if reason == AHEAD:
            self.ahead[event.origin] = (*self.ahead.get(event.origin, ()), event.number)
        else:
            self.passed[event.origin] = event.number


class Final(msgspec.Struct, frozen=True, gc=False):
    """An event that is final.

    Attributes:
        pending: the event.
        outcome: what stood after it; None: it was refused, came again or was overtaken, and changed nothing.
        refused: it cannot be read, see `Pending.wrong`.
        asks: ids of the events that lose by it and have not asked for a compensation yet.
        late: why it is refused as one from before what is remembered, of which nothing is noted; None: it is not.
    """

    pending: Pending
    outcome: Outcome | None
    asks: tuple[str, ...] = ()
    refused: bool = False
    late: Wrong | None = None


class Answered(msgspec.Struct, frozen=True):
    """A question to a person that has ended, or a decision that comes to nothing.

    Attributes:
        conflict: as it was closed; None: the decision comes to nothing.
        given: the decision; None: time is over, or later events left nothing to decide.
        why: it comes to nothing; None: of one that is unfit it was said before.
        asks: as `Final.asks`.
    """

    conflict: Conflict | None
    given: Given | None = None
    why: Wrong | None = None
    asks: tuple[str, ...] = ()


Step = Final | Answered


def does_forget(rules: Rules, memory_ms: int) -> bool:
    """Whether anything is forgotten, or was by rules of before. ``memory_ms``: the memory so far; -1: none."""
    return memory_ms >= 0 or rules.forgets_ms is not None


def memory_at(clock_ms: int, rules: Rules, before_ms: int) -> int:
    """Return the memory at a place in the order; ``before_ms``: what it was at one before, by these rules or where they began; -1: none."""
    return before_ms if rules.forgets_ms is None else max(before_ms, clock_ms - rules.forgets_ms)


def taken(
    kept: Kept, pending: Sequence[Pending], given: Sequence[Given], rules: Rules, upto: Hlc | None = None, memory_ms: int = -1
) -> list[Step]:
    """Take events and decisions in their order; ``kept`` is what they come to.

    Args:
        kept: what was final before.
        pending: events; of those that cannot be read it is noted that they came.
        given: decisions.
        rules: that decide.
        upto: everything up to there is known, so a question whose time was over by then has ended; None: nothing is.
        memory_ms: the memory before all these.
    """
    steps: list[Step] = []
    forgets = does_forget(rules, memory_ms)
    for clock, item in _in_order(pending, given, rules):
        if kept.open is not None and Hlc(kept.open.until_ms) < clock:
            steps.append(_answer(kept, kept.open, None))
        if isinstance(item, Given):
            steps.append(Answered(None, item) if item.unfit else _hear_out(kept, item))
            continue
        event = item.event
        if forgets:
            if item.says_ms < (now_ms := memory_at(clock.wall_ms, rules, memory_ms)):
                steps.append(Final(item, None, late=_too_late(item, now_ms)))
                continue
            if kept.is_forgotten(now_ms):
                kept.begin_anew()
        if kept.knows(event):
            kept.passed_ms = max(kept.passed_ms, item.says_ms)
            steps.append(Final(item, None))
        elif item.wrong is not None:
            kept.refuse(item, item.wrong.reason)
            steps.append(Final(item, None, refused=True))
        elif (found := take(kept.entity, event, rules)) is not None:
            if kept.open is not None and (found.conflict is None or found.conflict.id != kept.open.id):
                steps.append(Answered(answered(kept.open, "superseded", f"{event.origin}'s {event.id}")))
            kept.stands, asks = stands_after(kept, found, rules)
            kept.open = found.conflict if found.conflict is not None and found.conflict.open else None
            steps.append(Final(item, found, asks))
    if kept.open is not None and upto is not None and Hlc(kept.open.until_ms) <= upto:
        steps.append(_answer(kept, kept.open, None))
    return steps


def _in_order(pending: Sequence[Pending], given: Sequence[Given], rules: Rules) -> list[tuple[Hlc, Pending | Given]]:
    if len(pending) == 1 and not given:
        return [(pending[0].event.hlc, pending[0])]
    items: list[tuple[tuple[Hlc, int, int, str, str], Pending | Given]] = []
    for one in pending:
        hlc, rank, id = order(one.event, rules.ranks)
        items.append(((hlc, 0, rank, id, ""), one))
    items += [((Hlc(one.decision.clock_ms), 1, one.decision.at_ms, one.decision.id, one.region), one) for one in given]
    return [(key[0], item) for key, item in sorted(items, key=lambda one: one[0])]


def _too_late(one: Pending, memory_ms: int) -> Wrong:
    return Wrong(TOO_LATE, f"its clock, {one.says_ms}, is before {memory_ms}, and deleted entities of that time are forgotten")


def _hear_out(kept: Kept, given: Given) -> Answered:
    """Return what a decision comes to."""
    decision, asked, closed = given.decision, kept.open, kept.entity.closed
    if asked is not None and asked.id == decision.conflict:
        if decision.winner in [one.event.id for one in asked.candidates]:
            return _answer(kept, asked, given)
        named = ", ".join(one.event.id for one in asked.candidates)
        return Answered(None, given, Wrong("no-candidate", f"{decision.winner} is no event of conflict {asked.id}; there are {named}"))
    if closed is not None and closed.conflict == decision.conflict:
        before = closed.decision
        who = f"{before.actor} decided it before, for {before.winner}" if before is not None else "nobody decided it in time"
    elif kept.stands is not None and kept.stands.conflict == decision.conflict:
        who = "a rule decides it, no person"
    else:
        who = "later events have left nothing to decide, or there never was such a conflict"
    return Answered(None, given, Wrong("not-open", f"conflict {decision.conflict} is not open: {who}"))


def _answer(kept: Kept, asked: Conflict, given: Given | None) -> Answered:
    """End a question: by a decision, or because its time is over."""
    decision = None if given is None else given.decision
    kept.entity.closed = Closed(asked.id, decision)
    conflict = answered(asked, "time" if decision is None else "decision", "", decision)
    before = kept.stands
    if before is None:
        raise InvariantViolation("a person is asked about what does not stand", where=asked.id)
    asks = _asks(conflict, before.asked)
    kept.stands = msgspec.structs.replace(
        before, winner=conflict.winner, asked=(*before.asked, *asks), decision="" if decision is None else decision.id
    )
    kept.open = None
    return Answered(conflict, given, asks=asks)


def stands_after(kept: Kept, found: Outcome, rules: Rules) -> tuple[Stands | None, tuple[str, ...]]:
    """Return what stands after ``kept`` (None: simply the last event), and the ids of those that ask for a compensation now."""
    before, conflict = kept.stands, found.conflict
    if conflict is None:
        return (Stands(found.winner.id, rules.hash, found.fields) if found.fields else None), ()
    asked = before.asked if before is not None and before.conflict == conflict.id else ()
    asks = _asks(conflict, asked)
    decision = "" if conflict.decision is None else conflict.decision.id
    return Stands(conflict.winner, rules.hash, found.fields or {}, conflict.id, (*asked, *asks), decision), asks


def _asks(conflict: Conflict, asked: Sequence[str]) -> tuple[str, ...]:
    """Return the ids of the events that lose for good, without those that have asked before: a conflict may be decided again."""
    lost = [one.id for one in conflict.losers] if conflict.on_loss and not conflict.open else []
    return tuple(id for id in lost if id not in asked)
