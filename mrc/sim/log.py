"""One partition's log: records, transaction markers, aborted and open transactions, a start that moves."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from mrc.core.errors import MrcError
from mrc.core.model import Offset, Seen
from mrc.core.model import Record as Whole
from mrc.core.translation.fingerprint import fingerprint
from mrc.core.translation.sight import Isolation

Headers = tuple[tuple[str, bytes | None], ...]


class Record(msgspec.Struct, frozen=True):
    """What an application sends."""

    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: Headers = ()


class Entry(msgspec.Struct, frozen=True):
    """What the log holds at one offset; a marker has no record.

    Attributes:
        transaction: 0 outside of transactions.
    """

    offset: int
    record: Record | None
    transaction: int = 0

    def seen(self, *, stamped: bool = True) -> Seen:
        """Return it as the aligner needs it."""
        record = self._record()
        timestamp_ms = record.timestamp_ms if stamped else None
        return Seen(self.offset, record.timestamp_ms, fingerprint(timestamp_ms, record.key, record.value, record.headers))

    def whole(self) -> Whole:
        """Return it as people look at it."""
        record = self._record()
        return Whole(self.offset, record.timestamp_ms, record.key, record.value, record.headers)

    def _record(self) -> Record:
        if self.record is None:
            raise MrcError("INVARIANT", "a marker is no record")
        return self.record


class PartitionLog:
    """A partition.

    Attributes:
        entries: in offset order; gaps are where compaction took records away.
        start: log start offset.
        end: the high watermark (there is one replica).
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.start = 0
        self.end = 0
        self._open: dict[int, int] = {}
        self._aborted: set[int] = set()

    def append(self, record: Record | None, transaction: int = 0) -> int:
        """Append and return the offset."""
        offset = self.end
        self.entries.append(Entry(offset, record, transaction))
        self.end += 1
        if record is not None and transaction:
            self._open.setdefault(transaction, offset)
        return offset

    def finish(self, transaction: int, *, commit: bool) -> None:
        """Write the marker of a transaction that has records here; harmless where it has none."""
        if transaction in self._open:
            del self._open[transaction]
            if not commit:
                self._aborted.add(transaction)
            self.append(None, transaction)

    def holds(self, offset: int, value: bytes) -> bool:
        """Whether the record at an offset is still the one with this value."""
        return any(e.record is not None and e.record.value == value for e in reversed(self.entries) if e.offset == offset)

    def stable_end(self) -> int:
        """Return the last stable offset: where the first open transaction begins, else the end."""
        return min(self._open.values(), default=self.end)

    def readable_end(self, isolation: Isolation) -> int:
        """Return where a reader's log ends."""
        return self.stable_end() if isolation == "read_committed" else self.end

    def visible(self, low: int, high: int, isolation: Isolation = "read_committed") -> Iterator[Entry]:
        """Yield the visible records in ``[low, high)``."""
        stable = self.readable_end(isolation)
        hidden = self._aborted if isolation == "read_committed" else frozenset()
        first = max(low, self.start)
        # Offsets grow by at least one per entry, so an entry's index is never beyond its distance from the first entry.
        index = max(0, min(len(self.entries), first - self.entries[0].offset)) if self.entries else 0
        while index > 0 and self.entries[index - 1].offset >= first:
            index -= 1
        for position in range(index, len(self.entries)):
            entry = self.entries[position]
            if entry.offset >= min(high, stable):
                return
            if entry.offset >= first and entry.record is not None and entry.transaction not in hidden:
                yield entry

    def trim(self, start: int) -> None:
        """Forget what lies below ``start`` (retention, delete-records)."""
        self.start = max(self.start, min(start, self.end))
        self.entries = [entry for entry in self.entries if entry.offset >= self.start]

    def cut(self, end: int) -> None:
        """Lose the records from ``end`` on, as disks do that were not flushed when the power failed."""
        self.entries = [entry for entry in self.entries if entry.offset < end]
        self.end = max(self.start, min(self.end, end))
        self._open = {transaction: first for transaction, first in self._open.items() if first < self.end}

    def compact(self) -> None:
        """Keep the last record per key and every marker."""
        last = {entry.record.key: entry.offset for entry in self.entries if entry.record is not None}
        self.entries = [entry for entry in self.entries if entry.record is None or last[entry.record.key] == entry.offset]

    def last_visible(self, below: int, isolation: Isolation = "read_committed") -> Entry | None:
        """Return the last visible record below an offset."""
        hidden = self._aborted if isolation == "read_committed" else frozenset()
        for entry in reversed(self.entries):
            if entry.offset < min(below, self.readable_end(isolation)) and entry.record is not None and entry.transaction not in hidden:
                return entry
        return None

    def next_stable(self) -> Offset:
        """Return `stable_end` as an offset to read."""
        return Offset(self.stable_end())
