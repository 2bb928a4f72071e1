"""Pairs the records of a source partition with those of its mirror, reading both logs side by side.

Theory of operation. MM2 copies a partition's records in order. Target records are taken one after another:

1. equal to the next unpaired source record: a pair;
2. equal to a later one: a pair, and the source records in between have no counterpart (they were left behind by an earlier
   move, or MM2 did not copy them);
3. equal to an earlier, already paired one: MM2 sends again what it sent before (a restart without exactly-once). The first
   copies stand, for every record follows them; who goes on before the later copies is told how many it may see again;
4. equal to none: a record of the target's own.

Rules 3 and 4 wait until the source has been read beyond the end that it had *after* the target record was read, for the
target's reader may be ahead of the source's. The same rules align logs of moves there and back (copied, left behind, come
back), whichever side is the source now.

A record whose fingerprint occurs more than once in the window has *twins*: it is paired in order (rule 1) but not *sure*, and
by rule 2 not at all; answers that would rest on it fall back to the last sure pair. Nothing is guessed forward.

An aligner that goes on with a stored map first reads paired source records again, `HISTORY` of them: without them twins and
copies sent again would not be recognised.

Memory: about 150 bytes for each source record in the window; the window holds `HISTORY` to twice as many paired and at most
`AHEAD` unpaired source records (`AHEAD_STUCK` while rules 3 and 4 wait), however long the logs are. Where the wait would need
more, the target record is given up: answers around it are bounded from then on.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable

from mrc.core.model import Seen
from mrc.core.translation.offset_map import OffsetMap

HISTORY = 20_000
AHEAD = 50_000
AHEAD_STUCK = 500_000


class Aligner:
    """One partition of one flow. Feed both logs in offset order, in any interleaving.

    Attributes:
        map: what is known; grows with every feeding.
        source_position, target_position: where a reader that is opened now has to begin, or the log's start if that is later.
    """

    def __init__(self, offset_map: OffsetMap) -> None:
        self.map = offset_map
        self.source_position = offset_map.paired_from(HISTORY)
        self.target_position = offset_map.resolved_target
        self._resume_at = offset_map.resolved_source
        # The window of source records: columns, of which [0, cursor) are paired or passed and [cursor, end) are pending.
        self._offsets = array("q")
        self._fingerprints = array("Q")
        self._timestamps = array("q")
        self._cursor = 0
        # By fingerprint: the newest record's number (that of the window's first record is `_base`); for records with twins
        # also how many there are, and the offset of the first.
        self._newest: dict[int, int] = {}
        self._twins: dict[int, tuple[int, int]] = {}
        self._base = 0
        self._forgotten_ms: int | None = None
        self._targets: deque[Seen] = deque()
        # How many of the pending target records were read before the last known source end was asked for.
        self._decidable = 0
        self._source_end = -1

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
        records = list(records)
        number = self._base + len(self._offsets)
        newest = self._newest
        for record in records:
            fingerprint = record.fingerprint
            if fingerprint in newest:
                self._note_twin(fingerprint, record.offset)
            newest[fingerprint] = number
            number += 1
        self._offsets.extend([record.offset for record in records])
        self._fingerprints.extend([record.fingerprint for record in records])
        self._timestamps.extend([record.timestamp_ms for record in records])
        if self.source_position < self._resume_at:
            self._go_through_history()
        self.source_position = max(self.source_position, position)
        self._match()

    def feed_target(self, records: Iterable[Seen], position: int) -> None:
        """Take target records; everything below ``position`` has been seen."""
        self._targets.extend(records)
        self.target_position = max(self.target_position, position)
        self._match()

    def note_source_end(self, end: int) -> None:
        """Say the source's last stable offset, asked for after all target records fed so far had been read."""
        self._source_end = end
        self._decidable = len(self._targets)
        self._match()

    def pass_source_below(self, begin: int) -> None:
        """Say that the flow copies from ``begin`` on, and that the target has been read to its end since it does so.

        Unpaired source records below have no counterpart and never will.
        """
        if self._targets:
            return
        while self._cursor < len(self._offsets) and self._offsets[self._cursor] < begin:
            self._cursor += 1
        self._trim()
        self._map_progress()

    # -- inside

    def _note_twin(self, fingerprint: int, offset: int) -> None:
        known = self._twins.get(fingerprint)
        count, first = known or (1, self._offset_of(self._newest[fingerprint], offset))
        self._twins[fingerprint] = count + 1, first
        self.map.double(first, offset)

    def _offset_of(self, number: int, otherwise: int) -> int:
        """Return the offset of a record of the window, ``otherwise`` for one that is being taken in just now."""
        at = number - self._base
        return self._offsets[at] if at < len(self._offsets) else otherwise

    def _go_through_history(self) -> None:
        """Records below the end of the stored map are paired or passed already."""
        if self._forgotten_ms is None and self._timestamps and self._offsets[0] > self.map.begin_source:
            self._forgotten_ms = self._timestamps[0]
        while self._cursor < len(self._offsets) and self._offsets[self._cursor] < self._resume_at:
            self._cursor += 1

    def _match(self) -> None:
        targets, fingerprints, offsets, newest, twins = self._targets, self._fingerprints, self._offsets, self._newest, self._twins
        known, cursor, end, before = self.map, self._cursor, len(self._offsets), len(self._targets)
        while targets:
            record = targets[0]
            fingerprint = record.fingerprint
            if cursor < end and fingerprints[cursor] == fingerprint:
                known.pair(offsets[cursor], record.offset, sure=fingerprint not in twins, gap_sure=known.tail_sure)
                known.tail_sure = True
                cursor += 1
            elif fingerprint not in twins and (at := newest.get(fingerprint, -1) - self._base) >= cursor:
                self._pass(cursor, at)
                known.pair(offsets[at], record.offset, sure=True, gap_sure=known.tail_sure)
                known.tail_sure = True
                cursor = at + 1
            elif self._may_decide(before - len(targets), end - cursor):
                self._decide(record)
            else:
                break
            targets.popleft()
        self._decidable = max(0, self._decidable - (before - len(targets)))
        self._cursor = cursor
        self._trim()
        self._map_progress()

    def _pass(self, begin: int, end: int) -> None:
        """Leave pending source records behind: one that has twins may be the one that a twin of it was paired for."""
        if self._twins and not self._twins.keys().isdisjoint(self._fingerprints[begin:end]):
            self.map.tail_sure = False

    def _may_decide(self, taken: int, pending_source: int) -> bool:
        """Whether the source was read far enough to say that a target record is the copy of none of the pending ones.

        Its counterpart, or a twin of it, may be among the source records that were not read yet.
        """
        if taken < self._decidable and self.source_position >= self._source_end:
            return True
        if pending_source < AHEAD_STUCK:
            return False
        self.map.tail_sure = False  # the window is full, so it is given up: its counterpart may lie further ahead
        return True

    def _decide(self, record: Seen) -> None:
        """Rules 3 and 4; with several twins it may also be the counterpart of any of them."""
        twins = self._twins.get(record.fingerprint)
        if twins:
            self.map.tail_sure = False
            self.map.resend(twins[1], record.offset)
        elif record.fingerprint in self._newest:
            self.map.resend(self._offsets[self._newest[record.fingerprint] - self._base], record.offset)
        elif self._may_be_forgotten(record):
            self.map.resend(self.map.begin_source, record.offset)

    def _may_be_forgotten(self, record: Seen) -> bool:
        """Whether the record may be one that MM2 sends again from before the window."""
        return self._forgotten_ms is not None and record.timestamp_ms <= self._forgotten_ms

    def _trim(self) -> None:
        """Forget history beyond `HISTORY`, in large steps."""
        excess = self._cursor - HISTORY
        if excess < HISTORY:
            return
        for fingerprint in self._fingerprints[:excess]:
            twins = self._twins.get(fingerprint)
            if twins is None:
                del self._newest[fingerprint]
            elif twins[0] > 2:
                self._twins[fingerprint] = twins[0] - 1, twins[1]
            else:
                del self._twins[fingerprint]
        self._forgotten_ms = max(self._forgotten_ms or 0, *self._timestamps[:excess])
        del self._offsets[:excess], self._fingerprints[:excess], self._timestamps[:excess]
        self._cursor -= excess
        self._base += excess

    def _map_progress(self) -> None:
        known = self.map
        if self.source_position >= self._resume_at:
            known.resolved_source = self._offsets[self._cursor] if self.pending_source else self.source_position
            known.source_read = self.source_position
            known.suspects = sum(t.fingerprint in self._newest or self._may_be_forgotten(t) for t in self._targets)
        else:
            known.suspects = len(self._targets)  # nothing can be said of them before the history has been read
        known.resolved_target = self._targets[0].offset if self._targets else self.target_position
        known.target_read = self.target_position
