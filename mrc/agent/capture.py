"""Capture: every group's committed position, translated as soon as it is committed, durable in the target cluster.

Runs in the agent that leads in a flow's target while the flow's source is the active region. A checkpoint is written only once
the source's log has been read up to its position, so that whatever MM2 copied can be told from what it did not. When the
source dies, what stands in the target is all there is, and it is enough.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from mrc.agent import noticing
from mrc.agent.alignment import Alignment
from mrc.agent.commits import FollowedCommits
from mrc.agent.estate import Estate
from mrc.agent.final_positions import Committed, final_positions
from mrc.agent.flow_lag import FlowLag, totals
from mrc.agent.noticing import by_group
from mrc.agent.pairs import Pair
from mrc.agent.verifying import verify
from mrc.core.errors import MrcError
from mrc.core.failover.measured import rereads
from mrc.core.inventory import Position
from mrc.core.model import ActiveRecord, GroupId, Known, Offset, Reading, Region, TopicPartition, Unknown, Value, encode
from mrc.core.translation.checkpoint import Checkpoint, CheckpointKey, advance, decode_checkpoints, encode_checkpoint
from mrc.core.translation.offset_map import REASONS, Bounded, Exact, Translation, Unanswerable
from mrc.core.translation.sight import Sights
from mrc.core.views import CheckpointView, FindingView, PartitionLagView, TranslationView, VerifiedView

RECORD_EVERY_S = 0.5
SETTLE_EVERY_S = 2.0
REVIEW_EVERY_S = 5.0
"""How often answers that were final are looked at again: copies that MM2 sends again turn an exact one into a bounded one."""

BEYOND_TOLD_MS = 2_000
"""How long a position beyond what was read is waited for before it is written that it has no answer yet."""

UNREAD_MAX = 20_000
"""Offsets of both logs together that may be unread when a planned move begins: a fraction of a second of reading."""

_Look = Literal["settled", "current", "waits"]
"""Of a position that was looked at: answered until it changes; answered, and an exact answer may still be found; not answered."""


class CaptureView(Value, frozen=True):
    """What readers see of the capture; made on request from its present state."""

    lag_records: Reading[float]
    lag_seconds: Reading[float]
    rpo: str
    checkpoint_age_s: Reading[float]
    checkpoints: tuple[CheckpointView, ...]
    partitions: tuple[PartitionLagView, ...]


class Capture:
    """The capture of the flow into an agent's own region."""

    def __init__(self, estate: Estate) -> None:
        self._estate = estate
        self._flow = estate.inbound(estate.region)
        self._alignment = Alignment(estate, self._flow)
        self._lag = FlowLag(self._alignment)
        self._topic = f"mrc.checkpoints.{self._flow.source}.internal"
        self._checkpoints: dict[CheckpointKey, Checkpoint] = {}
        self._commits = FollowedCommits(estate, self._flow.source)
        self._due: dict[CheckpointKey, int] = {}
        self._retention_ms: int | None = None
        self._compared = False
        self._garbled: list[bytes] = []
        self._reviewed_at_s = self._settled_at_s = self._record_at_s = 0.0
        self._record: ActiveRecord | None = None
        self._running = False
        self.rereads = rereads({})

    # -- the pump

    def tick(self) -> bool:
        """Read on, and capture when it is time; return whether there was anything new.

        Raises:
            MrcError: the target, or ZooKeeper, does not answer. A dead source only shows in the views.
        """
        record = self._recent_record()
        if not self._wanted(record):
            self.pause()
            return False
        if not self._running:
            self._start()
        self._alignment.open()
        news = self._alignment.read_on()
        now_s = self._estate.clock.monotonic_s()
        self._capture(record, now_s)
        self._lag.tick(now_s)
        if now_s - self._settled_at_s >= SETTLE_EVERY_S:
            self._settled_at_s = now_s
            self._settle()
        self._alignment.store()
        self._alignment.refresh()
        return news

    @property
    def record(self) -> ActiveRecord | None:
        """The active-region record as `tick` saw it last; None before it has."""
        return self._record

    def _recent_record(self) -> ActiveRecord:
        """Return the record as it was `RECORD_EVERY_S` ago at most: each read of it asks a quorum."""
        now_s = self._estate.clock.monotonic_s()
        if self._record is None or now_s - self._record_at_s >= RECORD_EVERY_S:
            self._record, _ = self._estate.require_record()
            self._record_at_s = now_s
        return self._record

    def _wanted(self, record: ActiveRecord) -> bool:
        """Capture while the source is active; go on through a move until the target has been opened."""
        if self._estate.unit.policy == "default":
            return True
        return record.region == self._flow.source or record.state != "open"

    def _start(self) -> None:
        target = self._estate.clusters[self._flow.target]
        for topic in (self._topic, self._alignment.topic):
            target.ensure_topic(topic, compacted=True)
        found, self._garbled = decode_checkpoints(target.load(self._topic))
        self._checkpoints = {key: one for key, one in found.items() if key.topic in self._alignment.names}
        self._running = True

    def pause(self) -> None:
        """Stop, where it runs; `tick` begins again from what is stored then."""
        if self._running:
            self.close()

    def close(self) -> None:
        """Stop; what was written stays."""
        self._running = False  # first: others ask whether it runs after they took what it knows
        self._alignment.close()
        self._commits.close()
        self._checkpoints = {}
        self._due = {}
        self._compared = False
        self._lag.forget()

    def _settle(self) -> None:
        """Tell the maps where the running flow began, and what failovers left behind."""
        found = self._estate.store.flow_start(self._flow)
        if found is not None and found[0].applied:
            self._alignment.pass_below(found[0].offsets())
        anchors: dict[TopicPartition, list[tuple[int, int]]] = {}
        for ledger, _ in self._estate.store.ledgers():
            for tail in ledger.tails if ledger.state == "listed" else ():
                # The other region's mirror ended where its own records begin; the tail ends where they come back.
                here, there = (tail.end, tail.mirror_end) if ledger.region == self._flow.source else (tail.mirror_end, tail.end)
                anchors.setdefault(TopicPartition(tail.topic, tail.partition), []).append((here, there))
        self._alignment.set_anchors(anchors)

    # -- capturing

    def _capture(self, record: ActiveRecord, now_s: float) -> None:
        """Write a checkpoint for every position that has changed, or whose answer has."""
        if not self._alignment.source_readable:
            return
        now_ms = self._estate.clock.now_ms()
        try:
            changed, gone = self._commits.tick()
            gone |= self._missed(record)
            if gone:
                self._withdraw({CheckpointKey(group, tp.topic, tp.partition) for group, tp in gone}, record, now_ms)
        except MrcError as error:
            self._commits.close()
            if error.code in ("CLUSTER_UNREACHABLE", "AUTHENTICATION_FAILED"):
                self._alignment.source_failed(error)
                return
            raise
        for group, tp in changed:
            self._due.setdefault(CheckpointKey(group, tp.topic, tp.partition), now_ms)
        if now_s - self._reviewed_at_s >= REVIEW_EVERY_S:
            self._reviewed_at_s = now_s
            for group, tp in self._commits.positions:
                self._due.setdefault(CheckpointKey(group, tp.topic, tp.partition), now_ms)
        self._write(now_ms)

    def _write(self, now_ms: int) -> None:
        changed: dict[CheckpointKey, Checkpoint] = {}
        with self._alignment.lock:
            looked = {key: self._capture_one(key, now_ms, changed) for key in self._due}
        if changed:
            records = [encode_checkpoint(key, checkpoint) for key, checkpoint in changed.items()]
            self._estate.clusters[self._flow.target].append(self._topic, records)
            self._checkpoints.update(changed)
        for key, found in looked.items():
            if found == "settled":
                del self._due[key]
            elif found == "current":
                self._due[key] = now_ms

    def _capture_one(self, key: CheckpointKey, now_ms: int, changed: dict[CheckpointKey, Checkpoint]) -> _Look:
        """Answer for one position, where enough has been read for that."""
        tp = TopicPartition(key.topic, key.partition)
        position = self._commits.positions.get((key.group, tp))
        pair = self._alignment.pairs.get(tp)
        if position is None or key.topic not in self._alignment.names:
            return "settled"  # gone meanwhile, or on a topic of another replication group
        if pair is None:
            return "waits"  # a partition that the target does not have yet
        beyond = position.offset > pair.source_position and pair.wants_source
        if not pair.read_through or (beyond and now_ms - self._due[key] < BEYOND_TOLD_MS):
            return "waits"  # not read that far yet, or not far enough to know of every twin; what is stored stands
        before = self._checkpoints.get(key)
        checkpoint = advance(
            before,
            source_offset=position.offset,
            metadata=position.metadata,
            translation=_answer(pair, position.offset),
            now_ms=now_ms,
            topic_id=pair.ids[0],
            target_id=pair.ids[1],
        )
        if before is None or not _says_the_same(before, checkpoint):
            changed[key] = checkpoint
        return "settled" if isinstance(checkpoint.translation, Exact) else "current"

    # -- positions that are gone

    def _missed(self, record: ActiveRecord) -> set[tuple[GroupId, TopicPartition]]:
        """Return, once after each start, what has a checkpoint and no position any more."""
        if self._compared or record.region != self._flow.source:
            return set()
        self._compared = True
        unit = self._estate.unit  # other replication groups, and groups that are configured no more, keep theirs in the same topic
        ours = (key for key in self._checkpoints if key.topic in self._alignment.names and key.group in unit.groups)
        return {(key.group, TopicPartition(key.topic, key.partition)) for key in ours} - self._commits.positions.keys()

    def _withdraw(self, gone: set[CheckpointKey], record: ActiveRecord, now_ms: int) -> None:
        """Delete the checkpoints of positions that somebody deleted; those that Kafka may have let expire are kept.

        A position younger than the retention cannot have expired: it was deleted, or its topic or group was. Only the open
        region's word counts.
        """
        for key in gone:
            self._due.pop(key, None)
        if record.region != self._flow.source or record.state != "open":
            return
        if self._retention_ms is None:
            minutes = self._estate.clusters[self._flow.source].broker_settings().get("offsets.retention.minutes", "0")
            self._retention_ms = int(minutes) * 60_000
        deleted = [key for key in gone if (c := self._checkpoints.get(key)) and now_ms - c.captured_at_ms < self._retention_ms]
        if deleted:
            self.forget(deleted)

    def _confirmed_ms(self, key: CheckpointKey, checkpoint: Checkpoint) -> int:
        """Return when the checkpoint was last known to say what its group's position is."""
        return min(self._due.get(key, self._commits.heard_at_ms), self._commits.heard_at_ms) or checkpoint.captured_at_ms

    # -- for the mover

    def final_positions(self, *, source_alive: bool, deadline_s: float) -> dict[GroupId, dict[TopicPartition, Position]]:
        """See `mrc.agent.work.Positions`."""
        found, self.rereads = final_positions(self._alignment, self._captured_positions, source_alive=source_alive, deadline_s=deadline_s)
        return found

    def _captured_positions(self) -> dict[tuple[GroupId, TopicPartition], Committed] | None:
        """Return what was captured; None while the capture does not run."""
        checkpoints = self._checkpoints.copy()
        if not self._running:
            return None
        return {
            (key.group, TopicPartition(key.topic, key.partition)): Committed(Position(Offset(c.source_offset), c.metadata), c)
            for key, c in checkpoints.items()
            if key.group in self._estate.unit.groups
        }

    @property
    def sights(self) -> Sights:
        """See `mrc.agent.work.Positions`."""
        return self._alignment.sights

    def behind(self) -> str:
        """See `mrc.agent.work.Positions`."""
        if not self._running:
            return "the capture has not started yet"
        unread = self._lag.unread()
        if unread is None:
            return "the capture has not looked at the logs' ends yet"
        return f"the capture still has {unread:,} offsets of both logs to read" if unread > UNREAD_MAX else ""

    def source_topic_ids(self) -> dict[str, str]:
        """See `mrc.agent.work.Positions`."""
        with self._alignment.lock:
            return {tp.topic: pair.ids[0] for tp, pair in self._alignment.pairs.items() if pair.ids[0]}

    def target_topic_ids(self) -> dict[str, str]:
        """See `mrc.agent.work.Positions`."""
        with self._alignment.lock:
            return {tp.topic: pair.ids[1] for tp, pair in self._alignment.pairs.items() if not pair.came_back}

    def last_mirrored(self) -> dict[TopicPartition, int]:
        """See `mrc.agent.work.Positions`."""
        with self._alignment.lock:
            return {tp: pair.known.last[0] for tp, pair in self._alignment.pairs.items() if pair.known.last and not pair.came_back}

    def standby_positions(self) -> dict[GroupId, dict[TopicPartition, Position]]:
        """Return the safe target position of every group on every partition that has one, for keeping them in the standby."""
        found: dict[GroupId, dict[TopicPartition, Position]] = {}
        with self._alignment.lock:
            targets = {tp: (pair.target, pair.ids[1]) for tp, pair in self._alignment.pairs.items()}
        for key, checkpoint in self._checkpoints.copy().items():
            target, target_id = targets.get(TopicPartition(key.topic, key.partition), (None, ""))
            if target is not None and (floor := checkpoint.floor_in(target_id)) >= 0:
                found.setdefault(key.group, {})[target] = Position(Offset(floor), checkpoint.metadata)
        return found

    def captured(self) -> dict[CheckpointKey, Checkpoint]:
        """Return every checkpoint as it stands."""
        return self._checkpoints.copy()

    def forget(self, keys: Iterable[CheckpointKey]) -> None:
        """Delete checkpoints; the caller leads, and has seen that their positions are gone. Raises world errors."""
        gone = list(keys)
        self._estate.clusters[self._flow.target].append(self._topic, [(encode(key), None) for key in gone])
        for key in gone:
            self._checkpoints.pop(key, None)

    # -- for readers

    def translate(self, source: Region, tp: TopicPartition, offset: Offset) -> TranslationView:
        """Translate an offset of either region into the other's; ``tp`` by its name in the flow's source.

        Raises:
            MrcError: ``UNKNOWN_TOPIC`` for a partition that there is no map of.
        """
        with self._alignment.lock:
            pair = self._alignment.pairs.get(tp)
            if pair is None:
                raise MrcError("UNKNOWN_TOPIC", f"there is no offset map of {tp} here", where=str(self._flow))
            if source == self._flow.source:
                answer = _answer(pair, offset)
            elif pair.target_read_through:
                answer = pair.to_source(offset)
            else:
                # What is still to be read may be later copies of earlier records.
                answer = Unanswerable("not-yet-read")
        return translation_view(answer)

    def findings(self) -> tuple[FindingView, ...]:
        """Return what the capture has noticed that an operator should know."""
        found = [FindingView("GARBLED_RECORD", "warning", f"record with key {key!r} cannot be read", self._topic) for key in self._garbled]
        if self._commits.refused:
            message = f"commits cannot be followed, groups are asked one by one: {self._commits.refused}"
            found.append(FindingView("COMMITS_NOT_FOLLOWED", "warning", message, str(self._flow.source)))
        found += [FindingView(c.code, "warning", c.message, where) for where, c in sorted(self._alignment.complaints.copy().items())]
        found += noticing.lacking(self._alignment)
        if self._record is None or (self._record.region, self._record.state) != (self._flow.target, "open"):
            # Under the default policy positions of the standby are captured too; nobody moves away from there.
            positions = {
                (key.group, TopicPartition(key.topic, key.partition)): c.source_offset for key, c in self._checkpoints.copy().items()
            }
            found += noticing.deleted(self._alignment, positions, self._lag.starts)
            found += noticing.unanswered(self._checkpoints.copy())
        if self._record is not None and self._record.region == self._flow.source:
            found += noticing.read_in_part(self._estate.unit, self._flow, self._lag.held(), self._commits.positions.copy())
        if self._running and (behind := self.behind()):
            found.append(FindingView("CAPTURE_BEHIND", "warning", behind, str(self._flow)))
        return tuple(found)

    def obstacles(self) -> list[FindingView]:
        """See `mrc.agent.work.Positions`."""
        return [one for one in self.findings() if one.code in noticing.FORBID_PLANNED]

    def lag(self) -> tuple[Reading[float], Reading[float]]:
        """Return the flow's lag in records and seconds; unknown while it is not captured."""
        now_ms = self._estate.clock.now_ms()
        if not self._running:
            stopped = Unknown("not-captured", f"{self._flow} is not captured now", now_ms)
            return stopped, stopped
        return totals(self._lags(now_ms), now_ms)

    def read_ends(self) -> tuple[Reading[float], Reading[float]]:
        """See `FlowLag.ends`."""
        return self._lag.ends()

    def snapshot(self) -> CaptureView:
        """Return lag and checkpoints as they stand."""
        now_ms = self._estate.clock.now_ms()
        partitions = self._lags(now_ms)
        checkpoints = tuple(
            self._view(key, checkpoint, now_ms) for key, checkpoint in sorted(self._checkpoints.copy().items(), key=by_group)
        )
        records, seconds = totals(partitions, now_ms)
        ages = [(now_ms - self._confirmed_ms(key, checkpoint)) / 1000 for key, checkpoint in self._checkpoints.copy().items()]
        age: Reading[float] = Known(max(ages), now_ms) if ages else Unknown("no-checkpoint", "no position was captured yet", now_ms)
        return CaptureView(records, seconds, self._lag.rpo(records, seconds, now_ms), age, checkpoints, partitions)

    def _lags(self, now_ms: int) -> tuple[PartitionLagView, ...]:
        """Return the lag of each partition that the flow copies."""
        with self._alignment.lock:
            return tuple(self._lag.partition(pair, now_ms) for _, pair in sorted(self._alignment.pairs.items()) if not pair.came_back)

    def _view(self, key: CheckpointKey, checkpoint: Checkpoint, now_ms: int) -> CheckpointView:
        return CheckpointView(
            group=key.group,
            source=self._flow.source,
            target=self._flow.target,
            topic=key.topic,
            partition=key.partition,
            source_offset=checkpoint.source_offset,
            translation=translation_view(checkpoint.translation),
            floor=checkpoint.floor,
            age_s=(now_ms - self._confirmed_ms(key, checkpoint)) / 1000,
        )

    # -- verifying

    def verify(self, checkpoint: CheckpointView) -> VerifiedView:
        """See `mrc.agent.verifying.verify`."""
        pair = self._alignment.pairs.get(TopicPartition(checkpoint.topic, checkpoint.partition))
        if pair is None:
            return VerifiedView(checkpoint, "unproved", "nothing is known of this partition")
        here, there = self._estate.clusters[self._flow.source], self._estate.clusters[self._flow.target]
        return verify(here, there, pair, self._alignment.sights, checkpoint)


def _answer(pair: Pair, offset: Offset) -> Translation:
    """Translate into the target; where no copy is recognised, say that rather than that none was made."""
    answer = pair.to_target(offset)
    if isinstance(answer, Unanswerable) and pair.changed is not None:
        return Unanswerable("records-changed")
    return answer


def _says_the_same(before: Checkpoint, after: Checkpoint) -> bool:
    """Whether only the time differs."""
    return msgspec.structs.replace(before, captured_at_ms=after.captured_at_ms) == after


def translation_view(answer: Translation) -> TranslationView:
    """Return what is shown of an answer."""
    match answer:
        case Exact():
            return TranslationView("exact", answer.offset, detail=answer.evidence)
        case Bounded():
            return TranslationView("bounded", answer.offset, answer.repeats_max, answer.reason)
        case Unanswerable():
            return TranslationView("unknown", reason=answer.reason, detail=REASONS.get(answer.reason, ""))
