"""Samples of lag and throughput, taken while an execution runs and kept in one small node beside its journal.

The agent that carries the execution out takes them, until `AFTER_MS` behind its end, so that the opened region is seen to take
writes; it keeps `BEFORE` of what was before in memory, so that the first ones show what the move changed. Each sample is written
when it is taken: an agent that dies takes one with it at most, and its successor goes on behind a gap.

Nothing here stops a move: it runs in a thread of its own, what it cannot read is a sample's reason, what it cannot write a gap.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Sequence

from mrc.agent.capture import Capture
from mrc.agent.estate import Estate
from mrc.agent.observer import Observer
from mrc.core.errors import MrcError
from mrc.core.failover.execution import ENDED, Run
from mrc.core.failover.measured import EVERY_MS, Measured, Reading, Sample, add, begun, due
from mrc.core.model import Known, Region, TopicPartition, Unknown
from mrc.core.model import Reading as Looked
from mrc.core.views import FindingView

AFTER_MS = 5_000
"""For how long samples are taken behind an execution's end."""

BEFORE = 30
"""How many samples from before an execution are kept."""


class Recorder:
    """Samples of one replication group's executions that move to this agent's region. `tick` is called by one thread."""

    def __init__(self, estate: Estate, observer: Observer, capture: Capture, running: Callable[[], Run | None]) -> None:
        self._estate = estate
        self._observer = observer
        self._capture = capture
        self._running = running
        self._lock = threading.Lock()
        self._before: collections.deque[Sample] = collections.deque(maxlen=BEFORE)
        self._found: tuple[str, Sequence[FindingView]] | None = None
        self._kept: tuple[Measured, int | None] | None = None

    def note(self, execution: str, findings: Sequence[FindingView]) -> None:
        """Remember what was found when an execution was begun; the first sample writes it down."""
        with self._lock:
            self._found = (execution, findings)

    def forget(self) -> None:
        """Begin anew: another agent leads, and writes."""
        self._before.clear()
        self._kept = None

    def tick(self) -> bool:
        """Take a sample where one is due, and write it where an execution runs or has just ended; return whether one was written.

        Raises:
            MrcError: ``ZOOKEEPER_UNREACHABLE``, ``STALE_TERM``, ``LEASE_LOST``: the next call reads what is there and goes on.
        """
        now_ms = self._estate.clock.now_ms()
        run = self._running()
        if run is None or run.plan.target != self._estate.region or (run.phase in ENDED and now_ms - run.ended_at_ms > AFTER_MS):
            self._kept = None
            idle = self._idle(now_ms)
            if not self._before or idle.at_ms - self._before[-1].at_ms >= 0.9 * EVERY_MS:
                self._before.append(idle)
            return False
        measured, version = self._known(run)
        if version is not None and not due(measured, now_ms):
            return False
        self._kept = None  # until it is known to be written
        # What was before the move is written at once, also where the last sample is no second old.
        # The ends that were read before the move are not those that are asked for now, so no rate is made of the two.
        first = version is None and bool(measured.samples)
        after = add(measured, self._sample(now_ms, gap=first)) if due(measured, now_ms) else measured
        self._estate.store.put_measured(self._estate.leadership.check, after, version)
        self._kept = (after, 0 if version is None else version + 1)
        self._before.clear()
        return True

    def _known(self, run: Run) -> tuple[Measured, int | None]:
        """Return what is measured of an execution so far, with its node's version; None: there is no node yet."""
        if self._kept is not None and self._kept[0].execution == run.plan.id:
            return self._kept
        found = self._estate.store.measured(run.plan.id)
        if found is not None:
            return found
        with self._lock:
            noted = self._found[1] if self._found is not None and self._found[0] == run.plan.id else None
        fresh = begun(run.plan.id, self._estate.unit.rpo_s, self._estate.unit.rto_s, noted)
        for sample in self._before:
            fresh = add(fresh, sample)
        return fresh, None

    # -- one look

    def _idle(self, now_ms: int) -> Sample:
        """Take a sample of what the capture has read by itself: while nothing moves no cluster is asked for it."""
        records, seconds = self._capture.lag()
        source, target = self._capture.read_ends()
        at_ms = source.at_ms if isinstance(source, Known) else now_ms
        return Sample(at_ms, _word(records), _word(seconds), _word(source), _word(target))

    def _sample(self, now_ms: int, *, gap: bool) -> Sample:
        flow = self._estate.inbound(self._estate.region)
        records, seconds = self._capture.lag()
        return Sample(now_ms, _word(records), _word(seconds), self._end(flow.source), self._end(flow.target), gap)

    def _end(self, region: Region) -> Reading:
        """Return the sum of a region's log ends. One that did not answer its observer is not asked: its silence is the reason."""
        partitions = self._partitions(region)
        if isinstance(partitions, str):
            return partitions
        try:
            return float(sum(self._estate.clusters[region].ends(partitions, "read_uncommitted").values()))
        except MrcError as error:
            if error.kind == "bug":
                raise
            return error.reason

    def _partitions(self, region: Region) -> list[TopicPartition] | str:
        """Return the unit's partitions in a region, copies included, or why its observer has not seen them."""
        seen = self._observer.region(region).topics
        if isinstance(seen, Unknown):
            return seen.reason
        return [TopicPartition(topic, p) for topic, info in sorted(seen.value.items()) for p in range(len(info.leaders))]


def _word(reading: Looked[float]) -> Reading:
    return reading.value if isinstance(reading, Known) else reading.reason
