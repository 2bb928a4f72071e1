"""One partition's log: records, transaction markers, aborted and open transactions, a start that moves."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from mrc.core.errors import MrcError
from mrc.core.model import Offset, Seen
from mrc.core.translation.fingerprint import fingerprint

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

    def seen(self) -> Seen:
        """Return it as the aligner needs it."""
        if self.record is None:
            raise MrcError("INVARIANT", "a marker is no record")
        record = self.record
        return Seen(self.offset, record.timestamp_ms, fingerprint(record.timestamp_ms, record.key, record.value, record.headers))


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

    def stable_end(self) -> int:
        """Return the last stable offset: where the first open transaction begins, else the end."""
        return min(self._open.values(), default=self.end)

    def visible(self, low: int, high: int) -> Iterator[Entry]:
        """Yield the read_committed records in ``[low, high)``."""
        stable = self.stable_end()
        first = max(low, self.start)
        # Offsets grow by at least one per entry, so an entry's index is never beyond its distance from the first entry.
        index = max(0, min(len(self.entries), first - self.entries[0].offset)) if self.entries else 0
        while index > 0 and self.entries[index - 1].offset >= first:
            index -= 1
        for position in range(index, len(self.entries)):
            entry = self.entries[position]
            if entry.offset >= min(high, stable):
                return
            if entry.offset >= first and entry.record is not None and entry.transaction not in self._aborted:
                yield entry

    def trim(self, start: int) -> None:
        """Forget what lies below ``start`` (retention, delete-records)."""
        self.start = max(self.start, min(start, self.end))
        self.entries = [entry for entry in self.entries if entry.offset >= self.start]

    def compact(self) -> None:
        """Keep the last record per key and every marker."""
        last = {entry.record.key: entry.offset for entry in self.entries if entry.record is not None}
        self.entries = [entry for entry in self.entries if entry.record is None or last[entry.record.key] == entry.offset]

    def last_visible(self, below: int) -> Seen | None:
        """Return the last visible record below an offset."""
        for entry in reversed(self.entries):
            if entry.offset < min(below, self.stable_end()) and entry.record is not None and entry.transaction not in self._aborted:
                return entry.seen()
        return None

    def next_stable(self) -> Offset:
        """Return `stable_end` as an offset to read."""
        return Offset(self.stable_end())
