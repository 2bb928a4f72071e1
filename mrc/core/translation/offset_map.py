"""The offset map of one partition and flow: which target offset answers for which source offset, and the other way.

Made of *runs*: ``length`` records from ``source`` on are paired with as many from ``target`` on, each visible and found on both
sides. Between runs lie offsets that hold no record (markers, aborted, compacted) or records that only one side has.
Runs grow in both offsets. Memory: 26 bytes a run; a run is as long as MM2's copy went on without a gap (without
exactly-once a whole stretch of the log, with it one transaction). Beyond `RUNS_MAX` runs the oldest are dropped, and the map
begins later.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import NamedTuple

from mrc.core.model import Offset, Value


class Exact(Value, frozen=True, tag="exact"):
    """The records were found on both sides; nothing is repeated, nothing is skipped."""

    offset: Offset
    evidence: str


class Bounded(Value, frozen=True, tag="bounded"):
    """Nothing is skipped; at most ``repeats_max`` records are read again."""

    offset: Offset
    repeats_max: int
    reason: str


class Unanswerable(Value, frozen=True, tag="unknown"):
    """No answer; ``reason`` is a stable word of `REASONS`."""

    reason: str


Translation = Exact | Bounded | Unanswerable

REASONS = {
    "not-yet-replicated": "records below the position are not copied yet",
    "not-yet-read": "the position lies beyond what has been read of this log",
    "before-map": "the position lies below the first offset that both logs were compared from",
    "never-copied": "the record at the position, and maybe others behind it, was never copied, and the flow has passed it",
    "records-changed": "the flow changes records so that no copy is recognised",
    "no-map": "nothing is known of this partition yet",
}


class Run(NamedTuple):
    """See the module's text.

    ``sure`` is False where a record of the run has a twin nearby and may be the wrong one of the two; ``gap_sure`` is False
    where a record between this run and the one before may have a counterpart: one that could not be told from its twins, or that
    was changed on its way.
    """

    source: int
    target: int
    length: int
    sure: bool = True
    gap_sure: bool = True


class Resent(NamedTuple):
    """Copies that MM2 sent again: of ``records`` records, the first at ``source``; the last copy lies before ``end``."""

    source: int
    end: int
    records: int


class Deleted(NamedTuple):
    """Source records whose copies the target's log does not hold any more: how many, and the source position behind the last."""

    records: int
    end: int


class Hole(NamedTuple):
    """Source records in ``[begin, end)``, ``records`` of them visible, that the flow should have copied and has passed.

    ``gone`` is True where the target's log began later: their copies may have been deleted there.
    """

    begin: int
    end: int
    records: int
    gone: bool = False


HOLES_MAX = 100
"""How many holes are kept; beyond it the two oldest become one."""

RESENT_GAP_MAX = 1_000
"""Copies sent again within so many target offsets are noted as one: the list stays short."""

RESENT_MAX = 1_000
"""How many such notes are kept; beyond it the two oldest become one."""

CHUNK_RUNS = 1_000
"""Runs that are stored, and dropped, together."""

RUNS_MAX = 500 * CHUNK_RUNS
"""13 MB."""


class OffsetMap:
    """Grows at its end only.

    Attributes:
        begin_source, begin_target: the logs were compared from here on; nothing is known below.
        resolved_source: every source record below it is paired, or is known never to have a counterpart.
        resolved_target: the same for the target.
        source_read, target_read: the logs were read up to here (>= resolved).
        tail_sure: no record behind the last pair may have a counterpart that could not be told from its twins.
        resent: what MM2 sent more than once.
        possible: pairs (source, target) that were taken back: the one may be the other's copy all the same.
        anchors: pairs of positions at which a move left a tail behind: whoever is at or past one side is past the other.
        holes: what the flow should have copied and did not.
        complete: every visible source record is copied: no transformation, no compaction. Not stored; holes count only then.
        torn: records of either log may be gone: it is compacted, or had lost its head before the logs were compared. Not stored.
        faithful: copies are known to be made byte for byte. Not stored.
        strays: pairs (source, target): the target record may be a changed copy of any source record up to there.
        own: target records behind the last pair that have no counterpart, or none that could be told.
        passed: source records behind the last pair that are known never to have a counterpart.
        unrecognised: target records that were found to be equal to no source record.
        newest_ms: timestamp of the newest source record below `resolved_source`; -1 where there is none.
        first: number of the first run that is kept; those before it were dropped.
        changed_from: index of the first run that was changed or added since somebody set this (a store does).
    """

    def __init__(self, begin_source: int, begin_target: int, first: int = 0) -> None:
        self.begin_source = begin_source
        self.begin_target = begin_target
        self.resolved_source = begin_source
        self.resolved_target = begin_target
        self.source_read = begin_source
        self.target_read = begin_target
        self.tail_sure = True
        self.resent: list[Resent] = []
        self.possible: list[tuple[int, int]] = []
        self.anchors: tuple[tuple[int, int], ...] = ()
        self.holes: list[Hole] = []
        self.complete = self.torn = False
        self.faithful = True
        self.strays: list[tuple[int, int]] = []
        self.own = self.passed = 0
        self.unrecognised = 0
        self.newest_ms = -1
        self.first = first
        self.changed_from = 0
        self._sources = array("q")
        self._targets = array("q")
        self._lengths = array("q")
        self._sure = array("b")
        self._gap_sure = array("b")

    @property
    def _columns(self) -> tuple[array[int], ...]:
        return self._sources, self._targets, self._lengths, self._sure, self._gap_sure

    # -- growing

    def pair(self, source: int, target: int, *, sure: bool = True, gap_sure: bool = True) -> None:
        """Add a pair behind all others."""
        if self.possible:
            self.possible = [one for one in self.possible if one[0] != source]  # here is a later copy of it
        if self._sources and gap_sure:
            length = self._lengths[-1]
            if self._sources[-1] + length == source and self._targets[-1] + length == target and self._sure[-1] == sure:
                self._lengths[-1] = length + 1
                self._changed(len(self) - 1)
                return
        self.add(Run(source, target, 1, sure, gap_sure))

    def add(self, run: Run) -> None:
        """Add a run behind all others."""
        self._changed(len(self))
        for column, value in zip(self._columns, run, strict=True):
            column.append(value)
        if len(self) > RUNS_MAX:
            self._drop(RUNS_MAX // 10)

    def _changed(self, index: int) -> None:
        self.changed_from = min(self.changed_from, index)

    def _drop(self, runs: int) -> None:
        """Forget the oldest runs, whole chunks of them."""
        for column in self._columns:
            del column[:runs]
        self.first += runs
        self.changed_from = max(0, self.changed_from - runs)
        self.begin_source, self.begin_target = self._sources[0], self._targets[0]

    def confirm(self) -> None:
        """Say that the last run, so far not sure, is sure."""
        self._sure[-1] = True
        self._changed(len(self) - 1)

    def revoke(self) -> None:
        """Take the last run, of one pair, back."""
        self.suspect(self._sources[-1], self._targets[-1])
        for column in self._columns:
            column.pop()
        self._changed(len(self))

    def suspect(self, source: int, target: int) -> None:
        """Note that the target record may be a copy of the source record: no answer may lie between them."""
        _note(self.possible, source, target)

    def stray(self, source: int, target: int) -> None:
        """Note that the target record may be a changed copy of any source record up to ``source``."""
        _note(self.strays, source, target)

    def doubt(self, source: int) -> None:
        """Say that the pair of this source record, if it has one, is not sure: a twin of the record was seen later."""
        at = bisect_right(self._sources, source) - 1
        if at < 0 or source >= self._sources[at] + self._lengths[at] or not self._sure[at]:
            return
        run = self.runs(at, at + 1)[0]
        ahead = source - run.source
        parts = [Run(run.source, run.target, ahead, gap_sure=run.gap_sure)] if ahead else []
        parts.append(Run(source, run.target + ahead, 1, sure=False, gap_sure=run.gap_sure or bool(ahead)))
        if ahead + 1 < run.length:
            parts.append(Run(source + 1, run.target + ahead + 1, run.length - ahead - 1))
        for column, values in zip(self._columns, zip(*parts, strict=True), strict=True):
            column[at : at + 1] = array(column.typecode, values)
        self._changed(at)

    def resend(self, source: int, target: int) -> None:
        """Note that MM2 has sent a record again that stood at ``source``: a later copy of it stands at ``target``."""
        if self.resent and target <= self.resent[-1].end + RESENT_GAP_MAX:
            last = self.resent[-1]
            self.resent[-1] = Resent(min(last.source, source), target + 1, last.records + 1)
        else:
            self.resent.append(Resent(source, target + 1, 1))
        if len(self.resent) > RESENT_MAX:
            one, other = self.resent[:2]
            self.resent[:2] = [Resent(min(one.source, other.source), other.end, one.records + other.records)]

    def note_hole(self, hole: Hole) -> None:
        """Note records that were passed."""
        self.holes.append(hole)
        if len(self.holes) > HOLES_MAX:
            one, other = self.holes[:2]
            self.holes[:2] = [Hole(one.begin, other.end, one.records + other.records, one.gone and other.gone)]

    def fill_hole(self, source: int, following: int) -> None:
        """Note that a copy of a passed record has come after all; only the first of a hole counts: copies come in order."""
        for at, hole in enumerate(self.holes):
            if hole.begin == source:
                rest = Hole(following, hole.end, hole.records - 1, hole.gone)
                self.holes[at : at + 1] = [rest] if rest.records > 0 and rest.begin < rest.end else []
                return

    @property
    def lacking(self) -> list[Hole]:
        """Return the holes that cannot be explained."""
        return [hole for hole in self.holes if not hole.gone] if self.complete else []

    def resume_at(self, source: int, target: int) -> None:
        """Set how far both logs are compared, after the runs of a stored map were added."""
        self.resolved_source = self.source_read = source
        self.resolved_target = self.target_read = target

    def runs(self, begin: int = 0, end: int | None = None) -> list[Run]:
        """Return the runs with index ``begin`` to ``end``, in order."""
        columns = (column[begin:end] for column in self._columns)
        return [Run(s, t, n, bool(sure), bool(gap)) for s, t, n, sure, gap in zip(*columns, strict=True)]

    def __len__(self) -> int:
        return len(self._sources)

    @property
    def last(self) -> tuple[int, int] | None:
        """The last pair; None where there is none."""
        if not self._sources:
            return None
        ahead = self._lengths[-1] - 1
        return self._sources[-1] + ahead, self._targets[-1] + ahead

    # -- answering

    def deleted(self, committed: int, target_start: int) -> Deleted:
        """Return what a group at a source position would skip in a target whose log starts at ``target_start``: at most so many records.

        Where the target's log began later before the logs were compared, copies that were deleted cannot be told from those never made.
        """
        records, end = 0, committed
        for at in range(max(0, bisect_right(self._sources, committed) - 1), len(self)):
            source, target, length = self._sources[at], self._targets[at], self._lengths[at]
            if target >= target_start:
                break
            gone_to = source + min(length, target_start - target)
            if gone_to > committed:
                records += gone_to - max(source, committed)
                end = gone_to
        for hole in self.holes if self.complete else ():
            if hole.gone and hole.end > committed:
                records += min(hole.records, hole.end - committed)
                end = max(end, hole.end)
        return Deleted(records, end)

    def deleted_originals(self, committed: int, source_start: int) -> Deleted:
        """Return what a group at a position in the copies would skip among the originals, whose log starts at ``source_start``."""
        records, end = 0, committed
        for at in range(max(0, bisect_right(self._targets, committed) - 1), len(self)):
            source, target, length = self._sources[at], self._targets[at], self._lengths[at]
            if source >= source_start:
                break
            gone_to = target + min(length, source_start - source)
            if gone_to > committed:
                records += gone_to - max(target, committed)
                end = gone_to
        return Deleted(records, end)

    def to_target(self, committed: int, *, final: bool = False) -> Translation:
        """Translate a source position (next record to read) into the target.

        Args:
            final: the flow has ended for good: what is not copied now never will be.
        """
        if committed < self.begin_source:
            return Unanswerable("before-map")
        if committed > self.resolved_source:
            return self._beyond(committed) if final else Unanswerable("not-yet-replicated")
        if self.complete and not final:
            for hole in self.holes:
                if hole.begin <= committed < hole.end:
                    return Unanswerable("before-map" if hole.gone else "never-copied")
        answer = self._answer(committed, self._sources, self._targets, self.begin_target, self.target_read, 0)
        answer = _no_later(answer, min((t for s, t in (*self.possible, *self.strays) if s >= committed), default=None), "identical-records")
        return self._seen_again(committed, answer)

    def _seen_again(self, committed: int, answer: Translation) -> Translation:
        """Bound an answer behind which copies lie that MM2 sent again of records below the position."""
        if isinstance(answer, Unanswerable):
            return answer
        undecided = self.target_read - self.resolved_target
        if isinstance(answer, Bounded):
            answer = Bounded(answer.offset, answer.repeats_max + undecided, answer.reason)
        again = sum(r.records for r in self.resent if r.source < committed and r.end > answer.offset)
        if not again:
            return answer
        if isinstance(answer, Bounded):
            return Bounded(answer.offset, answer.repeats_max + again, answer.reason)
        return Bounded(answer.offset, again + undecided, "sent-again")

    def to_source(self, committed: int) -> Translation:
        """Translate a target position into the source."""
        if committed < self.begin_target:
            return Unanswerable("before-map")
        if committed > self.resolved_target:
            return Unanswerable("not-yet-read")
        answer = self._answer(committed, self._targets, self._sources, self.begin_source, self.source_read, 1)
        # The group may still meet a copy of these records; nobody knows whether it has met another one.
        resent = min((r.source for r in self.resent if r.end > committed), default=None)
        answer = _no_later(answer, resent, "sent-again")
        return _no_later(answer, min((s for s, t in self.possible if t >= committed), default=None), "identical-records")

    def _answer(self, committed: int, ours: array[int], theirs: array[int], begin: int, end: int, side: int) -> Translation:
        """Find the first pair at or after ``committed``; its counterpart is the answer, else the place behind the last pair."""
        at = bisect_right(ours, committed) - 1
        if at < 0 or committed >= ours[at] + self._lengths[at]:
            at += 1
        if at < len(ours):
            ahead = max(0, committed - ours[at])
            if self._sure[at] and (self._gap_sure[at] or committed >= ours[at]):
                return Exact(Offset(theirs[at] + ahead), "the record was found on both sides")
            return self._floor(at, theirs, begin, end)
        behind = theirs[-1] + self._lengths[-1] if theirs else begin
        behind = max([behind, *(anchor[1 - side] for anchor in self.anchors if anchor[side] <= committed)])
        if (theirs and not self._sure[-1]) or not self.tail_sure:
            return self._floor(at, theirs, begin, max(behind, end))
        if self.own and (self.passed or (side == 1 and self.resolved_source < self.source_read)):
            # Records without a counterpart on both sides: those of the target may be changed copies of those of the source.
            return _bounded(behind, end - behind)
        return Exact(Offset(behind), "behind the last record found on both sides" if theirs else "no record was replicated yet")

    def _floor(self, at: int, theirs: array[int], begin: int, end: int) -> Translation:
        """Go back behind the last sure pair: whichever twins belong together, everything unread lies after it.

        What may repeat reaches to the next sure pair, or to the end of what was read.
        """
        before = at
        while before > 0 and not self._sure[before - 1]:
            before -= 1
        floor = theirs[before - 1] + self._lengths[before - 1] if before > 0 else begin
        after = at
        while after < len(theirs) and not self._sure[after]:
            after += 1
        reach = theirs[after] if after < len(theirs) else end
        return _bounded(floor, reach - floor)

    def _beyond(self, committed: int) -> Translation:
        """The flow has ended: the position lies beyond what was copied, or beyond what was read of a dead source."""
        behind = self.to_target(self.resolved_source)
        if isinstance(behind, Exact) and self.target_read > self.resolved_target and committed > self.source_read:
            # The target holds copies of records that were never read in the source: some may lie below the position.
            return Bounded(behind.offset, max(0, self.target_read - behind.offset), "source-not-read-to-the-position")
        if self.own and not isinstance(behind, Unanswerable):
            # They may be changed copies of records between what was copied and the position.
            return Bounded(behind.offset, self.own + (behind.repeats_max if isinstance(behind, Bounded) else 0), "identical-records")
        return behind


def _note(pairs: list[tuple[int, int]], source: int, target: int) -> None:
    pairs.append((source, target))
    if len(pairs) > RESENT_MAX:
        (s, t), (source, target) = pairs[:2]
        pairs[:2] = [(max(s, source), min(t, target))]


def _bounded(offset: int, repeats_max: int) -> Translation:
    if repeats_max <= 0:
        return Exact(Offset(offset), "no record lies between")
    return Bounded(Offset(offset), repeats_max, "identical-records")


def _no_later(answer: Translation, limit: int | None, reason: str) -> Translation:
    """Return an answer that is not beyond ``limit``."""
    if limit is None or isinstance(answer, Unanswerable) or limit >= answer.offset:
        return answer
    more = answer.repeats_max if isinstance(answer, Bounded) else 0
    return Bounded(Offset(limit), answer.offset - limit + more, reason)
