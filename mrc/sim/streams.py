"""`StreamLog` and `Shelves` in memory: topics with transactions, a group that shares partitions, and disks that outlive processes.

Whatever happens at an effect is told to `StreamCluster.before` and `after` first, which may raise: that is how a process dies in a test.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from mrc.core.errors import MrcError
from mrc.core.model import Offset, TopicPartition
from mrc.ports import Arrived, Outgoing, Shares, Span

REPLAY_RECORDS_MAX = 100


class _Transaction(msgspec.Struct, eq=False):
    state: Literal["open", "committed", "aborted"] = "open"


class _Entry(msgspec.Struct, eq=False):
    """A record, or a transaction's marker (None), in a log."""

    record: Outgoing | None
    transaction: _Transaction
    timestamp_ms: int = 0


_DONE = _Transaction("committed")


def nothing(effect: str) -> None:
    """Let it happen."""


class StreamCluster:
    """One region's topics and its resolver group.

    Attributes:
        before, after: told each effect's name before and after it happens: ``produce``, ``commit``, ``append``, ``disk``.

    Args:
        now_ms: the clock of those who write.
    """

    def __init__(self, now_ms: Callable[[], int] = lambda: 0) -> None:
        self._now_ms = now_ms
        self.before: Callable[[str], None] = nothing
        self.after: Callable[[str], None] = nothing
        self.positions: dict[TopicPartition, Offset] = {}
        self.generation = 0
        self._logs: dict[TopicPartition, list[_Entry]] = {}
        self._starts: dict[TopicPartition, Offset] = {}
        self._partitions: dict[str, int] = {}
        self._made = itertools.count(1)
        self._identities: dict[str, str] = {}
        self._members: dict[str, FakeStreamLog] = {}
        self._open: dict[str, _Transaction] = {}

    def make(self, topic: str, partitions: int) -> None:
        """Make a topic, in place of one of the same name."""
        self._partitions[topic] = partitions
        self._identities[topic] = f"{topic}#{next(self._made)}"
        for number in range(partitions):
            self._logs[TopicPartition(topic, number)] = []

    def grow(self, topic: str, partitions: int) -> None:
        """Add partitions to a topic; the group shares anew."""
        for number in range(self._partitions[topic], partitions):
            self._logs[TopicPartition(topic, number)] = []
        self._partitions[topic] = partitions
        self.generation += 1

    def counts(self, names: Iterable[str]) -> dict[str, int]:
        """Return the partitions of those topics that exist."""
        return {name: self._partitions[name] for name in names if name in self._partitions}

    def write(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
        timestamp_ms: int | None = None,
    ) -> None:
        """Append a record as somebody else would; a replicator keeps its timestamp."""
        made = self._now_ms() if timestamp_ms is None else timestamp_ms
        self._logs[TopicPartition(topic, partition)].append(_Entry(Outgoing(topic, partition, key, value, headers), _DONE, made))

    def trim(self, tp: TopicPartition, start: Offset) -> None:
        """Remove what is below ``start``, as retention does."""
        self._starts[tp] = start

    def read(self, topic: str, partition: int) -> list[Arrived]:
        """Return all committed records of a partition."""
        tp = TopicPartition(topic, partition)
        return list(self.visible(tp, self._starts.get(tp, Offset(0)), 1_000_000)[0])

    def visible(self, tp: TopicPartition, begin: Offset, limit: int) -> tuple[list[Arrived], Offset]:
        """Return committed records from ``begin`` and where to read on. Raises ``OFFSET_OUT_OF_RANGE``."""
        log = self._logs[tp]
        if begin == 0 and tp in self._starts:
            begin = self._starts[tp]
        if not self._starts.get(tp, 0) <= begin <= len(log):
            raise MrcError("OFFSET_OUT_OF_RANGE", f"{begin} is not in the log", where=str(tp))
        found: list[Arrived] = []
        at: int = begin
        while at < len(log) and log[at].transaction.state != "open" and len(found) < limit:
            entry = log[at]
            if entry.record is not None and entry.transaction.state == "committed":
                one = entry.record
                found.append(Arrived(tp.topic, tp.partition, at, one.key, one.value, tuple(one.headers), entry.timestamp_ms))
            at += 1
        return found, Offset(at)

    def tps(self, topic: str) -> list[TopicPartition]:
        """Return a topic's partitions."""
        return [TopicPartition(topic, number) for number in range(self._partitions[topic])]

    def span(self, tp: TopicPartition, since_ms: int | None) -> Span:
        """Return what a partition holds, see `Logs.spans`."""
        log, start = self._logs[tp], self._starts.get(tp, Offset(0))
        end = next((at for at, entry in enumerate(log) if entry.transaction.state == "open"), len(log))
        wanted = (at for at, entry in enumerate(log) if at >= start and entry.record and entry.timestamp_ms >= (since_ms or 0))
        begin = start if since_ms is None else min(next(wanted, end), end)
        return Span(Offset(begin), Offset(end))

    def join(self, name: str, topics: Sequence[str]) -> FakeStreamLog:
        """Return a new process of the group; one of the same name before it is fenced, and its open transaction aborted."""
        if (left_open := self._open.pop(name, None)) is not None:
            self._end(left_open, "aborted")
        self._members[name] = FakeStreamLog(self, name, topics)
        self.generation += 1
        return self._members[name]

    # ---------------------------------------------------------------- for its processes

    def is_member(self, log: FakeStreamLog) -> bool:
        """Whether no other process has taken this one's name."""
        return self._members.get(log.name) is log

    def leave(self, log: FakeStreamLog) -> None:
        """Share anew without this process."""
        if self.is_member(log):
            del self._members[log.name]
            self.generation += 1

    def share(self, log: FakeStreamLog) -> frozenset[TopicPartition]:
        """Return what a process has its share of: of every topic the same partitions."""
        names = sorted(self._members)
        mine = names.index(log.name)
        return frozenset(
            TopicPartition(topic, number)
            for topic in log.topics
            for number in range(self._partitions[topic])
            if number % len(names) == mine
        )

    def begin(self, name: str, records: Sequence[Outgoing]) -> _Transaction:
        """Write records that are not committed yet."""
        transaction = self._open[name] = _Transaction()
        for one in records:
            self.before("produce")
            self._logs[TopicPartition(one.topic, one.partition)].append(_Entry(one, transaction, self._now_ms()))
        return transaction

    def commit(self, name: str, transaction: _Transaction, positions: Mapping[TopicPartition, Offset]) -> None:
        """End a transaction well."""
        self.before("commit")
        del self._open[name]
        self._end(transaction, "committed")
        self.positions |= positions
        self.after("commit")

    def append(self, records: Sequence[Outgoing]) -> None:
        """Write records outside of any transaction."""
        self.before("append")
        for one in records:
            self._logs[TopicPartition(one.topic, one.partition)].append(_Entry(one, _DONE, self._now_ms()))
        self.after("append")

    def identity(self, topic: str) -> str:
        """See `StreamLog.identity`."""
        return self._identities[topic]

    def end(self, tp: TopicPartition) -> Offset:
        """Return where the log ends, whatever is committed."""
        return Offset(len(self._logs[tp]))

    def _end(self, transaction: _Transaction, state: Literal["committed", "aborted"]) -> None:
        transaction.state = state
        for log in self._logs.values():
            if any(entry.transaction is transaction for entry in log[-REPLAY_RECORDS_MAX:]):
                log.append(_Entry(None, _DONE))


class FakeStreamLog:
    """See `StreamLog`."""

    def __init__(self, cluster: StreamCluster, name: str, topics: Sequence[str]) -> None:
        self.name = name
        self.topics = topics
        self._cluster = cluster
        self._generation = -1
        self._at: dict[TopicPartition, Offset] = {}
        self._ended: set[TopicPartition] = set()

    def poll(self, max_records: int, timeout_s: float, shares: Shares) -> list[Arrived]:
        """See `StreamLog.poll`."""
        self._require_membership()
        if self._generation != self._cluster.generation:
            self._generation = self._cluster.generation
            shares.given_back()
            self._ended.clear()
            self._at = dict(shares.taken(self._cluster.share(self)))
            return []
        found: list[Arrived] = []
        for tp, begin in self._at.items():
            records, self._at[tp] = self._cluster.visible(tp, begin, max_records - len(found))
            found += records
        self._ended = {tp for tp, at in self._at.items() if not self._cluster.visible(tp, at, 1)[0]}
        return found

    def at_end(self, tp: TopicPartition) -> bool:
        """See `StreamLog.at_end`."""
        return tp in self._ended

    def ends(self, tps: Sequence[TopicPartition]) -> dict[TopicPartition, Offset]:
        """See `StreamLog.ends`."""
        return {tp: self._cluster.end(tp) for tp in tps}

    def commit(self, records: Sequence[Outgoing], positions: Mapping[TopicPartition, Offset]) -> dict[TopicPartition, Offset]:
        """See `StreamLog.commit`."""
        self._require_membership()
        transaction = self._cluster.begin(self.name, records)
        if self._generation != self._cluster.generation:
            raise MrcError("GROUP_HAS_MEMBERS", "the group has shared anew", where=self.name, retryable=True)
        ends = {TopicPartition(one.topic, one.partition): Offset(0) for one in records}
        ends = {tp: self._cluster.end(tp) for tp in ends}
        self._cluster.commit(self.name, transaction, positions)
        return ends

    def append(self, records: Sequence[Outgoing]) -> None:
        """See `StreamLog.append`."""
        self._cluster.append(records)

    def replay(self, tp: TopicPartition, begin: Offset) -> Iterator[list[Arrived]]:
        """See `StreamLog.replay`."""
        while True:
            records, begin = self._cluster.visible(tp, begin, REPLAY_RECORDS_MAX)
            if not records:
                return
            yield records

    def identity(self, topic: str) -> str:
        """See `StreamLog.identity`."""
        return self._cluster.identity(topic)

    def close(self) -> None:
        """See `StreamLog.close`."""
        self._cluster.leave(self)

    def _require_membership(self) -> None:
        if not self._cluster.is_member(self):
            raise MrcError("RESOLVER_FENCED", "another process has this name", where=self.name)


class FakeLogs:
    """See `Logs`: what stands in a cluster."""

    def __init__(self, cluster: StreamCluster) -> None:
        self._cluster = cluster

    def spans(self, topics: Sequence[str], since_ms: int | None = None) -> dict[TopicPartition, Span]:
        """See `Logs.spans`."""
        if missing := [name for name in topics if not self._cluster.counts([name])]:
            raise MrcError("TOPICS_MISSING", f"there is no {', '.join(missing)}")
        return {tp: self._cluster.span(tp, since_ms) for name in topics for tp in self._cluster.tps(name)}

    def read(self, spans: Mapping[TopicPartition, Span]) -> Iterator[list[Arrived]]:
        """See `Logs.read`."""
        for tp, span in spans.items():
            at = span.begin
            while at < span.end:
                records, at = self._cluster.visible(tp, at, REPLAY_RECORDS_MAX)
                yield [one for one in records if one.offset < span.end]

    def follow(self, begin: Mapping[TopicPartition, Offset], passed: dict[TopicPartition, Offset] | None = None) -> Iterator[list[Arrived]]:
        """See `Logs.follow`."""
        positions = dict(begin)
        while True:
            found: list[Arrived] = []
            for tp, at in positions.items():
                records, positions[tp] = self._cluster.visible(tp, at, REPLAY_RECORDS_MAX)
                found += records
            if passed is not None:
                passed |= positions
            yield found

    def close(self) -> None:
        """Nothing is held."""


class FakeShelf:
    """See `Shelf`."""

    def __init__(self, cluster: StreamCluster, identity: str) -> None:
        self.identity = identity
        self.values: dict[bytes, bytes] = {}
        self._cluster = cluster
        self._offset = Offset(0)

    def offset(self) -> Offset:
        """See `Shelf.offset`."""
        return self._offset

    def get(self, key: bytes) -> bytes | None:
        """See `Shelf.get`."""
        return self.values.get(key)

    def items(self, prefix: bytes, begin: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """See `Shelf.items`."""
        return iter([(key, self.values[key]) for key in sorted(self.values) if key.startswith(prefix) and key >= begin])

    def apply(self, writes: Mapping[bytes, bytes | None], offset: Offset) -> None:
        """See `Shelf.apply`."""
        self._cluster.before("disk")
        for key, value in writes.items():
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value
        self._offset = offset
        self._cluster.after("disk")

    def close(self) -> None:
        """See `Shelf.close`."""


class FakeShelves:
    """See `Shelves`: one machine's disk."""

    def __init__(self, cluster: StreamCluster) -> None:
        self._cluster = cluster
        self._shelves: dict[str, FakeShelf] = {}

    def open(self, name: str, identity: str) -> FakeShelf:
        """See `Shelves.open`."""
        found = self._shelves.get(name)
        if found is None or found.identity != identity:
            found = self._shelves[name] = FakeShelf(self._cluster, identity)
        return found

    def wipe(self, name: str) -> None:
        """See `Shelves.wipe`."""
        self._shelves.pop(name, None)
