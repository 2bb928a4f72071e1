"""Pairs the records of a source partition with those of its mirror, reading both logs side by side.

Theory of operation. MM2 copies a partition's records in order. Target records are taken one after another:

1. equal to the next unpaired source record: a pair;
2. equal to a later one: a pair, and the source records in between have no counterpart (they were left behind by an earlier
   move, or MM2 did not copy them, or their copies were compacted away). Such a *jump* is not sure at first: the record may be
   the copy of a twin that is gone from the source. Since copies stand in order, the next target record that is found further
   ahead proves it, and one that equals a passed record disproves it: then the pair is taken back;
3. equal to an earlier, already paired one: MM2 sends again what it sent before (a restart without exactly-once). The first
   copies stand, for every record follows them; who goes on before the later copies is told how many it may see again;
4. equal to none: a record of the target's own; or a copy that was changed on its way, where source records are left over
   beside it: then no answer may lie between the two.

Rules 3 and 4 wait until the source has been read beyond the end that it had *after* the target record was read, for the
target's reader may be ahead of the source's. The same rules align logs of moves there and back (copied, left behind, come
back), whichever side is the source now.

A record whose fingerprint occurs more than once in the window has *twins*: it is paired in order (rule 1) but not *sure*, and
by rule 2 not at all; a pair whose twin is seen only later is not sure from then on. Answers that would rest on such a pair
fall back to the last sure one. Nothing is guessed forward.

Where records of either log may be gone (`OffsetMap.torn`), order proves less: the copies that stand need not be the first ones, so what
MM2 sent again cannot be told by what stands before it. A record that is paired while it has an earlier twin may be that one's, sent
again. And a record that equals none may be the changed copy of any source record of its time that is not paired, later ones too; where
copies are made byte for byte (`OffsetMap.faithful`) only of one without a timestamp, for its copy gets one.

Memory: about 150 bytes for each source record in the window, which holds `HISTORY` paired and at most `AHEAD` unpaired source
records (`AHEAD_STUCK` while rules 3 and 4 wait; beyond it the window slides), and 8 bytes for each of `FORGOTTEN` older ones,
however long the logs are.
What MM2 sends again from before those is told by its timestamp, and bounded rather than exact.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from mrc.core.model import Seen
from mrc.core.translation.offset_map import Hole, OffsetMap

HISTORY = 20_000
AHEAD = 50_000
AHEAD_STUCK = 500_000
FORGOTTEN = 20 * HISTORY
ORIGINALS_MAX = 100
"""So many source records that a target record may be a changed copy of are noted one by one; of more, the last one for all."""


class _Past(NamedTuple):
    """Fingerprints of `HISTORY` source records that have left the window, sorted; ``first`` is the first one's offset."""

    fingerprints: array[int]
    first: int


class _Jump(NamedTuple):
    """A pair of rule 2 that is neither proved nor disproved: the records at ``[passed, at)`` of the window were passed for it.

    ``own`` is how many records of the target's own stand between it and the pair before.
    """

    passed: int
    at: int
    tail_sure: bool
    own: int


class Aligner:
    """One partition of one flow. Feed both logs in offset order, in any interleaving.

    Args:
        stamped: whether a copy carries its record's timestamp; where not, timestamps tell nothing about age.
    """

    def __init__(self, offset_map: OffsetMap, *, stamped: bool = True) -> None:
        self.map = offset_map
        self.source_position = offset_map.resolved_source
        self.target_position = offset_map.resolved_target
        self._stamped = stamped
        # The window of source records: columns, of which [0, cursor) are paired or passed and [cursor, end) are pending.
        self._offsets = array("q")
        self._fingerprints = array("Q")
        self._timestamps = array("q")
        self._cursor = 0
        # Fingerprint -> number of its first record in the window, counted from the first record ever taken; and how many there are,
        # where there are several.
        self._first: dict[int, int] = {}
        self._twins: dict[int, int] = {}
        self._forgotten = 0
        # Timestamp -> numbers of its first and its last record in the window; kept where `_note_stray` needs it.
        self._of_time: dict[int, tuple[int, int]] = {}
        self._targets: deque[Seen] = deque()
        # How many of the pending target records were read before the last known source end was asked for.
        self._decidable = 0
        self._source_end = -1
        self._flow_begin = 0
        self._sending_again = False
        self._jump: _Jump | None = None
        self._past: deque[_Past] = deque()
        # Source records that are not even in the past: nothing is known of them but that they were not newer than this.
        self._lost_ms = offset_map.newest_ms
        self._map_progress()

    # -- what the driver asks

    @property
    def pending_source(self) -> int:
        """Source records that were read and have no counterpart yet."""
        return len(self._offsets) - self._cursor

    @property
    def oldest_pending_ms(self) -> int | None:
        """Timestamp of the first of them."""
        return self._timestamps[self._cursor] if self.pending_source else None

    @property
    def stuck(self) -> bool:
        """The next target record waits for `note_source_end`, or for more of the source."""
        return bool(self._targets)

    @property
    def wants_source(self) -> bool:
        """Whether the source's reader should go on."""
        return self.pending_source < (AHEAD_STUCK if self.stuck else AHEAD)

    @property
    def wants_target(self) -> bool:
        """Whether the target's reader should go on."""
        return len(self._targets) < AHEAD

    # -- feeding

    def feed_source(self, records: Iterable[Seen], position: int) -> None:
        """Take source records; everything below ``position`` has been seen."""
        number = self._forgotten + len(self._offsets)
        timed = self.map.torn and self._stamped
        for record in records:
            fingerprint = record.fingerprint
            if timed and (record.timestamp_ms < 0 or not self.map.faithful):
                self._of_time[record.timestamp_ms] = (self._of_time.get(record.timestamp_ms, (number,))[0], number)
            if self._first.setdefault(fingerprint, number) != number:
                twins = self._twins.get(fingerprint, 1)
                if twins == 1:
                    self._twin_seen_later(fingerprint)
                self._twins[fingerprint] = twins + 1
            number += 1
            self._offsets.append(record.offset)
            self._fingerprints.append(fingerprint)
            self._timestamps.append(record.timestamp_ms)
        self.source_position = max(self.source_position, position)
        self._match()
        if self._targets and self.pending_source >= AHEAD_STUCK:
            self._slide()

    def feed_target(self, records: Iterable[Seen], position: int) -> None:
        """Take target records; everything below ``position`` has been seen."""
        self._targets.extend(records)
        self.target_position = max(self.target_position, position)
        self._match()

    def note_source_end(self, end: int) -> None:
        """Say the source's end, asked for after all target records fed so far had been read."""
        self._source_end = end
        self._decidable = len(self._targets)
        self._match()

    def note_flow_begin(self, begin: int) -> None:
        """Say from where the running flow copies: a jump to there needs no further proof, and what lies below is no hole.

        But for what the target may have deleted: whatever lies below the beginning came from there.
        """
        self._flow_begin = begin
        if self.map.holes and self.map.holes[0].begin < begin:
            self.map.holes = [hole for hole in self.map.holes if hole.end > begin or hole.gone]

    def pass_left_behind(self) -> None:
        """Say that the target has been read to its end since the flow runs.

        Unpaired source records below the flow's beginning have no counterpart and never will.
        """
        if self._targets:
            return
        began = self._cursor
        while self._cursor < len(self._offsets) and self._offsets[self._cursor] < self._flow_begin:
            self._cursor += 1
            self.map.passed += 1
        if not len(self.map):
            self._passed(began, self._cursor, 0, leading=True)
        self._trim()
        self._map_progress()

    # -- inside

    def _match(self) -> None:
        targets, fingerprints, offsets = self._targets, self._fingerprints, self._offsets
        while targets:
            record = targets[0]
            fingerprint = record.fingerprint
            twins = self._count(fingerprint)
            if self._cursor < len(offsets) and fingerprints[self._cursor] == fingerprint:
                self._pair_next(record, sure=twins == 1)
            elif not (twins == 1 and self._found_elsewhere(record)):
                if not self._decidable or self.source_position < self._source_end:
                    break  # its counterpart, or a twin of it, may be among the source records that were not read yet
                self._sent_again_or_own(record, twins)
            targets.popleft()
            if self._decidable:
                self._decidable -= 1
        self._trim()
        self._map_progress()

    def _count(self, fingerprint: int) -> int:
        """Return how many records of the window have this fingerprint."""
        return self._twins.get(fingerprint, 1) if fingerprint in self._first else 0

    def _find(self, fingerprint: int) -> int:
        """Return the place in the window of the first record with this fingerprint, which is there."""
        return self._first[fingerprint] - self._forgotten

    def _pair_next(self, record: Seen, *, sure: bool) -> None:
        """Rule 1."""
        if self._jump is not None:
            self._settle_jump(sure=sure)
        self._pair_at(self._cursor, record, sure=sure)

    def _settle_jump(self, *, sure: bool) -> None:
        """A later record was found behind the jump: what it passed is passed for good."""
        jump, self._jump = self._jump, None
        if jump is None:
            return
        if sure:
            self.map.confirm()
        self._passed(jump.passed, jump.at, jump.own, leading=len(self.map) == 1)

    def _passed(self, begin: int, end: int, own: int, *, leading: bool) -> None:
        """Note the hole that passing ``[begin, end)`` of the window leaves; ``own`` target records may be changed copies of some."""
        if not self.map.complete:
            return
        gone = leading and self.map.begin_target > 0
        if not gone:
            begin = bisect_left(self._offsets, self._flow_begin, begin, end)
        alone = sum(fingerprint not in self._twins for fingerprint in self._fingerprints[begin:end]) if self._twins else end - begin
        if alone > own:
            self.map.note_hole(Hole(self._offsets[begin], self._offsets[end - 1] + 1, alone - own, gone))

    def _pair_at(self, at: int, record: Seen, *, sure: bool) -> None:
        if self.map.torn and record.fingerprint in self._twins and (first := self._find(record.fingerprint)) < at:
            self.map.resend(self._offsets[first], record.offset)
        # Where records without a counterpart are left on both sides, one may be the changed copy of the other.
        alike = not (self.map.own and (at > self._cursor or self.map.passed))
        self.map.pair(self._offsets[at], record.offset, sure=sure, gap_sure=self.map.tail_sure and alike)
        self.map.tail_sure = True
        self._cursor = at + 1
        self.map.own = self.map.passed = 0
        self._sending_again = False

    def _found_elsewhere(self, record: Seen) -> bool:
        """Rule 2 for a record without twins: pair it with the source record ahead; return whether it was there.

        Where the record equals one that the last jump passed, that jump was wrong: it is taken back first.
        """
        at = self._find(record.fingerprint)
        jump = self._jump
        if jump is not None and jump.passed <= at < jump.at:
            self.map.revoke()
            self.map.tail_sure = self.map.tail_sure and jump.tail_sure
            self._cursor, self._jump = jump.passed, None
            self.map.own += jump.own + 1  # with the record that was taken for a copy
            # There is one more copy than pairs will tell of: as with twins, no answer may rest on this record.
            passed = self._fingerprints[jump.at]
            self._twins[passed] = self._count(passed) + 1
        elif at < self._cursor:
            return False
        elif jump is not None:
            self._settle_jump(sure=True)
        if at == self._cursor:
            self._pair_at(at, record, sure=True)
            return True
        passed, tail_sure, own, leading = self._cursor, self.map.tail_sure, self.map.own, self.map.last is None
        if self._twins and any(skipped in self._twins for skipped in self._fingerprints[passed:at]):
            self.map.tail_sure = False  # a passed record may be the one that a twin of it was paired for
        proved = self._lands_on_a_beginning(at, record.offset)
        self._pair_at(at, record, sure=proved)
        if proved:
            self._passed(passed, at, own, leading=leading)
        else:
            self._jump = _Jump(passed, at, tail_sure, own)
        return True

    def _lands_on_a_beginning(self, at: int, target: int) -> bool:
        """Whether a jump to this source record passes just what an earlier move left behind."""
        low, high = self._offsets[at - 1], self._offsets[at]
        last = self.map.last
        behind = last[1] if last else -1
        return low < self._flow_begin <= high or any(low < s <= high and behind < t <= target for s, t in self.map.anchors)

    def _twin_seen_later(self, fingerprint: int) -> None:
        at = self._find(fingerprint)
        self.map.doubt(self._offsets[at])
        if self._jump is not None and self._jump.at == at:
            self._jump = None  # nothing can prove it any more

    def _sent_again_or_own(self, record: Seen, twins: int) -> None:
        """Rules 3 and 4; with several twins it may also be the counterpart of any of them."""
        if twins:
            self._sending_again = True
            if twins > 1:
                self.map.own += 1  # whichever of them it is a copy of, that one is not missing
                self.map.tail_sure = False
                last = len(self._fingerprints) - 1 - self._fingerprints[::-1].index(record.fingerprint)
                self.map.suspect(self._offsets[last], record.offset)
            at = self._find(record.fingerprint)
            self.map.resend(self._offsets[at], record.offset)
            if twins == 1:
                self.map.fill_hole(self._offsets[at], self._offsets[at + 1] if at + 1 < len(self._offsets) else self.source_position)
            return
        for past in self._past:
            found = bisect_left(past.fingerprints, record.fingerprint)
            if found < len(past.fingerprints) and past.fingerprints[found] == record.fingerprint:
                self._sending_again = True
                self.map.resend(past.first, record.offset)
                return
        self.map.unrecognised += 1
        self.map.own += 1
        if self.map.torn:
            self._note_stray(record)
        if self._sending_again:
            # Amid copies that are sent again: it may be one, of a record whose copies are changed.
            self.map.resend(self.map.resent[-1].source, record.offset)
        if self._lost_ms >= 0 and (record.timestamp_ms <= self._lost_ms or not self._stamped):
            self.map.resend(self.map.begin_source, record.offset)

    def _note_stray(self, record: Seen) -> None:
        """Note which unpaired source records a record may be the changed copy of: those of its time, where copies keep it."""
        begin = self._cursor if self._jump is None else self._jump.passed
        unpaired: Sequence[int] = range(begin, len(self._offsets))
        if self._stamped:
            times = {-1} if self.map.faithful else {-1, record.timestamp_ms}
            unpaired = sorted(at for time_ms in times for at in self._of(time_ms, begin))
        elif self.map.faithful:
            return
        if len(unpaired) > ORIGINALS_MAX:
            self.map.stray(self._offsets[unpaired[-1]], record.offset)
            return
        for at in unpaired:
            self.map.suspect(self._offsets[at], record.offset)

    def _of(self, time_ms: int, begin: int) -> Iterator[int]:
        """Yield the places of the records of a time, from ``begin`` on."""
        first, last = self._of_time.get(time_ms, (0, -1))
        for at in range(max(begin, first - self._forgotten), last - self._forgotten + 1):
            if self._timestamps[at] == time_ms:
                yield at

    def _slide(self) -> None:
        """The next target record is not among the next `AHEAD_STUCK` source records: pass the older half of them.

        Where replication began late, or the target's log did, its counterpart is still to come. Where the record is the target's
        own, the copies of what is passed are taken for copies that were sent again: bounded, not exact.
        """
        self._settle_jump(sure=False)
        self._passed(self._cursor, self._cursor + AHEAD_STUCK // 2, self.map.own, leading=self.map.last is None)
        self._cursor += AHEAD_STUCK // 2
        self.map.passed += AHEAD_STUCK // 2
        self.map.suspect(self._offsets[self._cursor - 1], self._targets[0].offset)
        self._trim()
        self._map_progress()

    def _trim(self) -> None:
        """Let history beyond `HISTORY` go, in large steps; never what a jump passed."""
        while (self._cursor if self._jump is None else self._jump.passed) >= 2 * HISTORY:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        self._past.append(_Past(array("Q", sorted(self._fingerprints[:HISTORY])), self._offsets[0]))
        while len(self._past) > FORGOTTEN // HISTORY:
            self._past.popleft()
            self._lost_ms = max(self._lost_ms, self._timestamps[0])
        gone = self._fingerprints[:HISTORY]
        for timestamp_ms in self._timestamps[:HISTORY] if self._of_time else ():
            if self._of_time.get(timestamp_ms, (0, self._forgotten + HISTORY))[1] < self._forgotten + HISTORY:
                del self._of_time[timestamp_ms]
        del self._offsets[:HISTORY], self._fingerprints[:HISTORY], self._timestamps[:HISTORY]
        self._cursor -= HISTORY
        self._forgotten += HISTORY
        self._forget(gone)
        if self._jump is not None:
            self._jump = self._jump._replace(passed=self._jump.passed - HISTORY, at=self._jump.at - HISTORY)

    def _forget(self, gone: array[int]) -> None:
        """Take fingerprints of records that have left the window away; of twins the next one is the first now."""
        again = set()
        for fingerprint in gone:
            left = self._twins.get(fingerprint, 1) - 1
            if left > 1:
                self._twins[fingerprint] = left
            else:
                self._twins.pop(fingerprint, None)
            if left:
                again.add(fingerprint)
            else:
                again.discard(fingerprint)
                del self._first[fingerprint]
        for fingerprint in again:
            del self._first[fingerprint]
        for at, fingerprint in enumerate(self._fingerprints) if again else ():
            if fingerprint in again:
                self._first.setdefault(fingerprint, self._forgotten + at)

    def _map_progress(self) -> None:
        known = self.map
        known.resolved_source = self._offsets[self._cursor] if self.pending_source else self.source_position
        known.resolved_target = self._targets[0].offset if self._targets else self.target_position
        known.source_read = self.source_position
        known.target_read = self.target_position
        if self._cursor:
            known.newest_ms = max(known.newest_ms, self._timestamps[self._cursor - 1])
