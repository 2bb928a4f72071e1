"""Reads both logs of one flow side by side and keeps every partition's offset map, in memory and in the target cluster.

One thread reads (`read_on`); others ask under the same lock. A dead source stops nothing: what it had is kept, the target is
read on, and the source is tried again every `RETRY_S`.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterable, Mapping

from mrc.agent.estate import Estate
from mrc.agent.pairs import Pair, oriented
from mrc.core.errors import MrcError
from mrc.core.inventory import TopicInfo
from mrc.core.model import Flow, Offset, TopicPartition
from mrc.core.translation.changed import BYTES_AS_THEY_ARE, Changed, changed
from mrc.core.translation.offset_map import OffsetMap
from mrc.core.translation.sight import Sights
from mrc.core.translation.stored import Anew, Decoded, decode_map, encode_map, stored_isolation
from mrc.ports import COMMITTED, Batch, Reader

RETRY_S = 1.0
STORE_EVERY_S = 1.0
REFRESH_EVERY_S = 10.0
"""How often it is looked whether topics were made anew, have grown or have other settings."""

UNRECOGNISED_MIN = 20
_SAMPLE = 200
ANEW_TOLD_MS = 24 * 3_600_000
"""How long it is told that a map was begun anew."""

POLL_RECORDS = 5_000
POLL_S = 0.02


class Alignment:
    """All partitions of one flow.

    Attributes:
        loaded: `pairs` holds what is stored, or more; False while it is being looked for.
        loads: how often it was loaded: an answer that was put together across two loads is none.
        names: of the topics in the target, by their names in the source.
        target_ids: ids of the target's topics, by their names in the source, when they were looked at last.
    """

    def __init__(self, estate: Estate, flow: Flow) -> None:
        self.estate = estate
        self.flow = flow
        self.topic = f"mrc.offset-map.{flow.source}.internal"
        self.lock = threading.RLock()
        self.pairs: dict[TopicPartition, Pair] = {}
        self.complaints: dict[str, Changed] = {}
        self.source_down: MrcError | None = None
        self.source_seen_at_ms = 0
        self.source_down_since_ms = 0
        self._by_target: dict[TopicPartition, Pair] = {}
        self._source_reader: Reader | None = None
        self._target_reader: Reader | None = None
        self._paused: dict[str, set[TopicPartition]] = {"source": set(), "target": set()}
        self._retry_at_s = 0.0
        self.loaded = False
        self.target_ids: dict[str, str] = {}
        self.loads = 0
        self._half_known = self._out_of_range = False
        self.sights = Sights(COMMITTED, COMMITTED)
        self._stored_at_s = 0.0
        self._refreshed_at_s = 0.0
        self._loaded_by: object = None
        self.names = estate.unit.counterparts(flow.source)

    # -- opening and closing

    def open(self) -> None:
        """Load the maps and start reading where they end. Idempotent; called again and again.

        A source that cannot be read is tried again later; what was stored of it serves until then.

        Raises:
            MrcError: the target cannot be read.
        """
        if self._half_known and self._may_try_source() and self._source_answers():
            self.close()
        if self._target_reader is None:
            if self._out_of_range and not self._may_try_source():
                return
            self._out_of_range = False
            self._load()
            target = self.estate.clusters[self.flow.target]
            start = {p.target: Offset(p.target_position) for p in self.pairs.values()}
            ends = target.ends(list(start), self.sights.target.isolation)
            for pair in self.pairs.values():
                pair.target_goal = ends[pair.target]
            self._target_reader = target.reader(start, self.sights.target)
        if self._source_reader is None and not self._half_known and self._may_try_source():
            try:
                self._open_source()
            except MrcError as error:
                self.source_failed(error)

    def _source_answers(self) -> bool:
        """Ask before what serves meanwhile is given up: a dead source is asked again and again."""
        try:
            self.estate.clusters[self.flow.source].topics(tuple(self.names))
        except MrcError as error:
            self.source_failed(error)
            return False
        return True

    def _load(self) -> None:
        target, names = self.estate.clusters[self.flow.target], self.names
        stored = target.load(self.topic)
        there = target.topics(list(names.values()))
        try:
            here: Mapping[str, TopicInfo] = self.estate.clusters[self.flow.source].topics(tuple(names))
        except MrcError as error:
            self.source_failed(error)
            here = {}
        self._half_known = not here
        isolation = stored_isolation(stored, names)
        self.sights = self.estate.sights_of(self.flow, here, there, isolation)
        if self.flow not in self.estate.settings and not isolation:
            # Whether aborted records were copied decides what stands for what: a guess would let groups skip records.
            message = "Connect has not said yet how this connector reads its source, so nothing is compared"
            raise MrcError("CONNECT_UNREACHABLE", message, where=self.estate.connector(self.flow), retryable=True)
        self._loaded_by = self._premises(here, there, self.sights)
        self._refreshed_at_s = self.estate.clock.monotonic_s()
        pairs: dict[TopicPartition, Pair] = {}
        for topic, name in names.items():
            if name not in there:
                self.complaints[topic] = Changed("OFFSET_MAP", f"topic {name} does not exist in {self.flow.target} yet")
                continue
            for p in range(len(there[name].leaders)):
                pair = self._load_pair(stored, TopicPartition(topic, p), TopicPartition(name, p), there[name].topic_id, here)
                if pair is not None:
                    pair.compacted = any(_compacts(info) for info in (there[name], here.get(topic)))
                    pair.known.complete = not pair.compacted and not self._transforms and not pair.came_back
                    pair.known.torn = pair.compacted or pair.known.begin_source > 0 or pair.known.begin_target > 0
                    pair.known.faithful = self._faithful(self.flow.reversed if pair.came_back else self.flow)
                    pairs[pair.source] = pair
        with self.lock:
            self.pairs.update(pairs)
            self._by_target.update((pair.target, pair) for pair in pairs.values())
            self.target_ids = {topic: there[name].topic_id for topic, name in names.items() if name in there}
            self.loads += 1
            self.loaded = True

    def _load_pair(
        self, stored: dict[bytes, bytes], source: TopicPartition, target: TopicPartition, target_id: str, here: Mapping[str, TopicInfo]
    ) -> Pair | None:
        info = here.get(source.topic)
        stamped = source.topic not in self.sights.source.unstamped
        sight = f"{self.sights.source.isolation}, {'with' if stamped else 'without'} timestamps"
        source_id = info.topic_id if info else ""
        found = decode_map(stored, source.topic, source.partition, (source_id, target_id), sight if info else "")
        if found.wrong:
            self.complaints[str(source)] = Changed("OFFSET_MAP", f"{source}: {found.wrong}")
        start = self.estate.clusters[self.flow.target].starts([target])[target]
        came_back = source.topic not in self.estate.unit.topics
        known, anew = found.known, found.anew
        if info is None:
            # The source cannot be asked: only what was stored can be used.
            if known is None:
                return None
        elif source.partition >= len(info.leaders):
            return None
        else:
            source_start = self.estate.clusters[self.flow.source].starts([source])[source]
            begin = oriented(source_start, start, came_back=came_back)
            if known is None or known.resolved_source < begin[0] or known.resolved_target < begin[1] or self._cut(source, target, known):
                anew = self._begun_anew(found)
                known = OffsetMap(*begin)
        if anew is not None and self.estate.clock.now_ms() - anew.at_ms < ANEW_TOLD_MS:
            self.complaints[str(source)] = Changed("OFFSET_MAP", f"{source}: begun anew at {_utc(anew.at_ms)}: {anew.why}")
        pair = Pair(source, target, known, (source_id, target_id), stamped=stamped, came_back=came_back)
        pair.sight, pair.anew = sight, anew
        return pair

    def _cut(self, source: TopicPartition, target: TopicPartition, known: OffsetMap) -> bool:
        """Whether a log ends before what was compared of it: it came back shorter, and what is written there now was never compared."""
        came_back = source.topic not in self.estate.unit.topics
        of_source, of_target = oriented(known.resolved_source, known.resolved_target, came_back=came_back)
        clusters = self.estate.clusters
        return (
            of_source > clusters[self.flow.source].ends([source], "read_uncommitted")[source]
            or of_target > clusters[self.flow.target].ends([target], "read_uncommitted")[target]
        )

    def _begun_anew(self, found: Decoded) -> Anew | None:
        """Return the note that a map is begun anew; none where there was none before."""
        if found.wrong:
            return Anew(self.estate.clock.now_ms(), found.wrong)
        if found.known is not None and (found.known.last or found.known.unrecognised):
            # Records between the map's end and the log's start are gone and were never compared.
            return Anew(self.estate.clock.now_ms(), "a log begins later by now, or ends earlier, than the map had been made to")
        return found.anew

    @property
    def _transforms(self) -> bool:
        """Whether the flow may leave records out, or change them, on purpose."""
        return bool(self.estate.settings.get(self.flow, {}).get("transforms"))

    def _faithful(self, flow: Flow) -> bool:
        """Whether a flow is known to copy byte for byte. What a connector takes over from its worker's settings is not known."""
        settings = self.estate.settings.get(flow, {})
        return not settings.get("transforms") and all(settings.get(name) == converter for name, converter in BYTES_AS_THEY_ARE.items())

    def _premises(self, here: Mapping[str, TopicInfo], there: Mapping[str, TopicInfo], sights: Sights) -> object:
        """Return what the maps depend on: where it is otherwise by now, they have to begin anew."""
        return _shape(here, there), sights, self._transforms, self._faithful(self.flow)

    def refresh(self) -> None:
        """Begin anew, from what is stored, where topics were made anew, have grown or are looked at otherwise by now.

        Raises:
            MrcError: the target cannot be read.
        """
        now_s = self.estate.clock.monotonic_s()
        if self._source_reader is None or now_s - self._refreshed_at_s < REFRESH_EVERY_S:
            return
        self._refreshed_at_s = now_s
        there = self.estate.clusters[self.flow.target].topics(tuple(self.names.values()))
        try:
            here = self.estate.clusters[self.flow.source].topics(tuple(self.names))
            sights = self.estate.sights_of(self.flow, here, there)
            if self._premises(here, there, sights) != self._loaded_by:
                self.store(now=True)
                self.close()
                return
            for pair in list(self.pairs.values()):
                if not pair.came_back:  # the other region's agent looks there
                    self._look_for_changes(pair)
        except MrcError as error:
            if error.kind == "bug":
                raise
            self.source_failed(error)

    def _look_for_changes(self, pair: Pair) -> None:
        """Where a flow copies and no copy is recognised, find out why."""
        aligner = pair.aligner
        if pair.known.last is not None:
            pair.changed = None
            self.complaints.pop(f"copies of {pair.source}", None)
        elif pair.known.unrecognised >= UNRECOGNISED_MIN and aligner.pending_source and pair.changed is None:
            begin = Offset(pair.known.resolved_source)
            end = max(pair.known.begin_target, aligner.target_position - _SAMPLE)
            records = self.estate.clusters[self.flow.source].records(pair.source, begin, _SAMPLE, self.sights.source)
            copies = self.estate.clusters[self.flow.target].records(pair.target, Offset(end), _SAMPLE, self.sights.target)
            first = self.estate.clusters[self.flow.target].records(
                pair.target, Offset(pair.known.begin_target), _SAMPLE, self.sights.target
            )
            pair.changed = changed(records, [*first, *copies], stamped=pair.source.topic not in self.sights.source.unstamped)
            if pair.changed is not None:
                self.complaints[f"copies of {pair.source}"] = pair.changed

    def _open_source(self) -> None:
        source = self.estate.clusters[self.flow.source]
        tps = list(self.pairs)
        starts = source.starts(tps)
        start = {tp: Offset(max(starts[tp], self.pairs[tp].source_position)) for tp in tps}
        for tp, end in source.ends(tps, self.sights.source.isolation).items():
            goal = self.pairs[tp].source_goal
            self.pairs[tp].source_goal = end if goal is None else min(goal, end)  # a source that was gone may be shorter
        self._source_reader = source.reader(start, self.sights.source)
        self.source_down = None
        self.source_seen_at_ms = self.estate.clock.now_ms()

    def close(self) -> None:
        """Stop reading and forget; what was stored stays."""
        for reader in (self._source_reader, self._target_reader):
            if reader is not None:
                reader.close()
        with self.lock:
            self.loaded = False
            self._source_reader = self._target_reader = None
            self.pairs.clear()
            self._by_target.clear()
            self.complaints.clear()
            for paused in self._paused.values():
                paused.clear()

    # -- reading

    def _may_try_source(self) -> bool:
        return self.estate.clock.monotonic_s() >= self._retry_at_s

    def source_failed(self, error: MrcError) -> None:
        """Note that the source did not answer some question of this flow: it is tried again `RETRY_S` later."""
        if self._source_reader is not None:
            self._source_reader.close()
            self._source_reader = None
        if self.source_down is None:
            self.source_down_since_ms = self.estate.clock.now_ms()
        self.source_down = error
        self._retry_at_s = self.estate.clock.monotonic_s() + RETRY_S

    @property
    def source_readable(self) -> bool:
        """Whether the source answered last time."""
        return self._source_reader is not None

    def read_on(self) -> bool:
        """Read what has come on both sides, pair it, decide what can be decided; return whether there was anything new."""
        news = False
        if self._source_reader is not None:
            try:
                news = self._feed(self._source_reader.poll(POLL_RECORDS, POLL_S), source=True)
                self.source_seen_at_ms = self.estate.clock.now_ms()
            except MrcError as error:
                self.source_failed(error)
                if error.code == "OFFSET_OUT_OF_RANGE":
                    # The log begins later by now, or is another topic's: begin anew from what of the stored map still holds.
                    self._out_of_range = True
                    self.close()
        if self._target_reader is not None:
            try:
                news = self._feed(self._target_reader.poll(POLL_RECORDS, POLL_S), source=False) or news
            except MrcError:
                self.close()  # begin anew from what is stored: the log may have another beginning by now
                raise
        self._decide()
        self._hold_back()
        return news

    def _feed(self, batches: list[Batch], *, source: bool) -> bool:
        with self.lock:
            for batch in batches:
                if source:
                    self.pairs[batch.tp].feed_source(batch.records, batch.position)
                else:
                    self._by_target[batch.tp].feed_target(batch.records, batch.position)
        return any(batch.records for batch in batches)

    def _decide(self) -> None:
        """Ask for the originals' ends where a copy waits for them."""
        stuck = [pair for pair in self.pairs.values() if pair.aligner.stuck]
        here, there = [pair.source for pair in stuck if not pair.came_back], [pair.target for pair in stuck if pair.came_back]
        ends: dict[Pair, Offset] = {}
        if there:
            found = self.estate.clusters[self.flow.target].ends(there, self.sights.target.isolation)
            ends |= {self._by_target[tp]: end for tp, end in found.items()}
        if here and self._source_reader is not None:
            try:
                found = self.estate.clusters[self.flow.source].ends(here, self.sights.source.isolation)
                ends |= {self.pairs[tp]: end for tp, end in found.items()}
            except MrcError as error:
                self.source_failed(error)
        with self.lock:
            for pair, end in ends.items():
                pair.aligner.note_source_end(end)

    def pass_below(self, begins: dict[TopicPartition, Offset]) -> None:
        """Say from where the running flow copies: what lies below and has no counterpart yet never will."""
        with self.lock:
            for pair in self.pairs.values():
                pair.aligner.note_flow_begin(begins.get(pair.source, 0))
        behind = [p for p in self.pairs.values() if p.aligner.pending_source and p.aligner.map.resolved_source < begins.get(p.source, 0)]
        if not behind:
            return
        ends = self.estate.clusters[self.flow.target].ends([p.target for p in behind], "read_committed")
        with self.lock:
            for pair in behind:
                if pair.aligner.target_position >= ends[pair.target]:
                    pair.aligner.pass_left_behind()

    def _hold_back(self) -> None:
        """Keep memory bounded: a side that is far ahead waits."""
        for side, reader in (("source", self._source_reader), ("target", self._target_reader)):
            if reader is None:
                self._paused[side].clear()
                continue
            full = {
                (p.source if side == "source" else p.target)
                for p in self.pairs.values()
                if not (p.wants_source if side == "source" else p.wants_target)
            }
            paused = self._paused[side]
            if full - paused:
                reader.pause(full - paused)
            if paused - full:
                reader.resume(paused - full)
            self._paused[side] = full

    # -- storing

    def store(self, *, now: bool = False) -> None:
        """Write changed maps to the target's compacted topic, at most every `STORE_EVERY_S`."""
        now_s = self.estate.clock.monotonic_s()
        if not now and now_s - self._stored_at_s < STORE_EVERY_S:
            return
        self._stored_at_s = now_s
        records: list[tuple[bytes, bytes | None]] = []
        stored: list[tuple[Pair, tuple[int, int]]] = []
        with self.lock:
            for tp, pair in self.pairs.items():
                known = pair.known
                at = (known.resolved_source, known.resolved_target)
                if at != pair.stored_at and pair.ids[0]:
                    records += encode_map(
                        tp.topic, tp.partition, known, pair.ids, first_before=pair.stored_first, sight=pair.sight, anew=pair.anew
                    )
                    stored.append((pair, at))
        if records:
            self.estate.clusters[self.flow.target].append(self.topic, records)
            for pair, at in stored:
                pair.stored_first, pair.stored_at = pair.known.first, at
                pair.known.changed_from = len(pair.known)

    def set_anchors(self, anchors: Mapping[TopicPartition, Iterable[tuple[int, int]]]) -> None:
        """Set the pairs of positions (source, target) at which failovers left tails behind; where there are none, none stay."""
        with self.lock:
            for tp, pair in self.pairs.items():
                pair.known.anchors = tuple(sorted(anchors.get(tp, ())))


def _shape(here: Mapping[str, TopicInfo], there: Mapping[str, TopicInfo]) -> tuple[object, ...]:
    """Return ids, partition counts and whether topics are compacted: what makes it necessary to begin anew."""
    return tuple({name: (info.topic_id, len(info.leaders), _compacts(info)) for name, info in topics.items()} for topics in (here, there))


def _utc(at_ms: int) -> str:
    return dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC).isoformat(timespec="seconds")


def _compacts(info: TopicInfo | None) -> bool:
    """Whether records of the topic are taken away from the middle of its logs."""
    return info is not None and "compact" in info.config.get("cleanup.policy", "")
