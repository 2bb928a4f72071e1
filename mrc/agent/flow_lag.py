"""Where both logs of a flow end, and how far the mirror is behind that."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mrc.agent.alignment import Alignment
from mrc.agent.pairs import Pair
from mrc.core.errors import MrcError
from mrc.core.model import Known, Offset, Reading, TopicPartition, Unknown
from mrc.core.views import PartitionLagView

ENDS_EVERY_S = 1.0
STARTS_EVERY_S = 10.0
"""Where logs start tells which copies have been deleted, for people only: a move asks anew, for what it commits."""


class FlowLag:
    """The lag of one flow. `tick` is called by one thread; others may read meanwhile.

    Attributes:
        source, target: where the logs ended when that was read last, by the partitions of either side.
        starts: where they started, of the source's and of the target's.
    """

    def __init__(self, alignment: Alignment) -> None:
        self._alignment = alignment
        self._ends_at_s = 0.0
        self.forget()

    def forget(self) -> None:
        """Forget what was read."""
        self.source: dict[TopicPartition, Known[int]] = {}
        self.target: dict[TopicPartition, Offset] = {}
        self.starts: tuple[dict[TopicPartition, Offset], dict[TopicPartition, Offset]] = {}, {}
        self._starts_at_s = float("-inf")

    def tick(self, now_s: float) -> None:
        """Read where both logs end (after the positions, so that lag is never negative), and now and then where they start.

        Raises:
            MrcError: the target does not answer.
        """
        if now_s - self._ends_at_s < ENDS_EVERY_S:
            return
        self._ends_at_s = now_s
        alignment = self._alignment
        flow, clusters = alignment.flow, alignment.estate.clusters
        source, target = clusters[flow.source], clusters[flow.target]
        targets = [pair.target for pair in alignment.pairs.values()]
        self.target = target.ends(targets, "read_committed")
        if not alignment.source_readable:
            return
        try:
            ends = source.ends(list(alignment.pairs), alignment.sights.source.isolation)
            if now_s - self._starts_at_s >= STARTS_EVERY_S:
                self.starts = source.starts(list(alignment.pairs)), target.starts(targets)
                self._starts_at_s = now_s
        except MrcError as error:
            alignment.source_failed(error)
            return
        now_ms = alignment.estate.clock.now_ms()
        self.source = {tp: Known(int(end), now_ms) for tp, end in ends.items()}

    def unread(self) -> int | None:
        """Return how many offsets of both logs the alignment has not read; None while their ends are not known."""
        with self._alignment.lock:
            pairs = list(self._alignment.pairs.values())
            if not pairs or not self.source or not self.target:
                return None
            unread = sum(max(0, end.value - pair.source_position) for pair in pairs if (end := self.source.get(pair.source)))
            return unread + sum(max(0, self.target.get(pair.target, 0) - pair.target_position) for pair in pairs)

    def held(self) -> dict[str, int]:
        """Return how many offsets each topic of the source holds."""
        found: dict[str, int] = {}
        for tp, end in self.source.copy().items():
            found[tp.topic] = found.get(tp.topic, 0) + max(0, end.value - self.starts[0].get(tp, 0))
        return found

    def ends(self) -> tuple[Reading[float], Reading[float]]:
        """Return the sums of the log ends that were read last, of the source's and of the target's partitions; nobody is asked."""
        now_ms = self._alignment.estate.clock.now_ms()
        unread = Unknown("not-read", f"the ends of {self._alignment.flow} have not been read", now_ms)
        ends, targets = self.source.copy(), self.target.copy()
        source = Known(float(sum(one.value for one in ends.values())), min(one.at_ms for one in ends.values())) if ends else unread
        return source, Known(float(sum(targets.values())), now_ms) if targets else unread

    def partition(self, pair: Pair, now_ms: int) -> PartitionLagView:
        """Return a partition's lag; unknown while the source is down. The caller holds the alignment's lock."""
        aligner, tp = pair.aligner, pair.source
        replicated = Known(float(aligner.map.resolved_source), now_ms)
        down = self._alignment.source_down
        end = self.source.get(tp)
        if down is not None or end is None:
            since_ms = self._alignment.source_down_since_ms if down else now_ms
            unknown = Unknown(down.reason if down else "not-read-yet", str(down) if down else "not read yet", since_ms)
            return PartitionLagView(tp.topic, tp.partition, unknown, unknown, unknown, replicated)
        behind = aligner.pending_source + max(0, end.value - aligner.source_position)
        oldest_ms = aligner.oldest_pending_ms
        seconds = max(0.0, (now_ms - oldest_ms) / 1000) if oldest_ms is not None and behind else 0.0
        return PartitionLagView(
            tp.topic, tp.partition, Known(float(behind), now_ms), Known(seconds, now_ms), Known(float(end.value), end.at_ms), replicated
        )

    def rpo(self, records: Reading[float], seconds: Reading[float], now_ms: int) -> str:
        """Say what a failover now would lose; the last thing that was known when the source does not answer."""
        if isinstance(records, Known) and isinstance(seconds, Known):
            return f"at least {records.value:.0f} records, {seconds.value:.1f} s, as of now"
        with self._alignment.lock:
            pending = sum(pair.aligner.pending_source for pair in self._alignment.pairs.values() if not pair.came_back)
        reason = records.reason if isinstance(records, Unknown) else "unknown"
        if not self._alignment.source_seen_at_ms:
            return f"unknown: {reason}"
        age_s = (now_ms - self._alignment.source_seen_at_ms) / 1000
        return f"at least {pending} records, as of {age_s:.1f} s ago ({reason} since)"


def totals(partitions: Iterable[PartitionLagView], now_ms: int) -> tuple[Reading[float], Reading[float]]:
    """Return a flow's lag in records and in seconds."""
    found = list(partitions)
    return _total([p.lag_records for p in found], sum, now_ms), _total([p.lag_seconds for p in found], max, now_ms)


def _total(readings: list[Reading[float]], fold: Callable[[list[float]], float], now_ms: int) -> Reading[float]:
    """Fold readings into one; unknown as soon as one of them is."""
    for reading in readings:
        if isinstance(reading, Unknown):
            return reading
    known = [reading.value for reading in readings if isinstance(reading, Known)]
    return Known(fold(known), now_ms) if known else Unknown("not-read-yet", "no partition was read yet", now_ms)
