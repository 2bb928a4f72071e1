"""Random two-region histories with the truth about which record is a copy of which, and a judge of translations.

Imports nothing of mrc: it knows records by their identity, never by their fingerprint.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Written:
    """A visible record: its offset, its identity (copies share it) and what a reader can see of it."""

    offset: int
    identity: int
    face: int


@dataclass
class Log:
    """One partition's log; offsets without a record are markers or aborted ones."""

    end: int = 0
    records: list[Written] = field(default_factory=list)

    def append(self, identity: int, face: int) -> Written:
        record = Written(self.end, identity, face)
        self.records.append(record)
        self.end += 1
        return record

    def marker(self) -> None:
        self.end += 1


@dataclass
class History:
    """Two logs, the source of the present flow first.

    Attributes:
        begin: from where the present flow copies.
        anchors: ends of both logs at each move.
        filtered, twins, replays: whether the flow leaves some records out, some look the same, some may be copied again.
        early: the same two logs before anything was compacted; a translator may have read any part of them.
        starts: where both logs began when the translator began to read.
        foreign: whether somebody else writes into the targets.
        left: whether some move left a tail behind.
        changed: whether some copies were changed on their way.
        taken: identities of what the target's head held before it was taken.
    """

    source: Log
    target: Log
    begin: int
    anchors: list[tuple[int, int]]
    filtered: bool
    twins: bool
    replays: bool
    early: tuple[Log, Log]
    starts: tuple[int, int]
    foreign: bool
    left: bool
    changed: bool
    taken: frozenset[int]

    @property
    def torn(self) -> bool:
        """Whether both logs hold records that the other lacks."""
        here, there = ({record.identity for record in log.records} for log in (self.source, self.target))
        return bool(here - there) and bool(there - here)

    @property
    def gone(self) -> bool:
        """Whether records are gone that copies of, or twins, may still be there."""
        return self.starts != (0, 0) or (self.source, self.target) != self.early


@dataclass
class World:
    """What a history is made with; each trait is there in some histories only."""

    rng: random.Random
    exactly_once: bool
    twins: float
    foreign: bool
    filters: bool
    changes: int
    identity: int = 0

    def write(self, log: Log, stretch: int) -> None:
        """A record of its own, or one that looks like others: timestamps included, so only records of one time do."""
        face = self.identity
        if self.rng.random() < self.twins:
            face = 1_000_000 + 10 * stretch + self.rng.choice((1, 2))
        log.append(self.identity, face)
        self.identity += 1

    def passes(self, face: int) -> bool:
        """Whether the flow copies the record: by what it looks like, one and the same answer each time."""
        return not self.filters or face % 5 != 3

    def carried(self, record: Written) -> int:
        """Return what the record's copy looks like: of every so-manieth one not as the record does."""
        changes = self.changes if self.twins == 0 else 0  # a changed record that looks like another one cannot be told from it
        return 5_000_000 + record.identity if changes and record.identity % changes == 1 else record.face


def history(seed: int) -> History:
    """Return a random history: stretches of moves there and back, tails left behind, markers, replays, twins, foreign writers,
    filtered records, copies that were changed, compaction, logs whose heads are gone.
    """
    rng = random.Random(seed)
    world = World(
        rng,
        exactly_once=rng.random() < 0.4,
        twins=rng.choice((0.0, 0.0, 0.3, 0.8)),
        foreign=rng.random() < 0.2,
        filters=rng.random() < 0.2,
        changes=random.Random(f"changes {seed}").choice((0, 0, 0, 0, 3, 7, 15)),
    )
    here, there = Log(), Log()
    copied = begin = 0
    anchors: list[tuple[int, int]] = []
    left = False
    for stretch in range(rng.choice((1, 1, 2, 3, 4))):
        if stretch:
            # A move: planned ones copy everything first, unplanned ones leave a tail behind.
            if rng.random() < 0.6:
                copied = _copy(world, here, there, copied, here.end, replays=False)
            else:
                left = True
            here, there = there, here
            anchors = [(t, s) for s, t in anchors] + [(here.end, there.end)]
            copied = begin = here.end
        for _ in range(rng.randrange(0, 12)):
            for _ in range(rng.randrange(0, 6)):
                world.write(here, stretch)
            if rng.random() < 0.3:
                here.marker()
            if world.foreign and rng.random() < 0.2:
                there.append(world.identity, world.identity)
                world.identity += 1
            if rng.random() < 0.8:
                upto = rng.randrange(copied, here.end + 1)
                copied = _copy(world, here, there, copied, upto, replays=not world.exactly_once, begin=begin)
    early = (Log(here.end, list(here.records)), Log(there.end, list(there.records)))
    for log in (here, there):
        if rng.random() < 0.2:
            _compact(rng, log)
    starts = (rng.randrange(0, here.end + 1), rng.randrange(0, there.end + 1)) if rng.random() < 0.15 else (0, 0)
    taken = frozenset(record.identity for record in early[1].records if record.offset < starts[1])
    for log, start in zip((here, there, *early), starts * 2, strict=True):
        log.records = [record for record in log.records if record.offset >= start]
    return History(
        here,
        there,
        begin,
        anchors,
        world.filters,
        world.twins > 0,
        not world.exactly_once,
        early,
        starts,
        world.foreign,
        left,
        world.changes > 0 and world.twins == 0,
        taken,
    )


def _compact(rng: random.Random, log: Log) -> None:
    """Keep the last record per key below a point; records that look the same have the same key."""
    keys = rng.choice((2, 3, 7))
    point = rng.randrange(0, log.end + 1)
    last = {record.face % keys: record.offset for record in log.records}
    log.records = [record for record in log.records if record.offset >= point or last[record.face % keys] == record.offset]


def _copy(world: World, source: Log, target: Log, position: int, upto: int, *, replays: bool, begin: int = 0) -> int:
    """Copy source records of [position, upto) in order; return the flow's position.

    A restart without exactly-once begins again at an earlier position, sometimes at the flow's first one, and may stop
    anywhere, before it has caught up too.
    """
    rng = world.rng
    if replays and rng.random() < 0.25:
        position = begin if rng.random() < 0.1 else max(begin, position - rng.randrange(0, 8))
        upto = rng.randrange(position, upto + 1) if rng.random() < 0.5 else upto
    for record in source.records:
        if position <= record.offset < upto and world.passes(record.face):
            target.append(record.identity, world.carried(record))
    if world.exactly_once and upto > position:
        target.marker()
    return max(position, upto)


def judge(past: History, committed: int, answer: int, seen: int, *, back: bool = False) -> tuple[int, int]:
    """Return (skipped, repeated) of a group that had read one log up to ``committed`` and goes on in the other at ``answer``.

    Skipped: unread records of the one that have a copy in the other, all copies of which lie before the answer.
    Repeated: records of the other from the answer on, below ``seen`` (what the translator has read), up to the first unread one,
    that the group has read and its log still holds. For what is skipped, a position says that everything below it is dealt with,
    what compaction took away since too.

    Where a log's head is gone nobody can know that a record there looked like one that is left: a record that is the same in
    all that can be seen, timestamp included, then counts as read with the one that was.

    Args:
        back: from the target to the source.
    """
    ours, theirs, early = (past.target, past.source, past.early[1]) if back else (past.source, past.target, past.early[0])
    done = [r for r in (*ours.records, *early.records) if r.offset < committed]
    read = {r.identity for r in done}
    faces = {r.face for r in done} if past.gone else set()
    last_copy = {record.identity: record.offset for record in theirs.records}
    unread = {r.identity for r in ours.records if r.offset >= committed and r.face not in faces} - read
    skipped = sum(1 for identity in unread if last_copy.get(identity, answer) < answer)
    held = {r.identity for r in ours.records if r.offset < committed}
    repeated = 0
    for record in theirs.records:
        if answer <= record.offset < seen:
            if record.identity not in held:
                break
            repeated += 1
    return skipped, repeated
