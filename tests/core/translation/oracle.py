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
    """Two logs, the source of the present flow first. ``copied`` is how far the flow has come in the source (next offset)."""

    source: Log
    target: Log
    copied: int
    begin: int
    anchors: list[tuple[int, int]]


def history(seed: int) -> History:
    """Return a random history: stretches of moves there and back, tails left behind, markers, replays, twins, foreign writers."""
    rng = random.Random(seed)
    here, there = Log(), Log()
    identity = 0
    copied = begin = 0
    anchors: list[tuple[int, int]] = []
    exactly_once = rng.random() < 0.4
    # Twins: records that look the same, timestamps included. Two regions' own records never do.
    twins = rng.random() < 0.3
    foreign = rng.random() < 0.2
    for stretch in range(rng.choice((1, 1, 2, 3, 4))):
        if stretch:
            # A move: planned ones copy everything first, unplanned ones leave a tail behind.
            if rng.random() < 0.6:
                copied = _copy(rng, here, there, copied, here.end, exactly_once=exactly_once, replays=False)
            here, there = there, here
            anchors = [(t, s) for s, t in anchors] + [(here.end, there.end)]
            copied = begin = here.end
        for _ in range(rng.randrange(0, 12)):
            for _ in range(rng.randrange(0, 6)):
                face = identity if not twins or rng.random() < 0.7 else 1_000_000 + 10 * stretch + rng.choice((1, 2))
                here.append(identity, face)
                identity += 1
            if rng.random() < 0.3:
                here.marker()
            if foreign and rng.random() < 0.2:
                there.append(identity, identity)
                identity += 1
            if rng.random() < 0.8:
                upto = rng.randrange(copied, here.end + 1)
                copied = _copy(rng, here, there, copied, upto, exactly_once=exactly_once, replays=not exactly_once, begin=begin)
    return History(here, there, copied, begin, anchors)


def _copy(
    rng: random.Random, source: Log, target: Log, position: int, upto: int, *, exactly_once: bool, replays: bool, begin: int = 0
) -> int:
    """Copy source records of [position, upto) in order; return the flow's position.

    A restart without exactly-once begins again at an earlier position, and may stop anywhere, before it has caught up too.
    """
    if replays and rng.random() < 0.25:
        position = max(begin, position - rng.randrange(0, 8))
        upto = rng.randrange(position, upto + 1) if rng.random() < 0.5 else upto
    for record in source.records:
        if position <= record.offset < upto:
            target.append(record.identity, record.face)
    if exactly_once and upto > position:
        target.marker()
    return max(position, upto)


def judge(ours: Log, theirs: Log, committed: int, answer: int, seen: int) -> tuple[int, int]:
    """Return (skipped, repeated) of a group that had read ``ours`` up to ``committed`` and goes on in ``theirs`` at ``answer``.

    Skipped: unread records of ours that have a copy in theirs, all copies of which lie before the answer.
    Repeated: records of theirs from the answer on, below ``seen`` (what the translator has read), up to the first unread one,
    that the group has read.
    """
    read = {r.identity for r in ours.records if r.offset < committed}
    last_copy = {record.identity: record.offset for record in theirs.records}
    unread = {r.identity for r in ours.records if r.offset >= committed} - read
    skipped = sum(1 for identity in unread if last_copy.get(identity, answer) < answer)
    repeated = 0
    for record in theirs.records:
        if answer <= record.offset < seen:
            if record.identity not in read:
                break
            repeated += 1
    return skipped, repeated
