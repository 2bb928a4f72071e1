"""What one region's resolver has written of conflicts: the newest, one by its id, those that come, and how many of what kind.

Nothing is written and no group is joined. A conflict may be written more than once, where it was decided again: its last record counts.

Memory is bounded: at most ``limit`` conflicts per partition are held, counts per topic, rule, outcome, template and reason, and
`IDS_MAX` ids of each sort. Of one that was written again behind so many others each record counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from mrc.core.model import Offset, Region, TopicPartition, Value, decode
from mrc.ports import Arrived, Logs, Span
from mrc.resolver.cursors import cursor_of, positions_of
from mrc.resolver.kinds import Kind, topics
from mrc.resolver.writing import REASON, ConflictRecord

STRIDE_RECORDS = 500
"""How many records of each partition are read first, from the end backwards."""

GROWTH = 8
"""How much further back each round reads where too little was found, so that a topic is read about once however far back it goes."""

IDS_MAX = 250_000
"""So many ids of conflicts are remembered, to know those that are written more than once."""

SLACK_MS = 60_000
"""A conflict is written when its region's own watermark has passed it, so never before its clock, but for a clock that was set back."""

_CLOCK = re.compile(r"[0-9]{1,15}\.[0-9]{1,19}")
"""Of a late event the counter may be more than a header holds."""

Progress = Callable[[int, int], None]
"""Is told how many offsets were read, and of how many."""


def unheard(done: int, total: int) -> None:
    """Say nothing."""


def legible(value: bytes | None) -> str:
    """Return a key, or a header, as text; empty for None. Two that are no UTF-8 may come to the same."""
    return (value or b"").decode(errors="replace")


def strides(
    spans: Mapping[TopicPartition, Span], first: int, enough: Callable[[TopicPartition], bool]
) -> Iterator[dict[TopicPartition, Span]]:
    """Yield, round by round, the part of each span that is read next, from its end backwards, until it is enough there.

    Args:
        first: how many records of each are read in the first round.
        enough: asked after each round, of each partition of which there is more.
    """
    edge, stride = {tp: span.end for tp, span in spans.items() if span.begin < span.end}, first
    while edge:
        part = {tp: Span(Offset(max(spans[tp].begin, end - stride)), end) for tp, end in edge.items()}
        yield part
        edge = {tp: span.begin for tp, span in part.items() if span.begin > spans[tp].begin and not enough(tp)}
        stride *= GROWTH


class Filter(Value, frozen=True):
    """Which conflicts are wanted; what is empty is not asked for.

    Attributes:
        entity: the record's key, or the kind of entity and the key: ``17``, ``order/17``.
        outcome: the region whose event stands, ``open`` or ``superseded``.
        since_ms: of the clock of the latest event in it.
    """

    entity: str = ""
    rule: str = ""
    outcome: str = ""
    since_ms: int | None = None

    def takes(self, one: ConflictRecord) -> bool:
        """Whether this conflict is wanted."""
        return (
            self.entity in ("", one.key, one.entity)
            and self.rule in ("", one.rule)
            and self.outcome in ("", one.outcome)
            and (self.since_ms is None or one.at_ms >= self.since_ms)
        )


class Count(Value, frozen=True):
    """How many; ``what`` is the rule of a conflict, the template of a compensation, the reason of a dead letter.

    Attributes:
        outcome: of conflicts: the region whose event stands, or ``open``; else empty.
    """

    topic: str
    what: str
    outcome: str
    count: int


class Stats(Value, frozen=True):
    """What a region's resolver has written."""

    region: Region
    conflicts: tuple[Count, ...]
    compensations: tuple[Count, ...]
    dead_letters: tuple[Count, ...]


class News(Value, frozen=True):
    """A conflict that has become final, and where to go on behind it; None: nothing has, this far."""

    conflict: ConflictRecord | None
    cursor: str


class Audit:
    """One region's conflicts.

    Args:
        logs: of the region.
        here: the region.
        kinds: whose conflicts.
        warn: is told of a record that cannot be read; it is left out.
        progress: is told how far a reading is.
    """

    def __init__(self, logs: Logs, here: Region, kinds: Sequence[Kind], warn: Callable[[str], None], progress: Progress = unheard) -> None:
        self._logs = logs
        self._here = here
        self._names = [topics(kind, here) for kind in kinds]
        self._warn = warn
        self._progress = progress

    def newest(self, wanted: Filter, limit: int) -> list[ConflictRecord]:
        """Return the ``limit`` conflicts that were decided last, the latest event's first.

        Each partition is read backwards until it has given ``limit`` conflicts or has no more.
        """
        spans = self._spans([one.conflicts for one in self._names], wanted.since_ms)
        found: dict[TopicPartition, list[ConflictRecord]] = {}
        for chunk in self._backwards(spans, wanted.takes, limit, lambda tp: len(found.get(tp, ())) >= limit):
            for tp, some in chunk.items():
                found[tp] = [*some.values(), *found.get(tp, ())][-limit:]
        return sorted((one for some in found.values() for one in some), key=_latest, reverse=True)[:limit]

    def find(self, id: str) -> ConflictRecord | None:
        """Return the conflict of this id, None where this region has not written it."""
        found = self.place(id)
        return None if found is None else found[1]

    def place(self, id: str) -> tuple[TopicPartition, ConflictRecord] | None:
        """Return the conflict of this id and where it stands, None where this region has not written it."""
        spans = self._spans([one.conflicts for one in self._names], None)
        found: list[tuple[TopicPartition, ConflictRecord]] = []
        for chunk in self._backwards(spans, lambda one: one.id == id, 1, lambda tp: bool(found)):
            found.extend((tp, one) for tp, some in chunk.items() for one in some.values())
        return found[0] if found else None

    def follow(self, wanted: Filter, cursor: str = "") -> Iterator[News]:
        """Yield what is wanted of all that comes, for ever: first where it begins, and every half second how far that is.

        Args:
            wanted: with a time: also what was decided already since then.
            cursor: where to go on; empty: at that time, or now.

        Raises:
            MrcError: world errors; ``BAD_REQUEST`` and ``OFFSET_OUT_OF_RANGE`` for a cursor, see `positions_of`.
        """
        names = [one.conflicts for one in self._names]
        if cursor:
            at = positions_of(cursor, self._here, self._spans(names, None))
        else:
            spans = self._spans(names, wanted.since_ms)
            at = {tp: span.end if wanted.since_ms is None else span.begin for tp, span in spans.items()}
        yield News(None, cursor_of(self._here, at))
        passed: dict[TopicPartition, Offset] = {}
        for batch in self._logs.follow(dict(at), passed):
            for record in batch:
                at[TopicPartition(record.topic, record.partition)] = Offset(record.offset + 1)
                one = self._read(record)
                if one is not None and wanted.takes(one):
                    yield News(one, cursor_of(self._here, at))
            for tp, offset in passed.items():  # a cursor before a marker would be one of what was deleted, once only the marker was
                at[tp] = max(at[tp], offset)
            passed.clear()
            yield News(None, cursor_of(self._here, at))

    def stats(self, since_ms: int | None) -> Stats:
        """Count everything, by ids; conflicts by the clock of the latest event in them, the rest by when it was written."""
        conflicts: Counter[tuple[str, str, str]] = Counter()
        compensations: Counter[tuple[str, str, str]] = Counter()
        dead: Counter[tuple[str, str, str]] = Counter()
        told: tuple[dict[str, tuple[str, str, str]], ...] = ({}, {})
        home = {name: one.topic for one in self._names for name in (one.conflicts, one.compensations, one.dead_letters)}
        decided, asked = {one.conflicts for one in self._names}, {one.compensations for one in self._names}
        counted = Filter(since_ms=since_ms)
        spans = self._spans(sorted(decided), since_ms) | self._logs.spans(sorted(home.keys() - decided), since_ms)
        for record in self._forwards(spans):
            topic = home[record.topic]
            if record.topic in decided:
                one = self._read(record)
                if one is not None and counted.takes(one):
                    _count_once(conflicts, told[0], one.id, (topic, one.rule, one.outcome))
            elif record.topic in asked:
                asked_for = self._asked_for(record)
                if asked_for is None:
                    compensations[topic, "?", ""] += 1
                else:
                    _count_once(compensations, told[1], asked_for.id, (topic, asked_for.template, ""))
            else:
                reason = dict(record.headers).get(REASON) or b"?"
                dead[topic, legible(reason), ""] += 1
        return Stats(self._here, _counts(conflicts), _counts(compensations), _counts(dead))

    # ---------------------------------------------------------------- reading

    def _spans(self, names: Sequence[str], since_ms: int | None) -> dict[TopicPartition, Span]:
        return self._logs.spans(names, None if since_ms is None else max(0, since_ms - SLACK_MS))

    def _forwards(self, spans: Mapping[TopicPartition, Span]) -> Iterator[Arrived]:
        total, at = sum(span.end - span.begin for span in spans.values()), {tp: span.begin for tp, span in spans.items()}
        for batch in self._logs.read(spans):
            for record in batch:
                at[TopicPartition(record.topic, record.partition)] = Offset(record.offset + 1)
                yield record
            self._progress(sum(at[tp] - span.begin for tp, span in spans.items()), total)

    def _backwards(
        self,
        spans: Mapping[TopicPartition, Span],
        wanted: Callable[[ConflictRecord], bool],
        limit: int,
        enough: Callable[[TopicPartition], bool],
    ) -> Iterator[dict[TopicPartition, dict[str, ConflictRecord]]]:
        """Yield, round by round, the last ``limit`` of what is wanted in a stride of each partition, by id, until it is enough there."""
        told: set[str] = set()
        total = sum(span.end - span.begin for span in spans.values())
        for part in strides(spans, STRIDE_RECORDS, enough):
            kept: dict[TopicPartition, dict[str, ConflictRecord]] = {tp: {} for tp in part}
            now: set[str] = set()
            for batch in self._logs.read(part):
                for record in batch:
                    one = self._read(record)
                    if one is None or one.id in told:
                        continue
                    if len(told) + len(now) < IDS_MAX:
                        now.add(one.id)
                    some = kept[TopicPartition(record.topic, record.partition)]
                    some.pop(one.id, None)
                    if wanted(one):
                        some[one.id] = one
                        if len(some) > limit:
                            del some[next(iter(some))]
            told |= now
            yield kept
            self._progress(total - sum(span.begin - spans[tp].begin for tp, span in part.items() if not enough(tp)), total)

    def _read(self, record: Arrived) -> ConflictRecord | None:
        try:
            one = decode(record.value or b"", ConflictRecord)
        except msgspec.MsgspecError as error:
            self._garbled(record, str(error))
            return None
        if one.winner not in {side.id for side in one.candidates} or not all(_CLOCK.fullmatch(side.hlc) for side in one.candidates):
            self._garbled(record, "its winner is none of its candidates, or a clock is none")
            return None
        return one

    def _asked_for(self, record: Arrived) -> _Asked | None:
        try:
            return decode(record.value or b"", _Asked)
        except msgspec.MsgspecError as error:
            self._garbled(record, str(error))
            return None

    def _garbled(self, record: Arrived, why: str) -> None:
        self._warn(f"{self._here} {record.topic}-{record.partition} at {record.offset} cannot be read and is left out: {why}")


class _Asked(Value, frozen=True):
    """What is read of a compensation."""

    id: str
    template: str


def _latest(one: ConflictRecord) -> tuple[int, str]:
    return one.at_ms, one.id


def _count_once(found: Counter[tuple[str, str, str]], told: dict[str, tuple[str, str, str]], id: str, what: tuple[str, str, str]) -> None:
    """Count what is written under an id, instead of what was written under it before."""
    if id in told:
        found[told.pop(id)] -= 1
    elif len(told) >= IDS_MAX:
        del told[next(iter(told))]
    told[id] = what
    found[what] += 1


def _counts(found: Counter[tuple[str, str, str]]) -> tuple[Count, ...]:
    return tuple(Count(*key, count) for key, count in sorted(found.items()) if count)
