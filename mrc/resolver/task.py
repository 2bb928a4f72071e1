"""One partition's work: records in, records out, and its state.

Invariant: what is on the shelf is what a committed transaction has written to the changelog, never more. Until `committed` everything
that a batch changes is kept beside it, and a process that dies in between has changed nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

import msgspec

from mrc.core.conflict.entity import Conflict, Decision, Outcome, Rules
from mrc.core.conflict.events import EntityEvent
from mrc.core.conflict.headers import Unreadable
from mrc.core.conflict.listing import Claimed, Listed
from mrc.core.conflict.marks import Listing, Mark
from mrc.core.conflict.partition import Partition, Settled, Stream, is_final
from mrc.core.conflict.rules import RuleSet
from mrc.core.conflict.taking import AHEAD, Answered, Final, Given, Kept, Pending, Wrong
from mrc.core.errors import InvariantViolation, MrcError
from mrc.core.model import Offset, Region, TopicPartition, decode, encode
from mrc.ports import Arrived, Outgoing, Shelf
from mrc.resolver import writing
from mrc.resolver.deciding import DECISION_KEY
from mrc.resolver.deletions import Deletions
from mrc.resolver.kinds import Kind, Topics, kind_of
from mrc.resolver.listings import Found, Listings
from mrc.resolver.pages import PENDING, Pages
from mrc.resolver.reading import others, read_again, read_event, stamped
from mrc.resolver.showing import Showing

GRACE_MS = 500
"""How late an event may reach its region's log and still keep its clock."""

AHEAD_MS_MAX = 300_000
"""An event's clock may be ahead of its region's resolver's by this much."""

ASKED, ENTITY, GIVEN, RULES, STATE = b"a", b"e", b"g", b"r", b"s"
"""What keys of the changelog and the shelf begin with; see also `PENDING`, `LATELY` and `OVER`."""

SOUGHT_MAX = 200
"""Entities that are looked at in one batch, where some may have been deleted before any rules forgot them."""

Ready = Callable[[RuleSet], Rules]
"""Makes rules that were written down ready to be applied."""


class State(msgspec.Struct):
    """Of a partition as a whole; durable.

    Attributes:
        rules: the version of the rules by which is decided.
        partitions: how many the topic had.
        read: per topic, where to read on.
        streams: per region.
        final_ms: how far everything is final, see `Partition`.
        shown: per region, what came before this place has been shown.
        put_off: of some entities with pending events it is not shown what they have come to.
        told: per topic, of what stands below it was told what cannot be read; it may be read again.
        listed: per region, how far its listing was read, where events have no headers.
        memory_ms: from when on all is remembered, see `Partition`.
        sought: of entities up to this key it is noted which are over, once rules forget; None: of all.
    """

    rules: str
    partitions: int
    read: dict[str, Offset]
    streams: dict[Region, Stream]
    final_ms: int = -1
    shown: Mapping[Region, int] = {}
    put_off: bool = False
    told: dict[str, Offset] = {}
    listed: dict[Region, Listed] = {}
    memory_ms: int = -1
    sought: bytes | None = b""


class Counts(msgspec.Struct):
    """What was done since the process began."""

    events: int = 0
    came_again: int = 0
    dead_letters: int = 0
    conflicts: int = 0
    compensations: int = 0
    decisions: int = 0
    raised: int = 0

    def add(self, other: Counts) -> None:
        """Add another's."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


_encode = msgspec.msgpack.Encoder().encode
_kept = msgspec.msgpack.Decoder(Kept).decode
_given = msgspec.msgpack.Decoder(Given).decode
_state = msgspec.msgpack.Decoder(State).decode


class KnownKinds:
    """A kind of entity by each version of its rules that this region has had: `Versions` of a partition.

    Args:
        kind: by the rules file's version.
        ready: makes the others ready.
        shelf: holds their rules.
    """

    def __init__(self, kind: Kind, ready: Ready, shelf: Shelf) -> None:
        self._file = kind
        self._ready = ready
        self._shelf = shelf
        self._made: dict[str, Kind] = {kind.rules.hash: kind}

    def kind(self, version: str) -> Kind:
        """Return the kind by a version of its rules. Raises ``RULES_CHANGED`` for one that this region has never had."""
        if version not in self._made:
            written = self._shelf.get(RULES + version.encode())
            if written is None:
                message = f"of rules {version}, by which {self._file.name} is decided, nothing is known here"
                raise MrcError("RULES_CHANGED", message, where=self._file.topic)
            self._made[version] = kind_of(self._file.topic, self._ready(decode(written, RuleSet)))
        return self._made[version]

    def rules(self, version: str) -> Rules:
        """See `Versions.rules`."""
        return self.kind(version).rules

    def read_again(self, one: Pending, version: str) -> None:
        """See `Versions.read_again`."""
        read_again(one, self.kind(version))


class Task:
    """One partition of one kind of entity.

    Args:
        kind: what is resolved, by the rules file.
        topics: its topics.
        partition: which of them.
        partitions: how many there are.
        shelf: holds what the changelog holds.
        ready: makes rules of before ready to be applied.
    """

    def __init__(self, kind: Kind, topics: Topics, partition: int, partitions: int, shelf: Shelf, ready: Ready) -> None:
        self._topics = topics
        self._number = partition
        self._shelf = shelf
        written = shelf.get(STATE)
        state = State(kind.rules.hash, partitions, {}, {}) if written is None else _state(written)
        self._kinds = KnownKinds(kind, ready, shelf)
        self._refuse_other_making(kind, self._kinds.kind(state.rules), partitions, state.partitions)
        self._kind = self._kinds.kind(state.rules)
        self._file = kind.rules.hash
        self._partitions = partitions
        self._read = dict(state.read)
        self._told = state.told
        self._pages = Pages(shelf.items(PENDING), partial(is_final, streams=state.streams, final_ms=state.final_ms))
        self._partition = Partition(
            state.rules,
            self._kinds,
            state.streams,
            self._pages,
            (_given(value) for _, value in shelf.items(GIVEN)),
            {key[len(ASKED) :]: int(value) for key, value in shelf.items(ASKED)},
            state.final_ms,
            state.memory_ms,
        )
        self._deletions = Deletions(shelf)
        self._sought = state.sought
        self._origins = {name: region for region, name in topics.events.items()}
        self._markers = {name: region for region, name in topics.marks.items()}
        listed = kind.rules.set.detection == "watermark"
        self._listings = Listings(kind.regions, topics.here, partition, state.listed, shelf) if listed else None
        self._writes: dict[bytes, bytes | None] = {}
        self._out: list[Outgoing] = []
        self._showing = Showing(self._pages, self._partition.heard, self._partition.streams, state.shown, puts_off=state.put_off)
        # Of this batch alone. To hold more of them costs memory and wins nothing: one that lies cold there is not sooner read than decoded.
        self._entities: dict[bytes, Kept] = {}
        self._batch = Counts()
        self._dirty = False
        self._marked_ms = -1
        self._read_ms = -1
        name = RULES + self._file.encode()
        if shelf.get(name) is None:
            # Marks tell of these rules; whoever goes on from here must know them, whatever its file says then.
            self._writes[name] = encode(kind.rules.set)
            self._dirty = True

    @property
    def changelog(self) -> TopicPartition:
        """Where the state is written."""
        return TopicPartition(self._topics.changelog, self._number)

    @property
    def pending(self) -> int:
        """How many events are not final."""
        return len(self._partition)

    @property
    def unlisted(self) -> int:
        """See `Listings.unlisted`."""
        return 0 if self._listings is None else self._listings.unlisted

    @property
    def lists(self) -> bool:
        """Whether events have no headers, and marks list them."""
        return self._listings is not None

    @property
    def asking(self) -> int:
        """How many conflicts wait for a person."""
        return self._partition.asking

    @property
    def streams(self) -> dict[Region, Stream]:
        """How far each region's stream has been read."""
        return self._partition.streams

    @property
    def dirty(self) -> bool:
        """Whether there is anything to be committed."""
        return self._dirty

    @property
    def version(self) -> str:
        """The version of the rules by which is decided."""
        return self._partition.version

    @property
    def foreign(self) -> dict[Region, str]:
        """The regions whose resolvers have another version of the rules, with it: what is behind their marks waits."""
        return {
            region: has
            for region in self._partition.streams
            if region != self._topics.here and (has := self._partition.has(region)) not in ("", self._file)
        }

    def positions(self) -> dict[TopicPartition, Offset]:
        """Return where each topic is read on; what does not count yet, a mark or a record that no mark has listed, is read again."""
        found = {TopicPartition(name, self._number): self._read.get(name, Offset(0)) for name in self._topics.inputs}
        for region, name in self._topics.marks.items():
            held = self._partition.first_held(region)
            if self._listings is not None:
                held = min((at for at in (held, self._listings.first_held(region)) if at is not None), default=None)
                if (first := self._listings.first_record(region)) is not None:
                    found[TopicPartition(self._topics.events[region], self._number)] = first
            if held is not None:
                found[TopicPartition(name, self._number)] = held
        return found

    def take(self, record: Arrived) -> Sequence[EntityEvent]:
        """Take the next record of one of the topics; return the events that are known by it, as they came."""
        self._dirty = True
        region = self._origins.get(record.topic)
        found: Sequence[EntityEvent] = ()
        try:
            if region is None:
                found = self._mark(record)
            elif self._listings is None:
                found = self._stamped(region, record)
            else:
                found = self._listed(region, self._listings.come(region, record))
                if region == self._topics.here:
                    self._read_ms = record.timestamp_ms
        except Unreadable as error:
            if record.offset >= self._told.get(record.topic, 0):
                self._dead(record, error.reason, error.detail)
        self._read[record.topic] = Offset(record.offset + 1)
        return found

    def finish(self, now_s: float = 0.0, provisional_after_s: float = 0.0) -> list[Outgoing]:
        """Decide what can be decided, and return what the batch writes, the state's changes last; nothing without records.

        Args:
            now_s: of a clock that never goes back.
            provisional_after_s: what stands by events that are not final is shown when they have waited for so long. Most are final by
                then, if there is much to read.
        """
        if not self._dirty:
            return []
        self._showing.begin(now_s)
        done = self._partition.settle(self._load)
        self._kind = self._kinds.kind(self._partition.version)
        self._settled(done)
        for key, last in self._showing.due(provisional_after_s, lambda key: self._partition.is_decided(key, self._load(key))):
            self._show(key, last)
        if self._partition.forgets:
            self._forget()
        self._writes |= self._pages.writes()
        if self._listings is not None:
            self._writes |= self._listings.writes()
        self._writes[STATE] = _encode(self._as_read())
        changes = [Outgoing(self._topics.changelog, self._number, key, value) for key, value in self._writes.items()]
        return [*self._out, *changes]

    def committed(self, offset: Offset) -> Counts:
        """Put the batch's changes on the shelf; they are committed. ``offset``: behind them in the changelog."""
        if self._dirty:
            self._shelf.apply(self._writes, offset)
        done = self._batch
        self._writes, self._out, self._entities = {}, [], {}
        self._batch, self._dirty = Counts(), False
        return done

    @property
    def own(self) -> TopicPartition:
        """The region's own log."""
        return TopicPartition(self._topics.topic, self._number)

    def next_marks(self, now_ms: int, end: Offset | None, *, at_end: bool) -> list[Outgoing]:
        """Return this region's marks: what it has read of its own log, all of it committed. More than one where there is much to list.

        Args:
            now_ms: the wall clock before what was read last.
            end: of the region's own log, asked for behind all that was read; needed where marks list events.
            at_end: everything that was in the log by then has been read. While there is more, the events' own clocks tell the time:
                those that come next are not late because the resolver is.
        """
        if self._dirty:
            raise InvariantViolation("a mark of what is not committed", where=str(self.changelog))
        read_ms = now_ms if at_end else min(now_ms, self._read_ms)
        if read_ms < GRACE_MS:
            return []
        before_ms, self._marked_ms = self._marked_ms, max(self._marked_ms, read_ms - GRACE_MS)
        position = self._read.get(self._topics.topic, Offset(0))
        if self._listings is None:
            return [self._as_mark(position, self._partition.streams[self._topics.here].last, self._marked_ms, now_ms)]
        if end is None:
            raise InvariantViolation("a mark that lists events without a look at the log's end", where=str(self.changelog))
        *first, last = self._listings.next(position, end, now_ms)
        # Only the last of them speaks of all that was read.
        return [
            *(self._as_mark(one.offset, one.last, before_ms, now_ms, one.listing) for one in first),
            self._as_mark(last.offset, last.last, self._marked_ms, now_ms, last.listing),
        ]

    def _as_mark(self, offset: int, last: str, clock_ms: int, now_ms: int, listing: Listing | None = None) -> Outgoing:
        mark = Mark(offset, last, clock_ms, now_ms + AHEAD_MS_MAX, self._file, self._partition.version, listing)
        return Outgoing(self._topics.own_marks, self._number, b"mark", encode(mark))

    def close(self) -> None:
        """Release the shelf."""
        self._shelf.close()

    # ---------------------------------------------------------------- taking

    def _stamped(self, region: Region, record: Arrived) -> Sequence[EntityEvent]:
        event, wrong = read_event(record, self._kind, region)
        if self._arrive(record, event, wrong, others(record.headers)) and region == self._topics.here:
            self._read_ms = event.hlc.wall_ms
        return (event,)

    def _listed(self, region: Region, found: Sequence[Found]) -> Sequence[EntityEvent]:
        """Take listed events for which a record was found, and records that were passed over."""
        events = []
        for one in found:
            record = one.record.record
            if isinstance(one, Claimed):
                event, wrong = stamped(record, self._kind, one.stamp)
                self._arrive(record, event, Wrong(AHEAD, one.ahead) if one.ahead else wrong, record.headers)
                events.append(event)
            elif self._listings is not None and self._listings.came_again(region, one):
                self._batch.came_again += 1
            else:
                self._dead(record, "not-listed", f"{region}'s marks do not list it, and list what was written behind it")
        return events

    def _arrive(self, record: Arrived, event: EntityEvent, wrong: Wrong | None, headers: tuple[tuple[str, bytes | None], ...]) -> bool:
        """Take an event; return whether it is not among the pending ones already."""
        key = record.key or b""
        new = self._partition.is_new(self._load(key), event, copy=event.origin != self._topics.here)
        one = self._partition.arrive(key, event, record.value, new=new, offset=record.offset, headers=headers, wrong=wrong)
        if one is None:
            self._batch.came_again += 1
            return False
        self._pages.add(one)
        if new:
            self._batch.events += 1
            self._showing.came(key)
        return True

    def _mark(self, record: Arrived) -> Sequence[EntityEvent]:
        region = self._markers.get(record.topic)
        if region is None:
            raise InvariantViolation("a record of a topic that is not read", where=record.topic)
        try:
            value = record.value or b""
            said = decode(value, Decision) if record.key == DECISION_KEY else decode(value, Mark)
        except msgspec.MsgspecError as error:
            raise Unreadable("bad-mark", f"it is no mark and no decision: {error}") from None
        found: Sequence[EntityEvent] = ()
        if self._listings is not None and isinstance(said, Mark):
            found = self._listed(region, self._listings.hear(region, Offset(record.offset), said))
        self._partition.mark(region, Offset(record.offset), said)
        return found

    # ---------------------------------------------------------------- deciding

    def _settled(self, done: Settled) -> None:
        for one in done.raised:
            self._batch.raised += 1
            self._pages.change(one)
            if one.new:
                self._showing.change(one.key)
        for given in done.given:
            self._writes[_given_key(given)] = _encode(given)
            if given.unfit:
                self._declined(
                    given, Wrong("bad-clock", f"its clock, {given.decision.clock_ms}, is far ahead of {given.region}'s last mark")
                )
            else:
                self._showing.touch(given.decision.key.encode())
        for key, until_ms in done.asking.items():
            self._writes[ASKED + key] = None if until_ms is None else str(until_ms).encode()
        for key, kept in done.entities.items():
            if kept.entity.registers or kept.passed or kept.ahead:
                self._writes[ENTITY + key] = _encode(kept)
                if self._partition.forgets and kept.is_over():
                    self._deletions.add(key, kept.latest_ms)
            for step in done.steps[key]:
                if isinstance(step, Final):
                    self._final(key, kept, step, done)
                else:
                    self._answered(key, step, done)

    def _final(self, key: bytes, kept: Kept, final: Final, done: Settled) -> None:
        self._pages.drop(final.pending)
        if final.refused and final.pending.wrong is not None:
            self._showing.touch(key)
            if self._showing.was_shown(final.pending):
                self._showing.withdraw(key)
            self._refused(final.pending, final.pending.wrong)
        elif final.outcome is None:
            if final.late is not None and final.pending.new:
                self._showing.touch(key)
            if final.pending.new and not kept.entity.registers and self._showing.was_shown(final.pending):
                # One with a greater number was refused before it.
                self._showing.withdraw(key)
            self._passed_over(final.pending, kept, final.late)
        else:
            self._showing.touch(key, final.outcome)
            if final.outcome.conflict is not None:
                self._decided(key, done, final.outcome.conflict, final.asks)

    def _answered(self, key: bytes, step: Answered, done: Settled) -> None:
        if step.given is None or not step.given.unfit:
            self._showing.touch(key)
        if step.given is not None:
            self._writes[_given_key(step.given)] = None
            if step.why is not None:
                self._declined(step.given, step.why)
        if step.conflict is not None:
            self._batch.decisions += step.given is not None
            self._decided(key, done, step.conflict, step.asks)

    def _declined(self, given: Given, why: Wrong) -> None:
        """Of a decision that comes to nothing it is said where it was given."""
        if given.region == self._topics.here:
            self._batch.dead_letters += 1
            self._out.append(writing.dead_decision(self._topics, self._number, given.decision, why))

    def _decided(self, key: bytes, done: Settled, conflict: Conflict, asks: Sequence[str]) -> None:
        bodies = done.bodies[key]
        self._batch.conflicts += not conflict.closed
        self._out.append(writing.conflict_record(self._topics, self._number, key, conflict, bodies))
        asked = list(writing.compensations(self._topics, self._number, key, conflict, asks, bodies))
        self._batch.compensations += len(asked)
        self._out += asked

    def _refused(self, one: Pending, why: Wrong) -> None:
        self._batch.dead_letters += 1
        self._out.append(writing.dead_event(self._topics, self._number, one, why, stamped=self._listings is None))

    def _dead(self, record: Arrived, reason: str, detail: str) -> None:
        self._batch.dead_letters += 1
        self._out.append(writing.dead_letter(self._topics, record, reason, detail))

    def _passed_over(self, one: Pending, kept: Kept, late: Wrong | None) -> None:
        """Of a copy nobody can tell whether it came again; of the region's own log a later event can be told from the same one."""
        event = one.event
        register = kept.entity.registers.get(event.origin)
        if event.origin != self._topics.here or (register is not None and register.head.id == event.id):
            self._batch.came_again += 1
            return
        if late is not None:
            self._refused(one, late)
            return
        before = f"that of {register.head.id}, {register.head.number}" if register is not None else "one that was refused"
        detail = f"its number, {event.number}, is not above {before}, which came before it"
        self._refused(one, Wrong("overtaken", detail))

    def _show(self, key: bytes, last: Outcome | None) -> None:
        """Write what stands for an entity. ``last``: what stood after the last of its final events, where that is known."""
        standing = self._partition.standing(key, self._load(key), last)
        if standing is not None:
            kind = self._kinds.kind(standing.rules)
            self._out.append(writing.resolved(kind, self._topics, self._number, key, standing))
        elif self._showing.is_withdrawn(key) or self._partition.forgets:
            # What stood may have been deleted and forgotten since it was shown last.
            self._out.append(writing.nothing_stands(self._topics, self._number, key))

    # ---------------------------------------------------------------- forgetting

    def _forget(self) -> None:
        """Let go what is over and from before the memory; nothing is written of it but that."""
        if self._sought is not None:
            found = list(islice(self._shelf.items(ENTITY, ENTITY + self._sought), SOUGHT_MAX))
            for name, value in found:
                if (kept := _kept(value)).is_over():
                    self._deletions.add(name[len(ENTITY) :], kept.latest_ms)
            self._sought = found[-1][0][len(ENTITY) :] + b"\0" if len(found) == SOUGHT_MAX else None
        self._deletions.take(self._partition.memory_ms, self._forget_one)
        self._writes |= self._deletions.writes()

    def _forget_one(self, key: bytes) -> bool:
        """Forget an entity if it is time; False: it has not been shown yet as it is, or something is still to come."""
        kept = self._load(key)
        if self._showing.waits(key) or not self._partition.is_decided(key, kept):
            return False
        if kept.is_forgotten(self._partition.memory_ms):
            self._writes[ENTITY + key] = None
            # Until the batch is on the shelf, this is what is known of it.
            self._entities[key] = Kept()
        return True

    # ---------------------------------------------------------------- state

    def _load(self, key: bytes) -> Kept:
        """Return an entity as its final events left it; who changes it writes it down."""
        kept = self._entities.get(key)
        if kept is None:
            value = self._shelf.get(ENTITY + key)
            kept = self._entities[key] = Kept() if value is None else _kept(value)
        return kept

    def _as_read(self) -> State:
        read = {**self._read, **{tp.topic: offset for tp, offset in self.positions().items()}}
        partition = self._partition
        self._told = {name: max(offset, self._told.get(name, Offset(0))) for name, offset in self._read.items()}
        listed = {} if self._listings is None else self._listings.states
        return State(
            partition.version,
            self._partitions,
            read,
            partition.streams,
            partition.final_ms,
            self._showing.shown,
            self._showing.puts_off,
            self._told,
            listed,
            partition.memory_ms,
            self._sought,
        )

    def _refuse_other_making(self, kind: Kind, made_for: Kind, partitions: int, had: int) -> None:
        if (kind.name, set(kind.regions)) != (made_for.name, set(made_for.regions)):
            message = (
                f"the state is of {made_for.name} in {', '.join(sorted(made_for.regions))}, the rules file is about {kind.name} in "
                f"{', '.join(sorted(kind.regions))}: the ids of all conflicts would be others, or a region's events would be unknown"
            )
            raise MrcError("RULES_CHANGED", message, where=self._topics.changelog)
        if (now := kind.rules.set.detection) != (then := made_for.rules.set.detection):
            message = f"the state was made with `detection: {then}`, the rules file says {now}: the events' numbers and ids would be others"
            raise MrcError("RULES_CHANGED", message, where=self._topics.changelog)
        if had != partitions:
            message = (
                f"{self._topics.topic} has {partitions} partitions and had {had} when its state was made: "
                f"the events of one {kind.name} may have moved to another partition"
            )
            raise MrcError("PARTITIONS_DIFFER", message, where=self._topics.here)


def restore(shelf: Shelf, batches: Iterable[list[Arrived]]) -> int:
    """Put on the shelf what its changelog has beyond it; return how many records that were."""
    count = 0
    for batch in batches:
        if batch:
            count += len(batch)
            shelf.apply({record.key or b"": record.value for record in batch}, Offset(batch[-1].offset + 1))
    return count


def _given_key(one: Given) -> bytes:
    said = one.decision
    return GIVEN + encode((one.region, said.clock_ms, said.id, said.key))


def entities(shelf: Shelf) -> Iterator[tuple[bytes, Kept]]:
    """Yield every entity on a shelf, as its final events left it."""
    for key, value in shelf.items(ENTITY):
        yield key[len(ENTITY) :], _kept(value)
