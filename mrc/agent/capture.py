"""Capture: every group's committed position, translated as soon as it is committed, durable in the target cluster.

Runs in the agent that leads in a flow's target while the flow's source is the active region. A checkpoint is written only once
the source's log has been read up to its position, so that whatever MM2 copied can be told from what it did not. When the
source dies, what stands in the target is all there is, and it is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

import msgspec

from mrc.agent.alignment import Alignment
from mrc.agent.commits import FollowedCommits
from mrc.agent.estate import Estate
from mrc.agent.pairs import Pair
from mrc.agent.verifying import verify
from mrc.core.errors import MrcError
from mrc.core.failover.findings import spelt
from mrc.core.failover.measured import rereads
from mrc.core.inventory import Position
from mrc.core.model import ActiveRecord, GroupId, Known, Offset, Reading, Region, TopicPartition, Unknown, Value, encode
from mrc.core.translation.checkpoint import Checkpoint, CheckpointKey, advance, decode_checkpoints, encode_checkpoint
from mrc.core.translation.offset_map import REASONS, Bounded, Exact, Translation, Unanswerable
from mrc.core.translation.sight import Sights
from mrc.core.views import CheckpointView, FindingView, PartitionLagView, TranslationView, VerifiedView

RECORD_EVERY_S = 0.5
ENDS_EVERY_S = 1.0
STARTS_EVERY_S = 10.0
"""Where logs start tells which copies have been deleted, for people only: a move asks anew, for what it commits."""

SETTLE_EVERY_S = 2.0
REVIEW_EVERY_S = 5.0
"""How often answers that were final are looked at again: copies that MM2 sends again turn an exact one into a bounded one."""

BEYOND_TOLD_MS = 2_000
"""How long a position beyond what was read is waited for before it is written that it has no answer yet."""

UNREAD_MAX = 20_000
"""Offsets of both logs together that may be unread when a planned move begins: a fraction of a second of reading."""


LASTING = ("before-map", "never-copied", "records-changed")
"""Reasons that do not pass by themselves."""

FORBID_PLANNED = ("MIRROR_LACKS_RECORDS", "COPIES_DELETED", "HEADERS_CHANGED", "TIMESTAMPS_CHANGED", "RECORDS_CHANGED")
"""Findings with which a planned move would lose records, or could not tell: it compares both sides' records."""


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


class _Committed(NamedTuple):
    """A group's position in the source, and what was captured of it."""

    position: Position
    checkpoint: Checkpoint | None = None

    def floor(self, target_id: str) -> int:
        """Return the last safe offset in the target's topic with this id; -1 where there is none."""
        return self.checkpoint.floor_in(target_id) if self.checkpoint else -1


class Capture:
    """The capture of the flow into an agent's own region."""

    def __init__(self, estate: Estate) -> None:
        self._estate = estate
        self._flow = estate.inbound(estate.region)
        self._alignment = Alignment(estate, self._flow)
        self._topic = f"mrc.checkpoints.{self._flow.source}.internal"
        self._checkpoints: dict[CheckpointKey, Checkpoint] = {}
        self._commits = FollowedCommits(estate, self._flow.source)
        self._due: dict[CheckpointKey, int] = {}
        self._retention_ms: int | None = None
        self._compared = False
        self._ends: dict[TopicPartition, Known[int]] = {}
        self._target_ends: dict[TopicPartition, Offset] = {}
        self._starts: tuple[dict[TopicPartition, Offset], dict[TopicPartition, Offset]] = {}, {}
        self._starts_at_s = float("-inf")
        self._garbled: list[bytes] = []
        self._reviewed_at_s = self._settled_at_s = self._ends_at_s = self._record_at_s = 0.0
        self._record: ActiveRecord | None = None
        self._running = False
        self._names = estate.unit.counterparts(self._flow.source)
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
        if now_s - self._ends_at_s >= ENDS_EVERY_S:
            self._ends_at_s = now_s
            self._read_ends(now_s)
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
        self._checkpoints = {key: one for key, one in found.items() if key.topic in self._names}
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
        self._ends = {}
        self._target_ends = {}
        self._starts = {}, {}
        self._starts_at_s = float("-inf")

    def _read_ends(self, now_s: float) -> None:
        """Read where both logs end (after the positions, so that lag is never negative), and now and then where they start."""
        flow = self._flow
        source, target = self._estate.clusters[flow.source], self._estate.clusters[flow.target]
        targets = [pair.target for pair in self._alignment.pairs.values()]
        self._target_ends = target.ends(targets, "read_committed")
        if not self._alignment.source_readable:
            return
        try:
            ends = source.ends(list(self._alignment.pairs), self._alignment.sights.source.isolation)
            if now_s - self._starts_at_s >= STARTS_EVERY_S:
                self._starts = source.starts(list(self._alignment.pairs)), target.starts(targets)
                self._starts_at_s = now_s
        except MrcError as error:
            self._alignment.source_failed(error)
            return
        now_ms = self._estate.clock.now_ms()
        self._ends = {tp: Known(int(end), now_ms) for tp, end in ends.items()}

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
        if position is None or key.topic not in self._names:
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
        ours = (key for key in self._checkpoints if key.topic in self._names and key.group in unit.groups)
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
            self._estate.clusters[self._flow.target].append(self._topic, [(encode(key), None) for key in deleted])
            for key in deleted:
                del self._checkpoints[key]

    def _confirmed_ms(self, key: CheckpointKey, checkpoint: Checkpoint) -> int:
        """Return when the checkpoint was last known to say what its group's position is."""
        return min(self._due.get(key, self._commits.heard_at_ms), self._commits.heard_at_ms) or checkpoint.captured_at_ms

    # -- for the mover

    def final_positions(self, *, source_alive: bool, deadline_s: float) -> dict[GroupId, dict[TopicPartition, Position]]:
        """See `mrc.agent.work.Positions`."""
        pending: list[str] = []
        found: dict[GroupId, dict[TopicPartition, Position]] = {}
        again: dict[GroupId, list[int | None]] = {}
        live = self._live_positions() if source_alive else None

        def ready() -> bool:
            pending.clear()
            found.clear()
            again.clear()
            positions = live if live is not None else self._captured_positions()
            loads = self._alignment.loads
            if positions is None or not self._alignment.loaded:
                pending.append("the capture is starting")
            elif not self._read_to_the_end(both=source_alive):
                pending.append("the logs are not read to their ends yet")
            elif live is not None and (deleted := self._deleted_now(live)):
                # Nobody can answer for these, however long is waited.
                raise MrcError("NOT_VERIFIED", spelt(deleted), where=str(self._flow))
            else:
                with self._alignment.lock:  # once for all: taken for each it would be waited for thousands of times
                    answers = {at: self._final(at[1], known, final=not source_alive) for at, known in positions.items()}
                for (group, tp), known in positions.items():
                    answer = answers[group, tp]
                    if answer is None:
                        pending.append(f"{group} on {tp} at {known.position.offset}")
                        continue
                    again.setdefault(group, []).append(answer[2])
                    if answer[1] >= 0:
                        found.setdefault(group, {})[answer[0]] = Position(Offset(answer[1]), known.position.metadata)
                if self._alignment.loads != loads or not self._alignment.loaded:
                    pending.append("the maps have been loaded anew")
            return not pending

        if not self._estate.wait_until(ready, deadline_s):
            raise MrcError("NOT_VERIFIED", f"positions are not ready: {'; '.join(pending[:5])}", where=str(self._flow), retryable=True)
        self.rereads = rereads(again)
        return found

    def _live_positions(self) -> dict[tuple[GroupId, TopicPartition], _Committed]:
        source = self._estate.clusters[self._flow.source]
        return {
            (group, tp): _Committed(position)
            for group, positions in source.positions_of(self._estate.unit.groups).items()
            for tp, position in positions.items()
            if tp.topic in self._names
        }

    def _captured_positions(self) -> dict[tuple[GroupId, TopicPartition], _Committed] | None:
        """Return what was captured; None while the capture does not run."""
        checkpoints = self._checkpoints.copy()
        if not self._running:
            return None
        return {
            (key.group, TopicPartition(key.topic, key.partition)): _Committed(Position(Offset(c.source_offset), c.metadata), c)
            for key, c in checkpoints.items()
            if key.group in self._estate.unit.groups
        }

    def _read_to_the_end(self, *, both: bool) -> bool:
        """Whether the target has been read to its end: only then is a copy that was made also known.

        With ``both`` the source too, at least once: only then is it known which records have twins.
        """
        pairs = list(self._alignment.pairs.values())
        if not pairs:
            return not both  # of a dead source nothing was stored: what there is no map of stands on its checkpoints
        ends = self._estate.clusters[self._flow.target].ends([p.target for p in pairs], "read_committed")
        with self._alignment.lock:
            if both:
                return all((p.target_position >= ends[p.target] or p.came_back) and p.source_read_through for p in pairs)
            # Without the source a full window cannot be decided any more: answers stay behind the last pair.
            return all(p.target_position >= ends[p.target] or not p.wants_target for p in pairs)

    def _final(self, tp: TopicPartition, known: _Committed, *, final: bool) -> tuple[TopicPartition, int, int | None] | None:
        """Return the target partition, the offset (-1: begin at the log's start) and how many records repeat at most (None: nobody knows).

        None while there is no answer yet. The caller holds the alignment's lock.
        """
        pair = self._alignment.pairs.get(tp)
        target_id = self._alignment.target_ids.get(tp.topic, "")
        if pair is None:
            return (TopicPartition(self._names[tp.topic], tp.partition), known.floor(target_id), None) if final else None
        answer = pair.to_target(known.position.offset, final=final)
        if isinstance(answer, Exact | Bounded):
            return pair.target, answer.offset, answer.repeats_max if isinstance(answer, Bounded) else 0
        return (pair.target, known.floor(target_id), None) if final else None

    @property
    def sights(self) -> Sights:
        """See `mrc.agent.work.Positions`."""
        return self._alignment.sights

    def behind(self) -> str:
        """See `mrc.agent.work.Positions`."""
        if not self._running:
            return "the capture has not started yet"
        with self._alignment.lock:
            pairs = list(self._alignment.pairs.values())
            if not pairs or not self._ends or not self._target_ends:
                return "the capture has not looked at the logs' ends yet"
            unread = sum(max(0, end.value - pair.source_position) for pair in pairs if (end := self._ends.get(pair.source)))
            unread += sum(max(0, self._target_ends.get(pair.target, 0) - pair.target_position) for pair in pairs)
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
        found += self._lacking()
        if self._record is None or (self._record.region, self._record.state) != (self._flow.target, "open"):
            # Under the default policy positions of the standby are captured too; nobody moves away from there.
            positions = {
                (key.group, TopicPartition(key.topic, key.partition)): c.source_offset for key, c in self._checkpoints.copy().items()
            }
            found += self._deleted(positions, self._starts)
            found += self._unanswered()
        found += self._read_in_part()
        if self._running and (behind := self.behind()):
            found.append(FindingView("CAPTURE_BEHIND", "warning", behind, str(self._flow)))
        return tuple(found)

    def _lacking(self) -> list[FindingView]:
        """Return what the flow has passed without copying it."""
        with self._alignment.lock:
            holes = {tp: list(pair.known.lacking) for tp, pair in sorted(self._alignment.pairs.items()) if pair.known.lacking}
        flow = self._flow
        return [
            FindingView(
                "MIRROR_LACKS_RECORDS",
                "warning",
                f"{sum(hole.records for hole in found):,} records of {tp} in {flow.source}, the first at offset {found[0].begin}, the last "
                f"before {found[-1].end}, were not copied to {flow.target}",
                str(tp),
            )
            for tp, found in holes.items()
        ]

    def _deleted_now(self, positions: Mapping[tuple[GroupId, TopicPartition], _Committed]) -> list[FindingView]:
        """Return what groups would skip by what both logs hold now. Raises world errors."""
        pairs = list(self._alignment.pairs.values())
        source, target = self._estate.clusters[self._flow.source], self._estate.clusters[self._flow.target]
        starts = source.starts([pair.source for pair in pairs]), target.starts([pair.target for pair in pairs])
        return self._deleted({at: one.position.offset for at, one in positions.items()}, starts)

    def _deleted(
        self,
        positions: Mapping[tuple[GroupId, TopicPartition], int],
        starts: tuple[Mapping[TopicPartition, Offset], Mapping[TopicPartition, Offset]],
    ) -> list[FindingView]:
        """Return what groups at these positions in the source would skip, because the target has deleted its copies.

        Args:
            starts: of the source's logs and of the target's. What the source has deleted too, a group has lost there as well.
        """
        flow, found = self._flow, []
        with self._alignment.lock:
            missed = [
                (group, tp, position, pair.deleted(max(position, starts[0].get(tp, 0)), starts[1][pair.target]))
                for (group, tp), position in positions.items()
                if (pair := self._alignment.pairs.get(tp)) is not None and pair.target in starts[1]
            ]
        for group, tp, position, deleted in sorted(missed):
            if deleted.records:
                message = (
                    f"{group} on {tp} at {position} would skip up to {deleted.records:,} records that {flow.source} holds and "
                    f"{flow.target} has deleted: let it read on in {flow.source} to offset {deleted.end}, or reset it to there"
                )
                found.append(FindingView("COPIES_DELETED", "warning", message, str(tp)))
        return found

    def _unanswered(self) -> list[FindingView]:
        """Return, per topic and lasting reason, which positions have no answer."""
        found: dict[tuple[str, str], list[str]] = {}
        for key, checkpoint in sorted(self._checkpoints.copy().items(), key=_order):
            answer = checkpoint.translation
            if isinstance(answer, Unanswerable) and answer.reason in LASTING:
                place = f"{key.group} on partition {key.partition} at {checkpoint.source_offset}"
                found.setdefault((key.topic, answer.reason), []).append(place)
        return [
            FindingView("POSITIONS_UNKNOWN", "warning", f"no answer for {_some(places)}: {REASONS[reason]}", topic)
            for (topic, reason), places in found.items()
        ]

    def _read_in_part(self) -> list[FindingView]:
        """Return which groups read a topic and not the one with the other region's records, where there are some.

        Only the default policy has such topics. mrc sees what groups have committed, not what they subscribe to.
        """
        unit, flow, record = self._estate.unit, self._flow, self._record
        if record is None or record.region != flow.source:
            return []
        records: dict[str, int] = {}
        for tp, end in self._ends.copy().items():
            records[tp.topic] = records.get(tp.topic, 0) + max(0, end.value - self._starts[0].get(tp, 0))
        held: dict[GroupId, set[str]] = {}
        for group, tp in self._commits.positions.copy():
            held.setdefault(group, set()).add(tp.topic)
        return [
            FindingView(
                "COPIES_NOT_READ",
                "warning",
                f"{group} has positions on {read} in {flow.source} and none on {unread}, which holds {records[unread]:,} offsets: it must "
                f"read both; a move lets it begin {self._names[unread]} in {flow.target} at the log's start",
                unread,
            )
            for group in sorted(held.keys() & set(unit.groups))
            for pair in zip(unit.topics, unit.copies(flow.source), strict=False)
            for read, unread in (pair, pair[::-1])
            if read in held[group] and unread not in held[group] and records.get(unread)
        ]

    def obstacles(self) -> list[FindingView]:
        """See `mrc.agent.work.Positions`."""
        return [one for one in self.findings() if one.code in FORBID_PLANNED]

    def lag(self) -> tuple[Reading[float], Reading[float]]:
        """Return the flow's lag in records and seconds; unknown while it is not captured."""
        now_ms = self._estate.clock.now_ms()
        if not self._running:
            stopped = Unknown("not-captured", f"{self._flow} is not captured now", now_ms)
            return stopped, stopped
        with self._alignment.lock:
            partitions = [self._lag(pair, now_ms) for pair in self._alignment.pairs.values()]
        return _total([p.lag_records for p in partitions], sum, now_ms), _total([p.lag_seconds for p in partitions], max, now_ms)

    def read_ends(self) -> tuple[Reading[float], Reading[float]]:
        """Return the sums of the log ends that were read last, of the source's and of the target's partitions; nobody is asked."""
        now_ms = self._estate.clock.now_ms()
        unread = Unknown("not-read", f"the ends of {self._flow} have not been read", now_ms)
        ends, targets = self._ends.copy(), self._target_ends.copy()
        source = Known(float(sum(one.value for one in ends.values())), min(one.at_ms for one in ends.values())) if ends else unread
        return source, Known(float(sum(targets.values())), now_ms) if targets else unread

    def snapshot(self) -> CaptureView:
        """Return lag and checkpoints as they stand."""
        now_ms = self._estate.clock.now_ms()
        with self._alignment.lock:
            partitions = tuple(self._lag(pair, now_ms) for _, pair in sorted(self._alignment.pairs.items()) if not pair.came_back)
        checkpoints = tuple(self._view(key, checkpoint, now_ms) for key, checkpoint in sorted(self._checkpoints.copy().items(), key=_order))
        records = _total([p.lag_records for p in partitions], sum, now_ms)
        seconds = _total([p.lag_seconds for p in partitions], max, now_ms)
        ages = [(now_ms - self._confirmed_ms(key, checkpoint)) / 1000 for key, checkpoint in self._checkpoints.copy().items()]
        age: Reading[float] = Known(max(ages), now_ms) if ages else Unknown("no-checkpoint", "no position was captured yet", now_ms)
        return CaptureView(records, seconds, self._rpo(records, seconds, now_ms), age, checkpoints, partitions)

    def _lag(self, pair: Pair, now_ms: int) -> PartitionLagView:
        aligner, tp = pair.aligner, pair.source
        replicated = Known(float(aligner.map.resolved_source), now_ms)
        down = self._alignment.source_down
        end = self._ends.get(tp)
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

    def _rpo(self, records: Reading[float], seconds: Reading[float], now_ms: int) -> str:
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


def _order(item: tuple[CheckpointKey, Checkpoint]) -> tuple[str, str, int]:
    return item[0].group, item[0].topic, item[0].partition


def _some(places: list[str]) -> str:
    """Name the first few."""
    more = f" and {len(places) - 3} more" if len(places) > 3 else ""
    return ", ".join(places[:3]) + more


def _total(readings: list[Reading[float]], fold: Callable[[list[float]], float], now_ms: int) -> Reading[float]:
    """Fold readings into one; unknown as soon as one of them is."""
    for reading in readings:
        if isinstance(reading, Unknown):
            return reading
    known = [reading.value for reading in readings if isinstance(reading, Known)]
    return Known(fold(known), now_ms) if known else Unknown("not-read-yet", "no partition was read yet", now_ms)


def translation_view(answer: Translation) -> TranslationView:
    """Return what is shown of an answer."""
    match answer:
        case Exact():
            return TranslationView("exact", answer.offset, detail=answer.evidence)
        case Bounded():
            return TranslationView("bounded", answer.offset, answer.repeats_max, answer.reason)
        case Unanswerable():
            return TranslationView("unknown", reason=answer.reason, detail=REASONS.get(answer.reason, ""))
