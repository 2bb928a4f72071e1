"""Reading a `PartitionLog` as the `Reader` port does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from mrc.core.errors import MrcError
from mrc.core.model import Offset, Seen, TopicPartition
from mrc.ports import Batch, Commit, Sight
from mrc.sim.log import PartitionLog


class FakeReader:
    """The port `Reader`; ``log`` finds a partition's log and raises what the cluster would."""

    def __init__(
        self, region: str, log: Callable[[TopicPartition], PartitionLog], start: Mapping[TopicPartition, Offset], sight: Sight
    ) -> None:
        self._sight = sight
        self._region = region
        self._log = log
        self._positions = dict(start)
        # Unlike any position, so that an end is told even where a partition was at its end from the start.
        self._told_end: dict[TopicPartition, int] = dict.fromkeys(start, -1)
        self._paused: set[TopicPartition] = set()

    def poll(self, max_records: int, timeout_s: float) -> list[Batch]:
        """See `Reader.poll`; never waits."""
        batches: list[Batch] = []
        left = max_records
        for tp in self._positions:
            if tp not in self._paused:
                batch = self._next(tp, left)
                if batch is not None:
                    batches.append(batch)
                    left -= len(batch.records)
        for batch in batches:
            self._positions[batch.tp] = batch.position
            if batch.at_end:
                self._told_end[batch.tp] = batch.position
        return batches

    def pause(self, tps: Iterable[TopicPartition]) -> None:
        """See `Reader.pause`."""
        self._paused |= set(tps)

    def resume(self, tps: Iterable[TopicPartition]) -> None:
        """See `Reader.resume`."""
        self._paused -= set(tps)

    def close(self) -> None:
        """See `Reader.close`."""

    def _next(self, tp: TopicPartition, max_records: int) -> Batch | None:
        """Return what is new of one partition, None where nothing is."""
        log, position = self._log(tp), self._positions[tp]
        if not log.start <= position <= log.end:
            raise MrcError("OFFSET_OUT_OF_RANGE", f"the log has {log.start} to {log.end}", where=f"{self._region} {tp} at {position}")
        end = log.readable_end(self._sight.isolation)
        stamped = tp.topic not in self._sight.unstamped
        records: list[Seen] = []
        for entry in log.visible(position, end, self._sight.isolation):
            if len(records) == max_records:
                return Batch(tp, tuple(records), Offset(records[-1].offset + 1), at_end=False) if records else None
            records.append(entry.seen(stamped=stamped))
        reached = max(position, end)
        if not records and self._told_end[tp] == reached:
            return None
        return Batch(tp, tuple(records), Offset(reached), at_end=True)


class FakeCommits:
    """The port `Commits` over the list of all commits of a cluster; ``reach`` raises where it is unreachable."""

    def __init__(self, reach: Callable[[], None], log: Sequence[Commit]) -> None:
        self._reach = reach
        self._log = log
        self._at = len(log)

    def poll(self, timeout_s: float) -> list[Commit]:
        """See `Commits.poll`; never waits."""
        self._reach()
        found = list(self._log[self._at :])
        self._at += len(found)
        return found

    def close(self) -> None:
        """See `Commits.close`."""
