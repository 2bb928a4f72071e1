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

Memory: about 150 bytes for each source record in the window; the window holds `HISTORY` paired and at most `AHEAD`
unpaired source records (`AHEAD_STUCK` while rules 3 and 4 wait), however long the logs are.
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
    """One partition of one flow. Feed both logs in offset order, in any interleaving."""

    def __init__(self, offset_map: OffsetMap) -> None:
        self.map = offset_map
        self.source_position = offset_map.resolved_source
        self.target_position = offset_map.resolved_target
        # The window of source records: columns, of which [0, cursor) are paired or passed and [cursor, end) are pending.
        self._offsets = array("q")
        self._fingerprints = array("Q")
        self._timestamps = array("q")
        self._cursor = 0
        self._count: dict[int, int] = {}
        self._targets: deque[Seen] = deque()
        # How many of the pending target records were read before the last known source end was asked for.
        self._decidable = 0
        self._source_end = -1
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
        for record in records:
            fingerprint = record.fingerprint
            self._offsets.append(record.offset)
            self._fingerprints.append(fingerprint)
            self._timestamps.append(record.timestamp_ms)
            self._count[fingerprint] = self._count.get(fingerprint, 0) + 1
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

    def _match(self) -> None:
        targets, fingerprints, offsets, count = self._targets, self._fingerprints, self._offsets, self._count
        while targets:
            record = targets[0]
            fingerprint = record.fingerprint
            twins = count.get(fingerprint, 0)
            if self._cursor < len(offsets) and fingerprints[self._cursor] == fingerprint:
                self._pair_at(self._cursor, record, sure=twins == 1)
            elif not (twins == 1 and self._jump_ahead(record)):
                if not self._decidable or self.source_position < self._source_end:
                    break  # its counterpart, or a twin of it, may be among the source records that were not read yet
                if twins:
                    self._twin_or_resent(record, twins)
            targets.popleft()
            if self._decidable:
                self._decidable -= 1
        self._trim()
        self._map_progress()

    def _pair_at(self, at: int, record: Seen, *, sure: bool) -> None:
        self.map.pair(self._offsets[at], record.offset, sure=sure, gap_sure=self.map.tail_sure)
        self.map.tail_sure = True
        self._cursor = at + 1

    def _jump_ahead(self, record: Seen) -> bool:
        """Rule 2: pair the record with its only twin if that is still ahead; return whether it was."""
        try:
            at = self._fingerprints.index(record.fingerprint, self._cursor)
        except ValueError:
            return False
        if any(self._count[passed] > 1 for passed in self._fingerprints[self._cursor : at]):
            self.map.tail_sure = False  # a passed record may be the one that a twin of it was paired for
        self._pair_at(at, record, sure=True)
        return True

    def _twin_or_resent(self, record: Seen, twins: int) -> None:
        """Rule 3; with several twins it may also be the counterpart of any of them."""
        if twins > 1:
            self.map.tail_sure = False
        self.map.resend(self._offsets[self._fingerprints.index(record.fingerprint)], record.offset)

    def _trim(self) -> None:
        """Forget history beyond `HISTORY`, in large steps."""
        excess = self._cursor - HISTORY
        if excess < HISTORY:
            return
        for fingerprint in self._fingerprints[:excess]:
            left = self._count[fingerprint] - 1
            if left:
                self._count[fingerprint] = left
            else:
                del self._count[fingerprint]
        del self._offsets[:excess], self._fingerprints[:excess], self._timestamps[:excess]
        self._cursor -= excess

    def _map_progress(self) -> None:
        known = self.map
        known.resolved_source = self._offsets[self._cursor] if self.pending_source else self.source_position
        known.resolved_target = self._targets[0].offset if self._targets else self.target_position
        known.source_read = self.source_position
        known.target_read = self.target_position
