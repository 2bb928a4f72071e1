"""Counts what moves cost, from the traffic's own logs and full reads of the regions' topics.

Refuses to know anything that mrc says about itself, except what it is given to hold mrc to: the captured positions.
Invariant: `judge` is a pure function; whatever it cannot decide counts against the move, with a reason.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from mrc.core.errors import MrcError
from mrc.sandbox.traffic_log import Acked, Logs, Processed, decode_event

Partition = tuple[str, int]

RegionLog = Mapping[Partition, Sequence[tuple[int, str]]]
"""Per partition the offsets and event ids of the visible records, in offset order."""


class Move(msgspec.Struct, frozen=True, rename={"source": "from", "target": "to"}):
    """One move as its caller saw it.

    Attributes:
        kind: ``failover`` is unplanned; everything else is planned and must cost nothing.
        source: the region that was left.
        target: the region that was opened.
        accepted_at_ms: when the command was accepted, wall clock.
        captured: per group and ``topic-partition`` of the source, the last committed position that was captured before the
            move; re-reads of what was processed at or above it are permitted to a failover.
    """

    kind: str
    source: str
    target: str
    accepted_at_ms: int
    captured: Mapping[str, Mapping[str, int]] = {}

    @property
    def planned(self) -> bool:
        """Whether the move promises that nothing is lost."""
        return self.kind != "failover"


class Limits(msgspec.Struct, frozen=True):
    """What a move may take at most; None: not judged."""

    write_block_s: float | None = 10.0
    rto_s: float | None = 15.0


LIMITS = Limits()


class MoveVerdict(msgspec.Struct, kw_only=True, rename={"source": "from", "target": "to"}):
    """What one move cost.

    Attributes:
        write_block_s: per partition from the last acknowledgement in the source to the first in the target; the worst.
        rto_s: from acceptance to the first acknowledged write in the target and every group's first event there, whichever is last.
        acked: events acknowledged since the move before.
        lost: acknowledged events that the target's log lacks and that no earlier move lost.
        unreplicated_tail: acknowledged events of the source behind the last one that the target has.
        skipped: acknowledged events in the final active log that a group passed and never processed.
        reread_per_group: processings of events that the group had processed before, beyond what re-sending explains.
        reread_below_capture: those of them that a failover may not cause.
        resent: events acknowledged after the move whose sending had had no answer before it.
        duplicates_in_log: further copies, in the target's log, of events from before the move.
        ok: whether the move kept its promise; ``reasons`` say why not.
    """

    kind: str
    source: str
    target: str
    write_block_s: float | None = None
    rto_s: float | None = None
    acked: int = 0
    lost: int = 0
    lost_per_partition: dict[str, int] = {}
    unreplicated_tail: int = 0
    unreplicated_tail_per_partition: dict[str, int] = {}
    skipped: int = 0
    skipped_per_group: dict[str, int] = {}
    reread_per_group: dict[str, int] = {}
    reread_below_capture: dict[str, int] = {}
    resent: int = 0
    duplicates_in_log: int = 0
    ok: bool = True
    reasons: list[str] = []


class Verdict(msgspec.Struct, kw_only=True):
    """All moves, and what belongs to none.

    Attributes:
        acked: acknowledged events in all.
        lost_after: events acknowledged after the last move that the active region's log lacks.
        reread_before: re-reads before the first move.
    """

    ok: bool
    reasons: list[str]
    acked: int
    acked_after: int
    lost_after: int
    reread_before: dict[str, int]
    moves: list[MoveVerdict]


def judge(
    traffic: Logs,
    logs: Mapping[str, RegionLog],
    moves: Sequence[Move],
    groups: Iterable[str],
    *,
    active: str,
    drained: bool,
    limits: Limits = LIMITS,
) -> Verdict:
    """Return what the moves cost.

    Args:
        traffic: what producers and consumers wrote down.
        logs: the regions' logs, read at the end; a region that could not be read is absent.
        moves: in the order in which they were accepted.
        groups: the consumer groups that must have followed.
        active: the region that was active at first.
        drained: whether every group was given the time to process the active region's log to its end.
        limits: of the times.
    """
    return _Case(traffic, logs, moves, sorted(groups), active, limits, drained=drained).decide()


class _Index:
    """One region's log by event."""

    def __init__(self, log: RegionLog) -> None:
        self.place: dict[str, tuple[Partition, int]] = {}
        self.copies: Counter[str] = Counter()
        self.looped: set[str] = set()
        for partition, records in log.items():
            for offset, event in records:
                self.copies[event] += 1
                if self.place.setdefault(event, (partition, offset))[0][0] != partition[0]:
                    self.looped.add(event)

    def __contains__(self, event: str) -> bool:
        return event in self.place


class _Case:
    """The evidence, arranged by stays: stay ``s`` is the time after ``s`` moves, told by the epoch of each event."""

    def __init__(
        self,
        traffic: Logs,
        logs: Mapping[str, RegionLog],
        moves: Sequence[Move],
        groups: Sequence[str],
        active: str,
        limits: Limits,
        *,
        drained: bool,
    ) -> None:
        self.moves = moves
        self.groups = groups
        self.limits = limits
        self.drained = drained
        self.regions = [active, *(move.target for move in moves)]
        self.log = {region: _Index(log) for region, log in logs.items()}
        self.acks = sorted(traffic.acked, key=lambda ack: ack.at_s)
        self.processed = sorted(traffic.processed, key=lambda line: line.at_s)
        self.doubts = Counter(line.id for line in traffic.in_doubt)
        self.openings = self._openings()
        self.acks_of: list[list[Acked]] = [[] for _ in self.regions]
        for ack in self.acks:
            self.acks_of[self.stay(ack.epoch)].append(ack)
        self.processed_of: list[list[Processed]] = [[] for _ in self.regions]
        for line in self.processed:
            self.processed_of[self.stay(line.epoch)].append(line)
        self.lost: set[str] = set()
        self.verdicts = [
            MoveVerdict(
                kind=move.kind,
                source=move.source,
                target=move.target,
                acked=len(self.acks_of[number]),
                reread_per_group=dict.fromkeys(groups, 0),
                skipped_per_group=dict.fromkeys(groups, 0),
                reasons=[],
            )
            for number, move in enumerate(moves)
        ]

    def stay(self, epoch: int) -> int:
        return bisect_right(self.openings, epoch)

    def _openings(self) -> list[float]:
        """Return, per move, the epoch with which its target opened; infinity where nothing was seen there.

        A move that was aborted and opened its source again has no target epoch of its own, so its caller leaves it out.
        """
        openings: list[float] = []
        before = -math.inf
        seen = [(ack.at_s * 1000, ack.region, ack.epoch) for ack in self.acks]
        seen += [(line.at_s * 1000, line.region, line.epoch) for line in self.processed]
        for number, move in enumerate(self.moves):
            end_ms = self.moves[number + 1].accepted_at_ms if number + 1 < len(self.moves) else math.inf
            found = {
                epoch for at_ms, region, epoch in seen if region == move.target and move.accepted_at_ms <= at_ms < end_ms and epoch > before
            }
            before = min(found) if found else before
            openings.append(before if found else math.inf)
        # Nothing can be attributed to a move whose target was never seen: its events stay with the stay before it.
        for number in range(len(openings) - 2, -1, -1):
            openings[number] = min(openings[number], openings[number + 1])
        return openings

    def decide(self) -> Verdict:
        reasons: list[str] = []
        for number, verdict in enumerate(self.verdicts):
            self._sides(number, verdict)
            self._times(number, verdict)
            self._loss(number, verdict)
            self._copies(number, verdict)
        lost_after = self._lost_after(reasons)
        # What a producer has sent again to the other region, after no answer from the first, stands in both regions as their own.
        again = self.doubts.keys() | {ack.id for ack in self.acks if ack.resent}
        for region, index in sorted(self.log.items()):
            if looped := index.looped - again:
                reasons.append(f"{len(looped)} events stand in two topics of {region}, such as {min(looped)}: copied in a loop")
        self._skips()
        reread_before = self._rereads()
        for number, verdict in enumerate(self.verdicts):
            self._promise(number, verdict)
            verdict.ok = not verdict.reasons
            reasons += [f"move {number + 1} ({verdict.kind} to {verdict.target}): {reason}" for reason in verdict.reasons]
        return Verdict(
            ok=not reasons,
            reasons=reasons,
            acked=len(self.acks),
            acked_after=len(self.acks_of[-1]),
            lost_after=lost_after,
            reread_before=reread_before,
            moves=self.verdicts,
        )

    # ---------------------------------------------------------------- one move

    def _sides(self, number: int, verdict: MoveVerdict) -> None:
        """Only the active region of a stay may have taken writes, and the source none after the target's first."""
        if self.regions[number] != self.moves[number].source:
            verdict.reasons.append(f"it claims to leave {self.moves[number].source}, but {self.regions[number]} was active")
        for stay, name in ((number, "before"), (number + 1, "after")):
            stray = Counter(ack.region for ack in self.acks_of[stay] if ack.region != self.regions[stay])
            if stray and (stay == number + 1 or number == 0):
                verdict.reasons.append(f"acknowledged elsewhere {name} the move: {_spell(stray)}")
        first_s = min((ack.at_s for ack in self.acks_of[number + 1]), default=math.inf)
        late = sum(ack.at_s > first_s for ack in self.acks_of[number])
        if late:
            verdict.reasons.append(f"{late} events acknowledged in {verdict.source} after the first in {verdict.target}")

    def _times(self, number: int, verdict: MoveVerdict) -> None:
        last = {(ack.topic, ack.partition): ack.at_s for ack in self.acks_of[number]}
        first = {(ack.topic, ack.partition): ack.at_s for ack in reversed(self.acks_of[number + 1])}
        silent = sorted(last.keys() - first.keys())
        if silent:
            verdict.reasons.append(f"no write acknowledged in {verdict.target} for {', '.join(_name(each) for each in silent)}")
        blocks_s = [first[partition] - last[partition] for partition in last.keys() & first.keys()]
        verdict.write_block_s = None if silent or not blocks_s else round(max(blocks_s), 3)
        firsts_s = [min(first.values())] if first else []
        for group in self.groups:
            at_s = next((line.at_s for line in self.processed_of[number + 1] if line.group == group), None)
            if at_s is None:
                verdict.reasons.append(f"{group} processed nothing in {verdict.target}")
            else:
                firsts_s.append(at_s)
        if len(firsts_s) == len(self.groups) + 1:
            verdict.rto_s = round(max(firsts_s) - self.moves[number].accepted_at_ms / 1000, 3)

    def _loss(self, number: int, verdict: MoveVerdict) -> None:
        target = self.log.get(verdict.target)
        if target is None:
            verdict.reasons.append(f"the log of {verdict.target} could not be read")
            return
        gone = [ack for acks in self.acks_of[: number + 1] for ack in acks if ack.id not in target and ack.id not in self.lost]
        # An event may have been acknowledged once only; sets guard the count all the same.
        self.lost |= {ack.id for ack in gone}
        verdict.lost = len({ack.id for ack in gone})
        verdict.lost_per_partition = _count((ack.topic, ack.partition) for ack in gone)
        last_copied: dict[Partition, int] = {}
        for ack in self.acks_of[number]:
            if ack.id in target:
                partition = (ack.topic, ack.partition)
                last_copied[partition] = max(last_copied.get(partition, -1), ack.offset)
        tail = [ack for ack in self.acks_of[number] if ack.offset > last_copied.get((ack.topic, ack.partition), -1)]
        verdict.unreplicated_tail = len(tail)
        verdict.unreplicated_tail_per_partition = _count((ack.topic, ack.partition) for ack in tail)
        unexplained = {ack.id for ack in gone} ^ {ack.id for ack in tail}
        if not verdict.reasons and not self.moves[number].planned and unexplained:
            verdict.reasons.append(f"lost is not the unreplicated tail: {len(unexplained)} events differ, such as {min(unexplained)}")

    def _copies(self, number: int, verdict: MoveVerdict) -> None:
        verdict.resent = sum(ack.resent for ack in self.acks_of[number + 1])
        target = self.log.get(verdict.target)
        if target is not None:
            verdict.duplicates_in_log = sum(target.copies[ack.id] - 1 for ack in self.acks_of[number] if ack.id in target)

    def _promise(self, number: int, verdict: MoveVerdict) -> None:
        planned = self.moves[number].planned
        if planned and verdict.lost:
            verdict.reasons.append(f"lost {verdict.lost} acknowledged events: {_spell(verdict.lost_per_partition)}")
        if verdict.skipped:
            verdict.reasons.append(f"skipped {_spell(verdict.skipped_per_group)}")
        if planned and any(verdict.reread_per_group.values()):
            verdict.reasons.append(f"processed again {_spell(verdict.reread_per_group)}")
        if not planned and verdict.reread_below_capture:
            verdict.reasons.append(f"processed again below the captured position {_spell(verdict.reread_below_capture)}")
        for name, took_s, limit_s in (
            ("write block", verdict.write_block_s, self.limits.write_block_s),
            # Until a failback closes the region it leaves, that one is open and nobody waits: what nobody can do is in the write block.
            ("RTO", verdict.rto_s, None if verdict.kind == "failback" else self.limits.rto_s),
        ):
            if took_s is not None and limit_s is not None and took_s >= limit_s:
                verdict.reasons.append(f"{name} {took_s} s, the limit is {limit_s} s")

    # ---------------------------------------------------------------- over all moves

    def _lost_after(self, reasons: list[str]) -> int:
        """What the last stay lost in its own region: a broker that forgot, or an acknowledgement that was none."""
        log = self.log.get(self.regions[-1])
        if log is None:
            reasons.append(f"the log of the active region {self.regions[-1]} could not be read")
            return 0
        gone = [ack.id for ack in self.acks_of[-1] if ack.id not in log]
        self.lost |= set(gone)
        if gone:
            reasons.append(f"{len(gone)} events acknowledged after the last move are not in the log, such as {gone[0]}")
        return len(gone)

    def _skips(self) -> None:
        """Attribute every event that a group passed and never processed to the move that carried the group over it.

        Lost events are accounted for already: a divergent tail lies in its region's log for ever and is nobody's to process.
        """
        log = self.log.get(self.regions[-1])
        if log is None or not self.verdicts:
            return
        for group in self.groups:
            done = {line.id for line in self.processed if line.group == group}
            starts, ends = self._spans(group)
            for stay, acks in enumerate(self.acks_of):
                for ack in acks:
                    if ack.id in done or ack.id in self.lost or ack.id not in log:
                        continue
                    partition, offset = log.place[ack.id]
                    if not self.drained and offset > ends[-1].get(partition, -1):
                        continue
                    verdict = self.verdicts[self._skipped_by(stay, ack, starts)]
                    verdict.skipped += 1
                    verdict.skipped_per_group[group] += 1

    def _spans(self, group: str) -> tuple[list[dict[Partition, int]], list[dict[Partition, int]]]:
        """Return, per stay, the first and the highest offset that ``group`` processed in each partition."""
        starts: list[dict[Partition, int]] = []
        ends: list[dict[Partition, int]] = []
        for lines in self.processed_of:
            first: dict[Partition, int] = {}
            highest: dict[Partition, int] = {}
            for line in lines:
                if line.group == group:
                    partition = (line.topic, line.partition)
                    first.setdefault(partition, line.offset)
                    highest[partition] = max(highest.get(partition, -1), line.offset)
            starts.append(first)
            ends.append(highest)
        return starts, ends

    def _skipped_by(self, stay: int, ack: Acked, starts: Sequence[Mapping[Partition, int]]) -> int:
        for number in range(stay, len(self.moves)):
            target = self.log.get(self.moves[number].target)
            if target is None or ack.id not in target:
                continue
            partition, offset = target.place[ack.id]
            if starts[number + 1].get(partition, -1) > offset:
                return number
        return min(stay, len(self.moves) - 1)

    def _rereads(self) -> dict[str, int]:
        """Attribute every processing that nothing explains to the move that led into its stay; return those before any move."""
        sent = Counter(ack.id for ack in self.acks) + self.doubts
        before: Counter[str] = Counter(dict.fromkeys(self.groups, 0))
        below: list[Counter[str]] = [Counter() for _ in self.moves]
        times: defaultdict[str, list[Processed]] = defaultdict(list)
        for line in self.processed:
            times[f"{line.group}\0{line.id}"].append(line)
        for lines in times.values():
            again = lines[max(1, sent[lines[0].id]) :]
            for line in again:
                number = self.stay(line.epoch) - 1
                if number < 0:
                    before[line.group] += 1
                    continue
                counts = self.verdicts[number].reread_per_group
                counts[line.group] = counts.get(line.group, 0) + 1
                if not self._after_capture(self.moves[number], lines[0]):
                    below[number][line.group] += 1
        for verdict, counter in zip(self.verdicts, below, strict=True):
            verdict.reread_below_capture = dict(counter)
        return dict(before)

    def _after_capture(self, move: Move, first: Processed) -> bool:
        """Whether the source position at which the group first processed the event is at or above the captured one."""
        if first.region == move.source:
            partition, offset = (first.topic, first.partition), first.offset
        elif move.source in self.log and first.id in self.log[move.source]:
            partition, offset = self.log[move.source].place[first.id]
        else:
            return False
        captured = move.captured.get(first.group, {}).get(_name(partition))
        return captured is not None and offset >= captured


# ---------------------------------------------------------------- reading a region

Isolation = Literal["read_committed", "read_uncommitted"]


def read_log(
    config: Mapping[str, str],
    topics: Sequence[str],
    *,
    timeout_s: float = 60.0,
    last: int | None = None,
    isolation: Isolation = "read_committed",
) -> dict[Partition, list[tuple[int, str]]]:
    """Return the visible events of ``topics`` as they are now, by a plain consumer that belongs to no group.

    Args:
        config: librdkafka's connection settings of a user that may read.
        topics: those that exist are read.
        timeout_s: for everything together.
        last: read about this many records at each partition's end only.
        isolation: whether records of open and aborted transactions count.

    Raises:
        MrcError: ``CLUSTER_UNREACHABLE`` when it could not be done in time.
    """
    deadline_s = time.monotonic() + timeout_s
    with reader(config, f"reading {', '.join(topics)}", isolation) as consumer:
        return _read(consumer, topics, last, deadline_s)


@contextmanager
def reader(config: Mapping[str, str], doing: str, isolation: Isolation = "read_committed") -> Iterator[Consumer]:
    """Open a plain consumer that belongs to no group, commits nothing and tells where a partition ends.

    Raises:
        MrcError: ``CLUSTER_UNREACHABLE``, with what it was ``doing``, where a call to it inside has failed.
    """
    consumer = Consumer(
        {
            **config,
            "group.id": "judge",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "isolation.level": isolation,
            "log_level": 2,  # a dead region is told by the exception, once
            "allow.auto.create.topics": False,
        }
    )
    try:
        yield consumer
    except KafkaException as error:
        raise MrcError("CLUSTER_UNREACHABLE", f"{doing}: {error.args[0].name()}", retryable=True) from error
    finally:
        consumer.close()


def _read(consumer: Consumer, topics: Sequence[str], last: int | None, deadline_s: float) -> dict[Partition, list[tuple[int, str]]]:
    described = consumer.list_topics(timeout=_left_s(deadline_s)).topics
    found: dict[Partition, list[tuple[int, str]]] = {
        (topic, partition): [] for topic in topics if topic in described for partition in described[topic].partitions
    }
    starts = []
    for topic, partition in found:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_left_s(deadline_s))
        if low < high:
            starts.append(TopicPartition(topic, partition, low if last is None else max(low, high - last)))
    consumer.assign(starts)
    reading = {(each.topic, each.partition) for each in starts}
    while reading:
        for message in consumer.consume(2_000, min(0.1, _left_s(deadline_s))):
            where = (str(message.topic()), int(message.partition() or 0))
            error = message.error()
            if error is None:
                event = decode_event(message.value())
                if event is not None and where in reading:
                    found[where].append((int(message.offset() or 0), event.id))
            elif error.code() == KafkaError._PARTITION_EOF:
                reading.discard(where)
            else:
                raise KafkaException(error)
    return found


def _left_s(deadline_s: float) -> float:
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
    return left_s


def _name(partition: Partition) -> str:
    return f"{partition[0]}-{partition[1]}"


def _count(partitions: Iterable[Partition]) -> dict[str, int]:
    return {_name(partition): number for partition, number in sorted(Counter(partitions).items())}


def _spell(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {number}" for name, number in sorted(counts.items()) if number)
