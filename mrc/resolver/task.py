"""One partition's work: records in, records out, and its state.

Invariant: what is on the shelf is what a committed transaction has written to the changelog, never more. Until `committed` everything
that a batch changes is kept beside it, and a process that dies in between has changed nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from functools import partial

import msgspec

from mrc.core.conflict.entity import Conflict, Outcome
from mrc.core.conflict.headers import Unreadable
from mrc.core.conflict.partition import Kept, Mark, Partition, Pending, Settled, Stream, is_final
from mrc.core.errors import InvariantViolation, MrcError
from mrc.core.model import Offset, Region, TopicPartition, decode, encode
from mrc.ports import Arrived, Outgoing, Shelf
from mrc.resolver import writing
from mrc.resolver.kinds import Kind, Topics
from mrc.resolver.pages import PENDING, Pages
from mrc.resolver.reading import read_event

GRACE_MS = 500
"""How late an event may reach its region's log and still keep its clock."""

AHEAD_MS_MAX = 300_000
"""An event's clock may be ahead of its region's resolver's by this much."""

ENTITY, STATE = b"e", b"s"
"""What keys of the changelog and the shelf begin with; see also `PENDING`."""


class State(msgspec.Struct):
    """Of a partition as a whole; durable.

    Attributes:
        rules: the version of the rules that made it.
        partitions: how many the topic had.
        read: per topic, where to read on.
        streams: per region.
        final_ms: how far everything is final, see `Partition`.
        shown: per region, what came before this place has been shown.
    """

    rules: str
    partitions: int
    read: dict[str, Offset]
    streams: dict[Region, Stream]
    final_ms: int = -1
    shown: dict[Region, int] = {}


class Counts(msgspec.Struct):
    """What was done since the process began."""

    events: int = 0
    came_again: int = 0
    dead_letters: int = 0
    conflicts: int = 0
    compensations: int = 0
    raised: int = 0

    def add(self, other: Counts) -> None:
        """Add another's."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


_encode = msgspec.msgpack.Encoder().encode
_kept = msgspec.msgpack.Decoder(Kept).decode
_state = msgspec.msgpack.Decoder(State).decode


class Task:
    """One partition of one kind of entity.

    Args:
        kind: what is resolved.
        topics: its topics.
        partition: which of them.
        partitions: how many there are.
        shelf: holds what the changelog holds.
        cached_max: how many entities are held in memory, besides those that a batch changes.
    """

    def __init__(self, kind: Kind, topics: Topics, partition: int, partitions: int, shelf: Shelf, cached_max: int = 1_000) -> None:
        self._kind = kind
        self._topics = topics
        self._number = partition
        self._shelf = shelf
        self._read: dict[str, Offset] = {}
        written = shelf.get(STATE)
        state = State(kind.rules.hash, partitions, {}, {}) if written is None else _state(written)
        self._refuse_other_making(state, partitions)
        self._state = state
        self._read = dict(state.read)
        self._pages = Pages(shelf.items(PENDING), partial(is_final, streams=state.streams, final_ms=state.final_ms))
        self._partition = Partition(kind.rules, state.streams, self._pages, state.final_ms)
        self._origins = {name: region for region, name in topics.events.items()}
        self._markers = {name: region for region, name in topics.marks.items()}
        self._writes: dict[bytes, bytes | None] = {}
        self._out: list[Outgoing] = []
        self._touched: dict[bytes, Outcome | None] = {}
        self._news = {one.key: None for one in self._pages if one.new and one.place >= state.shown.get(one.event.origin, 0)}
        self._cache: OrderedDict[bytes, Kept] = OrderedDict()
        self._cached_max = cached_max
        self._batch = Counts()
        self._dirty = False
        self._marked_ms = -1
        self._told_ms = -1

    @property
    def changelog(self) -> TopicPartition:
        """Where the state is written."""
        return TopicPartition(self._topics.changelog, self._number)

    @property
    def pending(self) -> int:
        """How many events are not final."""
        return len(self._partition)

    @property
    def streams(self) -> dict[Region, Stream]:
        """How far each region's stream has been read."""
        return self._partition.streams

    @property
    def foreign(self) -> set[Region]:
        """The regions whose resolvers decide by other rules: nothing is final meanwhile."""
        return self._partition.foreign

    def positions(self) -> dict[TopicPartition, Offset]:
        """Return where each topic is read on; a mark that does not count yet is read again."""
        found = {TopicPartition(name, self._number): self._read.get(name, Offset(0)) for name in self._topics.inputs}
        for region, name in self._topics.marks.items():
            held = self._partition.first_held(region)
            if held is not None:
                found[TopicPartition(name, self._number)] = held
        return found

    def take(self, record: Arrived) -> None:
        """Take the next record of one of the topics."""
        self._dirty = True
        region = self._origins.get(record.topic)
        try:
            if region is not None:
                self._event(region, record)
            else:
                self._mark(record)
        except Unreadable as error:
            self._batch.dead_letters += 1
            self._out.append(writing.dead_letter(self._topics, record, error.reason, error.detail))
        self._read[record.topic] = Offset(record.offset + 1)

    def finish(self, *, show_news: bool = True) -> list[Outgoing]:
        """Decide what can be decided, and return what the batch writes, the state's changes last; nothing without records.

        Args:
            show_news: show what stands by events that have come and are not final; else they wait for a later batch, or for being final.
        """
        if not self._dirty:
            return []
        self._settled(self._partition.settle(self._load))
        self._show(news=show_news)
        self._writes |= self._pages.writes()
        self._writes[STATE] = _encode(self._as_read())
        changes = [Outgoing(self._topics.changelog, self._number, key, value) for key, value in self._writes.items()]
        return [*self._out, *changes]

    def committed(self, offset: Offset) -> Counts:
        """Put the batch's changes on the shelf; they are committed. ``offset``: behind them in the changelog."""
        if self._dirty:
            self._shelf.apply(self._writes, offset)
        done = self._batch
        self._writes, self._out, self._touched = {}, [], {}
        self._batch, self._dirty = Counts(), False
        while len(self._cache) > self._cached_max:
            self._cache.popitem(last=False)
        return done

    @property
    def own(self) -> TopicPartition:
        """The region's own log."""
        return TopicPartition(self._topics.topic, self._number)

    def next_mark(self, now_ms: int, *, at_end: bool) -> Outgoing | None:
        """Return this region's mark: what it has read of its own log, all of it committed; None: there is nothing to say.

        Args:
            now_ms: the wall clock before what was read last.
            at_end: everything that was in the log by then has been read. While there is more, the events' own clocks tell the time:
                those that come next are not late because the resolver is.
        """
        if self._dirty:
            raise InvariantViolation("a mark of what is not committed", where=str(self.changelog))
        told_ms = now_ms if at_end else min(now_ms, self._told_ms)
        if told_ms < GRACE_MS:
            return None
        self._marked_ms = max(self._marked_ms, told_ms - GRACE_MS)
        mark = Mark(
            self._read.get(self._topics.topic, Offset(0)),
            self._partition.streams[self._topics.here].last,
            self._marked_ms,
            now_ms + AHEAD_MS_MAX,
            self._kind.rules.hash,
        )
        return Outgoing(self._topics.own_marks, self._number, b"mark", encode(mark))

    def close(self) -> None:
        """Release the shelf."""
        self._shelf.close()

    # ---------------------------------------------------------------- taking

    def _event(self, region: Region, record: Arrived) -> None:
        event = read_event(record, self._kind, region)
        key = record.key or b""
        register = self._load(key).entity.registers.get(region)
        new = register is None or event.number > register.head.number
        one = self._partition.arrive(key, event, record.value, new=new)
        if one is None:
            self._batch.came_again += 1
            return
        self._pages.add(one)
        if region == self._topics.here:
            self._told_ms = event.hlc.wall_ms
        if new:
            self._batch.events += 1
            self._news[key] = None

    def _mark(self, record: Arrived) -> None:
        region = self._markers.get(record.topic)
        if region is None:
            raise InvariantViolation("a record of a topic that is not read", where=record.topic)
        try:
            mark = decode(record.value or b"", Mark)
        except msgspec.MsgspecError as error:
            raise Unreadable("bad-mark", f"it is no mark: {error}") from None
        self._partition.mark(region, Offset(record.offset), mark)

    # ---------------------------------------------------------------- deciding

    def _settled(self, done: Settled) -> None:
        for one in done.raised:
            self._batch.raised += 1
            self._pages.change(one)
        for one in done.refused:
            self._refused(one)
        for key, kept in done.entities.items():
            self._writes[ENTITY + key] = _encode(kept)
            for final in done.finals[key]:
                self._pages.drop(final.pending)
                if final.outcome is None:
                    self._passed_over(final.pending, kept)
                    continue
                self._touched[key] = final.outcome
                if final.outcome.conflict is not None:
                    self._decided(key, done, final.outcome.conflict)

    def _decided(self, key: bytes, done: Settled, conflict: Conflict) -> None:
        bodies = done.bodies[key]
        self._batch.conflicts += 1
        self._out.append(writing.conflict_record(self._topics, self._number, key, conflict, bodies))
        asked = list(writing.compensations(self._topics, self._number, key, conflict, bodies, self._kind.rules))
        self._batch.compensations += len(asked)
        self._out += asked

    def _refused(self, one: Pending) -> None:
        self._pages.refuse(one)
        self._touched[one.key] = None
        self._batch.dead_letters += 1
        detail = f"its clock, {one.event.hlc}, is more than {AHEAD_MS_MAX} ms ahead of its region's resolver's"
        self._out.append(writing.dead_event(self._topics, self._number, one, "clock-ahead", detail))

    def _passed_over(self, one: Pending, kept: Kept) -> None:
        """Of a copy nobody can tell whether it came again; of the region's own log a later event can be told from the same one."""
        event = one.event
        head = kept.entity.registers[event.origin].head
        if event.origin != self._topics.here or head.id == event.id:
            self._batch.came_again += 1
            return
        self._batch.dead_letters += 1
        detail = f"its number, {event.number}, is not above that of {head.id}, {head.number}, which was taken before it"
        self._out.append(writing.dead_event(self._topics, self._number, one, "overtaken", detail))

    def _show(self, *, news: bool) -> None:
        """Write what stands for the entities of which something became final, and with ``news`` for those of which something came."""
        for key in self._touched:
            self._news.pop(key, None)
        if news:
            self._touched |= self._news
            self._news = {}
            self._state.shown = {region: stream.arrived for region, stream in self.streams.items()}
        for key, last in self._touched.items():
            standing = self._partition.standing(key, self._load(key), last)
            if standing is not None:
                self._out.append(writing.resolved(self._kind, self._topics, self._number, key, standing))

    # ---------------------------------------------------------------- state

    def _load(self, key: bytes) -> Kept:
        """Return an entity as its final events left it; who changes it writes it down."""
        kept = self._cache.get(key)
        if kept is None:
            # What this batch has written is in the cache: nothing is dropped from it before the batch is on the shelf.
            value = self._shelf.get(ENTITY + key)
            kept = self._cache[key] = Kept() if value is None else _kept(value)
        else:
            self._cache.move_to_end(key)
        return kept

    def _as_read(self) -> State:
        read = {**self._read, **{tp.topic: offset for tp, offset in self.positions().items()}}
        return State(self._state.rules, self._state.partitions, read, self._partition.streams, self._partition.final_ms, self._state.shown)

    def _refuse_other_making(self, state: State, partitions: int) -> None:
        if state.rules != self._kind.rules.hash:
            message = f"the state of {self._kind.name} was made by rules {state.rules}, the file's are {self._kind.rules.hash}"
            raise MrcError("RULES_CHANGED", message, where=self._topics.changelog)
        if state.partitions != partitions:
            message = (
                f"{self._topics.topic} has {partitions} partitions and had {state.partitions} when its state was made: "
                f"the events of one {self._kind.name} may have moved to another partition"
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


def entities(shelf: Shelf) -> Iterator[tuple[bytes, Kept]]:
    """Yield every entity on a shelf, as its final events left it."""
    for key, value in shelf.items(ENTITY):
        yield key[len(ENTITY) :], _kept(value)
