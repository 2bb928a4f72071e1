"""History resolved again by other rules, to see what would change. Nothing is written but a scratch disk, no group is joined.

The topic, its copies and the marks are read from the log and given to the resolver's own `Task`, once with the rules of now and once with
the others. Where the rules of now come to what was resolved, the replay is true, and what the others come to is what would change; where
they do not, history is missing (it begins before the window, or was deleted) or still being written, and nothing is judged. Nor is it
where a branch that was in conflict begins before the window: what the other rules would look at may stand there. Of a branch of which
the other side had seen nothing at all it is *assumed* that it begins in the window, and said so; in a log that has its first record it is
known.

Memory: partitions are read one after another. Of each, what was resolved within the window is held as a few words per entity and
conflict, and events until the marks that follow them are read; the four logs are read side by side by their timestamps, so that is soon.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from mrc.core.conflict.entity import Rules
from mrc.core.conflict.events import EntityEvent
from mrc.core.conflict.headers import ID, VECTOR
from mrc.core.errors import MrcError
from mrc.core.model import Offset, Region, TopicPartition, Value, decode, encode
from mrc.ports import Arrived, Logs, Outgoing, Shelves, Span
from mrc.resolver.audit import SLACK_MS, Progress, legible, unheard
from mrc.resolver.deciding import mark_of
from mrc.resolver.kinds import Kind, Topics, topics
from mrc.resolver.task import Task
from mrc.resolver.writing import CONFLICT, FIELDS, FINAL, ConflictRecord

BATCH_RECORDS = 100
"""Decided at once; the fewer, the more often what stood in between is seen as it was resolved then."""

CHANGES_MAX = 1_000
"""Changes that are told one by one; all are counted."""


class Decision(Value, frozen=True):
    """How a conflict is decided; ``outcome`` is the region whose event stands, or ``open``."""

    rule: str
    winner: str
    outcome: str


class Standing(Value, frozen=True):
    """What stands for an entity: the event, and merged fields as JSON."""

    event: str
    fields: str


class DecisionChange(Value, frozen=True):
    """A conflict that would be decided otherwise; None: it was, or would be, none. ``assumed``: see `DryRun`."""

    topic: str
    key: str
    conflict: str
    was: Decision | None
    would: Decision | None
    assumed: bool


class StandingChange(Value, frozen=True):
    """An entity for which something else would stand."""

    topic: str
    key: str
    was: Standing
    would: Standing | None
    assumed: bool


class DryRun(msgspec.Struct):
    """What came out.

    Attributes:
        events: records that were replayed, marks not counted.
        conflicts, entities: how many were judged.
        assumed: of the conflicts, those that have a branch of which it is not known, only assumed, that it begins in the window.
        winners: conflicts that another event would win, or that would be no conflict, or one more.
        rules: conflicts that another rule would decide for the same event.
        standings: entities for which something else would stand.
        decisions, changes: these, one by one, up to `CHANGES_MAX` of each.
        compensations, compensations_would: per template, how many this region's lost events ask for in the replay.
        unjudged_conflicts, unjudged_entities: where the rules of now do not come to what was resolved; entities also where nothing
            final is left of what was.
        pending: events that are not final at the end of the window.
        dead_letters, dead_letters_would: records that cannot be resolved.
    """

    events: int = 0
    conflicts: int = 0
    entities: int = 0
    assumed: int = 0
    winners: int = 0
    rules: int = 0
    standings: int = 0
    decisions: list[DecisionChange] = []
    changes: list[StandingChange] = []
    compensations: dict[str, int] = {}
    compensations_would: dict[str, int] = {}
    unjudged_conflicts: int = 0
    unjudged_entities: int = 0
    pending: int = 0
    dead_letters: int = 0
    dead_letters_would: int = 0

    @property
    def changed(self) -> bool:
        """Whether the other rules come to anything else."""
        return bool(
            self.winners
            or self.rules
            or self.standings
            or self.compensations != self.compensations_would
            or self.dead_letters != self.dead_letters_would
        )


class _Decided(NamedTuple):
    """A decision, and per side the number behind which its branch begins (`Candidate.unseen_since`)."""

    entity: str
    key: str
    decision: Decision
    sides: tuple[tuple[Region, int], ...]


class _Stood(NamedTuple):
    """A final result, the vector that it is made of, and the conflict that it came of; empty: none."""

    vector: bytes
    standing: Standing
    conflict: str


class _Told:
    """What one side says: decisions by conflict, final results by key, and the keys of which it says nothing final."""

    def __init__(self) -> None:
        self.decisions: dict[str, _Decided] = {}
        self.standings: dict[bytes, _Stood] = {}
        self.unsettled: set[bytes] = set()

    def decided(self, value: bytes | None, since_ms: int | None = None) -> None:
        """Note a conflict, where it arose since then."""
        try:
            one = decode(value or b"", ConflictRecord)
        except msgspec.MsgspecError:
            return  # `Audit` names it; here it only judges nothing
        if since_ms is None or one.at_ms >= since_ms:
            sides = tuple((side.origin, side.unseen_since) for side in one.candidates)
            self.decisions[one.id] = _Decided(one.entity, one.key, Decision(one.rule, one.winner, one.outcome), sides)

    def resolved(self, one: Arrived | Outgoing, only: Mapping[bytes, bytes] | None) -> None:
        """Note a final result; with ``only``, one with the vector that is wanted of its entity."""
        key, said = one.key, dict(one.headers)
        vector = said.get(VECTOR) or b""
        if key is not None and one.value is None and ID not in said:  # nothing stands any more: every event was refused
            self.unsettled.discard(key)
            return
        if only is None and key is not None and key not in self.standings:
            self.unsettled.add(key)
        if key is None or said.get(FINAL) != b"true" or (only is not None and only.get(key) != vector):
            return
        standing = Standing(legible(said.get(ID)), legible(said.get(FIELDS)) or "{}")
        self.unsettled.discard(key)
        self.standings[key] = _Stood(vector, standing, legible(said.get(CONFLICT)))


class _Window:
    """What of a partition's history is in the window."""

    def __init__(self, names: Topics, spans: Mapping[TopicPartition, Span]) -> None:
        self.origins = {name: region for region, name in names.events.items()}
        begins = {self.origins[tp.topic]: span for tp, span in spans.items() if tp.topic in self.origins}
        self.idle = {names.marks[region] for region, span in begins.items() if span.begin == span.end}
        self._whole = {region for region, span in begins.items() if span.begin == 0}
        self._all = set(begins)
        self._first: dict[tuple[str, Region], int] = {}

    def note(self, event: EntityEvent) -> None:
        """Note where an entity's events begin."""
        if event.origin not in self._whole:
            self._first.setdefault((event.entity, event.origin), event.number)

    def holds_all(self) -> bool:
        """Whether every region's history is in it from its first record on."""
        return self._whole == self._all

    def holds(self, one: _Decided) -> Literal["known", "assumed", "no"]:
        """Whether it holds the branches that were in conflict, from the last event on that the other side had seen."""
        assumed = False
        for region, since in one.sides:
            first = self._first.get((one.entity, region))
            if region in self._whole or (first is not None and first <= since):
                continue
            if first is None or since >= 0:
                return "no"
            assumed = True
        return "assumed" if assumed else "known"


class _Replay:
    """One partition, resolved by some rules into memory and a scratch shelf."""

    def __init__(
        self, kind: Kind, names: Topics, partition: int, partitions: int, shelves: Shelves, scratch: str, wanted: Mapping[bytes, bytes]
    ) -> None:
        self._names = names
        self._wanted = wanted
        self._shelves = shelves
        self._hash = kind.rules.hash
        self._scratch = scratch
        self._task = Task(kind, names, partition, partitions, shelves.open(self._scratch, self._scratch), Rules)
        self._written = 0
        self.told = _Told()
        self.asked: Counter[str] = Counter()
        self.dead_letters = 0

    @property
    def pending(self) -> int:
        return self._task.pending

    def take(self, record: Arrived, *, idle: bool) -> Sequence[EntityEvent]:
        """Take a record, and return the events that are known by it; a mark as if these rules had been its writer's.

        ``idle``: its region's window holds no event.
        """
        return self._task.take(_with_rules(record, self._hash, idle=idle) if record.topic in self._names.marks.values() else record)

    def finish(self) -> None:
        for one in self._task.finish():
            self._note(one)
            self._written += 1
        self._task.committed(Offset(self._written))

    def close(self) -> None:
        self._task.close()
        self._shelves.wipe(self._scratch)

    def _note(self, one: Outgoing) -> None:
        if one.topic == self._names.conflicts:
            self.told.decided(one.value)
        elif one.topic == self._names.resolved:
            self.told.resolved(one, self._wanted)
        elif one.topic == self._names.compensations:
            self.asked[msgspec.json.decode(one.value or b"{}")["template"]] += 1
        elif one.topic == self._names.dead_letters:
            self.dead_letters += 1


def dry_run(
    logs: Logs,
    shelves: Shelves,
    kinds: Sequence[tuple[Kind, Kind]],
    here: Region,
    since_ms: int | None,
    offsets: Mapping[TopicPartition, Offset],
    progress: Progress = unheard,
) -> DryRun:
    """Resolve history again.

    Args:
        logs: of the region.
        shelves: for scratch; nothing stays there.
        kinds: as they are resolved now, each with what it would be.
        here: the region.
        since_ms: the window begins with records of this timestamp; None: with the first that there are.
        offsets: where to begin instead, per partition of the topics and their copies.
        progress: is told how far the reading is.

    Raises:
        MrcError: ``RULES_INVALID`` where a kind of entity would have another name or detection; ``UNKNOWN_TOPIC`` for an offset of a
            partition that is not read; ``OFFSET_OUT_OF_RANGE``; ``TOPICS_MISSING``; world errors.
    """
    found = DryRun()
    windows = []
    for now, other in kinds:
        if now.name != other.name:
            message = (
                f"{now.topic} holds events about {now.name}, by these rules about {other.name}: the ids of all conflicts would be others"
            )
            raise MrcError("RULES_INVALID", message)
        if (was_by := now.rules.set.detection) != (would_by := other.rules.set.detection):
            message = (
                f"{now.topic} is resolved by `detection: {was_by}`, these rules say {would_by}: the events' numbers and ids would be others"
            )
            raise MrcError("RULES_INVALID", message)
        names = topics(now, here)
        # What was resolved is taken first: the inputs then hold all that it is made of.
        slack_ms = None if since_ms is None else max(0, since_ms - SLACK_MS)
        said = logs.spans([names.conflicts, names.resolved], slack_ms)
        spans = logs.spans(names.inputs, since_ms)
        windows.append((now, other, names, said, spans))
    _begin_at([spans for *_, spans in windows], offsets)
    total = sum(span.end - span.begin for *_, spans in windows for span in spans.values())
    began = 0
    for now, other, names, said, spans in windows:
        count = sum(tp.topic == names.topic for tp in spans)
        for number in range(count):
            mine = {tp: span for tp, span in spans.items() if tp.partition == number}
            was = _resolved(logs, names, {tp: span for tp, span in said.items() if tp.partition == number}, since_ms)
            window = _Window(names, mine)
            wanted = {key: stood.vector for key, stood in was.standings.items()}
            scratch = f"{names.topic}-{number}"
            replays = [
                _Replay(kind, names, number, count, shelves, f"{side}-{scratch}", wanted) for side, kind in (("now", now), ("other", other))
            ]
            try:
                for read in _replayed(logs, mine, window, replays, found):
                    progress(began + read, total)
                _count(replays[0], replays[1], found)
                _judge_decisions(names.topic, was, replays[0].told, replays[1].told, window, found)
                sums = bool(now.rules.summed or other.rules.summed)
                _judge_standings(names.topic, was, replays[0].told, replays[1].told, window, found, sums=sums)
            finally:
                for one in replays:
                    one.close()
            began += sum(span.end - span.begin for span in mine.values())
    return found


def _begin_at(windows: Sequence[dict[TopicPartition, Span]], offsets: Mapping[TopicPartition, Offset]) -> None:
    for tp, offset in offsets.items():
        spans = next((spans for spans in windows if tp in spans), None)
        if spans is None:
            known = ", ".join(sorted(str(one) for spans in windows for one in spans))
            raise MrcError("UNKNOWN_TOPIC", f"{tp} is not read; there are {known}")
        if offset > spans[tp].end:
            raise MrcError("OFFSET_OUT_OF_RANGE", f"{tp} ends at {spans[tp].end}, before {offset}")
        spans[tp] = Span(offset, spans[tp].end)


def _resolved(logs: Logs, names: Topics, spans: Mapping[TopicPartition, Span], since_ms: int | None) -> _Told:
    was = _Told()
    for record in itertools.chain.from_iterable(logs.read(spans)):
        if record.topic == names.conflicts:
            was.decided(record.value, since_ms)
        else:
            was.resolved(record, None)
    return was


def _replayed(
    logs: Logs, spans: Mapping[TopicPartition, Span], window: _Window, replays: Sequence[_Replay], found: DryRun
) -> Iterator[int]:
    """Replay a partition; yield after each batch how many records were read."""
    merged = heapq.merge(*(_records(logs, tp, span) for tp, span in spans.items()), key=lambda record: record.timestamp_ms)
    read = 0
    while batch := list(itertools.islice(merged, BATCH_RECORDS)):
        found.events += sum(record.topic in window.origins for record in batch)
        for one in replays:
            for record in batch:
                for event in one.take(record, idle=record.topic in window.idle):
                    window.note(event)
            one.finish()
        read += len(batch)
        yield read


def _records(logs: Logs, tp: TopicPartition, span: Span) -> Iterator[Arrived]:
    return itertools.chain.from_iterable(logs.read({tp: span}))


def _with_rules(record: Arrived, rules: str, *, idle: bool) -> Arrived:
    """Return a mark as if its writer had these rules; where the window holds no event of its region, one that names none."""
    mark = mark_of(record)
    if mark is None:
        return record
    listing = msgspec.structs.replace(mark.listing, events=b"") if idle and mark.listing is not None else mark.listing
    changed = msgspec.structs.replace(mark, rules=rules, last="" if idle else mark.last, listing=listing)
    return msgspec.structs.replace(record, value=encode(changed))


def _count(now: _Replay, other: _Replay, found: DryRun) -> None:
    found.pending += now.pending
    found.dead_letters += now.dead_letters
    found.dead_letters_would += other.dead_letters
    for counts, asked in ((found.compensations, now.asked), (found.compensations_would, other.asked)):
        for template, count in asked.items():
            counts[template] = counts.get(template, 0) + count


def _judge_decisions(topic: str, was: _Told, now: _Told, other: _Told, window: _Window, found: DryRun) -> None:
    for id in {**was.decisions, **now.decisions, **other.decisions}:
        before, would = was.decisions.get(id), other.decisions.get(id)
        known = before or would
        held = "no" if known is None or now.decisions.get(id) != before else window.holds(known)
        if known is None or held == "no":
            found.unjudged_conflicts += 1
            continue
        found.conflicts += 1
        found.assumed += held == "assumed"
        change = DecisionChange(topic, known.key, id, before and before.decision, would and would.decision, held == "assumed")
        if change.was == change.would:
            continue
        if change.was and change.would and (change.was.winner, change.was.outcome) == (change.would.winner, change.would.outcome):
            found.rules += 1
        else:
            found.winners += 1
        if len(found.decisions) < CHANGES_MAX:
            found.decisions.append(change)


def _judge_standings(topic: str, was: _Told, now: _Told, other: _Told, window: _Window, found: DryRun, *, sums: bool) -> None:
    # Compaction takes a final result behind which a provisional one stands; what stood is then unknown.
    found.unjudged_entities += len(was.unsettled)
    for key, stood in was.standings.items():
        conflict = was.decisions.get(stood.conflict)
        held = "known" if window.holds_all() or not (sums or stood.conflict) else "no"
        if held == "no" and not sums and conflict is not None:
            held = window.holds(conflict)
        if held == "no" or now.standings.get(key) != stood:
            found.unjudged_entities += 1
            continue
        found.entities += 1
        would = other.standings.get(key)
        if would is None or would.standing != stood.standing:
            found.standings += 1
            if len(found.changes) < CHANGES_MAX:
                found.changes.append(StandingChange(topic, legible(key), stood.standing, would and would.standing, held == "assumed"))
