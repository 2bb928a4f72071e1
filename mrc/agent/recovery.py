"""Recovery of what a failover left behind: export, resolution, the sums.

Works on one ledger entry: reads the old region's log, writes in the region that was failed over to. Every batch is one transaction that
also holds the note of how far it has come (`mrc.core.failover.divergence`), written by an emitter whose name belongs to the entry: who
opens it next ends whatever an agent that died, or sleeps, had begun, and then reads the notes. So each record is exported once and
re-emitted once, wherever an agent is killed. Nothing is deleted here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import msgspec

from mrc.agent.estate import Estate
from mrc.agent.store import LeaderCheck
from mrc.core.errors import MrcError
from mrc.core.failover.divergence import (
    NOTES_TOPIC,
    Exported,
    Fate,
    Note,
    Notes,
    Origin,
    Resolved,
    ResolvePolicy,
    Rewritten,
    Settling,
    accounts,
    exported_key,
    fate,
    fate_key,
    origin_of,
    own_headers,
    pattern_copies,
    read_notes,
    recovered_topic,
    resolved_key,
    settling_key,
    with_origin,
)
from mrc.core.failover.ledger import Account, Ledger, Tail
from mrc.core.model import Flow, Offset, Record, Region, TopicPartition, encode
from mrc.ports import COMMITTED, Cluster, Emitted, Emitter, Sight

BATCH = 500
"""Records in one transaction: few enough that it ends well within a lease."""

READ = 5_000
"""Records read at once where nothing is written."""

AVAILABLE: tuple[str, ...] = ("quarantine", "append", "untouched")
"""Policies that this version carries out."""


@dataclass(frozen=True)
class Progress:
    """How far a pass over an entry has come."""

    doing: str
    done: int
    of: int


def recovered_tps(ledger: Ledger) -> dict[TopicPartition, Tail]:
    """Return the tails that have divergent records, by partition."""
    return {TopicPartition(tail.topic, tail.partition): tail for tail in ledger.tails if tail.records > 0}


class Recovery:
    """One entry's recovery by one agent that leads. Each pass may be broken off anywhere and begun again.

    Args:
        interrupted: asked between two batches; a pass ends early then.
    """

    def __init__(self, estate: Estate, lead: LeaderCheck, ledger: Ledger, interrupted: Callable[[], bool] = lambda: False) -> None:
        if ledger.state == "open":
            message = f"{ledger.region} has not returned, or its log cannot be listed: nobody knows yet what stayed behind"
            raise MrcError("DIVERGENCE_OPEN", message, where=ledger.id)
        self._estate = estate
        self._lead = lead
        self._ledger = ledger
        self._interrupted = interrupted
        self._tails = recovered_tps(ledger)

    # -- the ends of a pass

    @property
    def _there(self) -> Cluster:
        """The cluster that was failed over to."""
        return self._estate.clusters[self._ledger.target]

    @contextlib.contextmanager
    def _emitting(self) -> Iterator[Emitter]:
        self._lead()
        self._there.ensure_topic(NOTES_TOPIC, compacted=True)
        emitter = self._there.emitter(f"mrc.recovery.{self._estate.unit.name}.{self._ledger.id}")
        try:
            yield emitter
        finally:
            emitter.close()

    def notes(self) -> Notes:
        """Return what has been done of the entry so far."""
        return status(self._estate, self._ledger)

    def _commit(self, emitter: Emitter, records: Sequence[Emitted], notes: Mapping[bytes, Note]) -> None:
        """Write records and what is noted of them, all or nothing, no faster than the settings say."""
        self._lead()
        now_ms = self._estate.clock.now_ms()
        note = TopicPartition(NOTES_TOPIC, 0)
        emitter.send([*records, *(Emitted(note, key, encode(value), now_ms) for key, value in notes.items())])
        self._lead()
        emitter.commit()
        if records:
            self._estate.clock.sleep(len(records) / self._estate.unit.recovery.records_per_second)

    def _require_uncopied(self, topics: Sequence[str]) -> None:
        """Refuse where MirrorMaker would copy a recovered topic to the other region, where it is nobody's."""
        unit = self._estate.unit
        for flow in (Flow(self._ledger.region, self._ledger.target), Flow(self._ledger.target, self._ledger.region)):
            settings = self._estate.replicators[flow.target].settings(self._estate.connector(flow))
            copied = [topic for topic in map(recovered_topic, topics) if settings and pattern_copies(settings, topic)]
            if copied:
                message = (
                    f"{unit.connectors[flow]} would copy {', '.join(copied)}: name the topics in its `topics`, or exclude mrc.recovered.*"
                )
                raise MrcError("RECOVERED_COPIED", message, where=str(flow))

    # -- export

    def export(self) -> Iterator[Progress]:
        """Copy every divergent record to its recovered topic, once, in order; yield after every batch.

        Raises:
            MrcError: world errors; ``RECOVERED_COPIED``; ``NOT_VERIFIED`` where the old log does not hold what was listed.
        """
        total = self._ledger.divergent
        if not total:
            return
        topics = sorted({tp.topic for tp in self._tails})
        self._require_uncopied(topics)
        counts = {topic: sum(tail.topic == topic for tail in self._ledger.tails) for topic in topics}
        for topic in topics:
            self._lead()
            self._there.ensure_topic(recovered_topic(topic), compacted=False, partitions=counts[topic])
        sight = self._source_sight()
        with self._emitting() as emitter:
            notes = self.notes()
            done = sum(one.records for one in notes.exported.values())
            yield Progress("export", done, total)
            for tp, tail in self._tails.items():
                came = notes.exported.get(tp, Exported(tail.begin, 0))
                while came.next < tail.end and not self._interrupted():
                    came = self._export_some(emitter, tp, tail, came, sight)
                    done += came.records - notes.exported.get(tp, Exported(0, 0)).records
                    notes = msgspec.structs.replace(notes, exported={**notes.exported, tp: came})
                    yield Progress("export", done, total)

    def _source_sight(self) -> Sight:
        return self._estate.sights(Flow(self._ledger.region, self._ledger.target)).source

    def _export_some(self, emitter: Emitter, tp: TopicPartition, tail: Tail, came: Exported, sight: Sight) -> Exported:
        old = self._estate.clusters[self._ledger.region]
        found = old.records(tp, Offset(came.next), BATCH, sight)
        records = [one for one in found if one.offset < tail.end]
        # Fewer than were asked for, or one from behind the tail: all of the tail has been seen.
        after = Exported(records[-1].offset + 1 if records and len(records) == BATCH else tail.end, came.records + len(records))
        if after.next == tail.end and after.records != tail.records:
            message = (
                f"{tp} was listed with {tail.records} records from {tail.begin} to {tail.end}, and holds {after.records}: export nothing"
            )
            raise MrcError("NOT_VERIFIED", message, where=f"{self._ledger.region} {tp}")
        there = TopicPartition(recovered_topic(tp.topic), tp.partition)
        self._commit(emitter, [self._outgoing(there, tp, one) for one in records], {exported_key(self._ledger.id, tp): after})
        return after

    def _outgoing(self, there: TopicPartition, tp: TopicPartition, record: Record) -> Emitted:
        origin = Origin(self._ledger.id, self._ledger.region, tp.topic, tp.partition, record.offset, record.timestamp_ms)
        return Emitted(there, record.key, record.value, record.timestamp_ms, with_origin(record, origin))

    # -- resolution

    def resolve(self) -> Iterator[Progress]:
        """Give every exported record its fate, by its topic's policy as it was at the first try; yield after every batch.

        Raises:
            MrcError: world errors; ``NOT_EXPORTED``; ``POLICY_NOT_AVAILABLE``; ``RECORD_UNEXPECTED`` where the region that was failed
                over to is not the open one, and records would be re-emitted there; ``TOPIC_RECREATED`` where its topic is another one.
        """
        total = self._ledger.divergent
        if not total:
            return
        self._require_same_topics()
        with self._emitting() as emitter:
            notes = self.notes()
            missing = [str(tp) for tp, tail in self._tails.items() if notes.exported.get(tp, Exported(0, 0)).records != tail.records]
            if missing:
                raise MrcError("NOT_EXPORTED", f"not exported to the end: {', '.join(missing)}", where=self._ledger.id)
            notes = self._settle(emitter, notes)
            done = sum(one.emitted + one.superseded + one.quarantined for one in notes.resolved.values())
            yield Progress("resolve", done, total)
            for topic, settling in notes.settling.items():
                written = self._written(topic, settling) if settling.policy == "untouched" else {}
                for tp in (tp for tp in self._tails if tp.topic == topic):
                    for some in self._resolve_partition(emitter, tp, settling.policy, written, notes.resolved.get(tp)):
                        done += some
                        yield Progress("resolve", done, total)

    def _settle(self, emitter: Emitter, notes: Notes) -> Notes:
        """Write down, once, by which policy each topic is resolved and up to where entities are looked for."""
        topics = sorted({tp.topic for tp in self._tails} - notes.settling.keys())
        fresh: dict[str, Settling] = {}
        for topic in topics:
            policy = self._estate.unit.recovery.policy(topic)
            if policy not in AVAILABLE:
                message = f"{topic}: {policy} needs conflict rules, which this version does not have; allowed: {', '.join(AVAILABLE)}"
                raise MrcError("POLICY_NOT_AVAILABLE", message, where=topic)
            # Committed ends: what an open transaction has below them is decided, what it has above them counts as later.
            ends = self._there.ends(self._there_tps(topic), "read_committed")
            fresh[topic] = Settling(cast(ResolvePolicy, policy), tuple(ends[tp] for tp in self._there_tps(topic)))
        if any(one.policy != "quarantine" for one in (*fresh.values(), *notes.settling.values())):
            self._require_open()
        if fresh:
            self._commit(emitter, [], {settling_key(self._ledger.id, topic): one for topic, one in fresh.items()})
        return msgspec.structs.replace(notes, settling={**notes.settling, **fresh})

    def _require_same_topics(self) -> None:
        """See that the topics are those that were failed over to: what another one holds says nothing of what was written since."""
        known = {topic: id for topic, id in self._ledger.target_topic_ids.items() if topic in {tp.topic for tp in self._tails}}
        found = self._there.topics(sorted(known))
        anew = [topic for topic, id in sorted(known.items()) if topic not in found or found[topic].topic_id != id]
        if anew:
            message = (
                f"{', '.join(anew)} of {self._ledger.target} is not the topic that was failed over to: it was deleted or made anew since"
            )
            raise MrcError("TOPIC_RECREATED", message, where=self._ledger.id)

    def _there_tps(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, tail.partition) for tail in self._ledger.tails if tail.topic == topic]

    def _require_open(self) -> None:
        record, _ = self._estate.require_record()
        if (record.region, record.state) != (self._ledger.target, "open"):
            message = f"records are written again in {self._ledger.target} while it is open; the record says {record.region} {record.state}"
            raise MrcError("RECORD_UNEXPECTED", message, where=self._ledger.id)

    def _resolve_partition(
        self, emitter: Emitter, tp: TopicPartition, policy: ResolvePolicy, written: Rewritten, came: Resolved | None
    ) -> Iterator[int]:
        there = TopicPartition(recovered_topic(tp.topic), tp.partition)
        end = self._there.ends([there], "read_committed")[there]
        came = came or Resolved(self._there.starts([there])[there])
        while came.next < end and not self._interrupted():
            found = self._there.records(there, Offset(came.next), BATCH)
            ours = [(one, origin) for one in found if (origin := origin_of(one)) and origin.failover == self._ledger.id]
            fates = [fate(policy, one, written) for one, _ in ours]
            again = [
                Emitted(
                    origin.tp,
                    one.key,
                    one.value,
                    origin.timestamp_ms,
                    with_origin(msgspec.structs.replace(one, headers=own_headers(one)), origin),
                )
                for (one, origin), what in zip(ours, fates, strict=True)
                if what.fate == "emitted"
            ]
            if again:
                self._require_open()
            came = came.with_fates(found[-1].offset + 1 if len(found) == BATCH else end, fates)
            said: dict[bytes, Note] = {fate_key(origin): what for (_, origin), what in zip(ours, fates, strict=True)}
            self._commit(emitter, again, {**said, resolved_key(self._ledger.id, tp): came})
            yield len(fates)

    def _written(self, topic: str, settling: Settling) -> Rewritten:
        """Return which of the exported records' keys the region has taken since the failover, below the stated offsets.

        Where the topic is compacted, to the end: a newer write may have taken the one below away.
        """
        wanted = {record.key for record, _ in self._exported(topic) if record.key is not None}
        compacted = "compact" in self._there.topics([topic])[topic].config.get("cleanup.policy", "")
        ends = self._there.ends(self._there_tps(topic), "read_committed")
        upto = {tp: Offset(ends[tp] if compacted else settling.upto[tp.partition]) for tp in self._there_tps(topic)}
        found: dict[bytes, tuple[int, int]] = {}
        for tp, record in self._since_failover(topic, upto):
            if record.key in wanted and not self._is_ours(record):
                found[record.key] = (tp.partition, record.offset)
        return found

    def _is_ours(self, record: Record) -> bool:
        origin = origin_of(record)
        return origin is not None and origin.failover == self._ledger.id

    def _exported(self, topic: str) -> Iterator[tuple[Record, Origin]]:
        """Yield the entry's records in a topic's recovered topic."""
        tps = [TopicPartition(recovered_topic(topic), tp.partition) for tp in self._tails if tp.topic == topic]
        starts, ends = self._there.starts(tps), self._there.ends(tps, "read_committed")
        for tp in tps:
            for record in read(self._there, tp, starts[tp], ends[tp]):
                origin = origin_of(record)
                if origin is not None and origin.failover == self._ledger.id:
                    yield record, origin

    def _since_failover(self, topic: str, upto: Mapping[TopicPartition, Offset]) -> Iterator[tuple[TopicPartition, Record]]:
        """Yield what a topic has taken in the region since the failover: below the mirror's end nothing is its own."""
        begins = {TopicPartition(tail.topic, tail.partition): tail.mirror_end for tail in self._ledger.tails if tail.topic == topic}
        for tp, begin in begins.items():
            for record in read(self._there, tp, begin, upto[tp]):
                yield tp, record

    # -- the sums

    def account(self) -> tuple[Account, ...]:
        """Return what became of every divergent record, counted anew from the logs; each sum matches.

        Raises:
            MrcError: world errors; ``SUMS_DIFFER`` where one does not, naming the partitions: nothing may be taken for done then.
        """
        if not self._tails:
            return ()
        notes = self.notes()
        exported: dict[TopicPartition, int] = {}
        found: dict[TopicPartition, int] = {}
        overtaken: dict[TopicPartition, int] = {}
        for topic in sorted({tp.topic for tp in self._tails}):
            for _, origin in self._exported(topic):
                exported[origin.tp] = exported.get(origin.tp, 0) + 1
            self._read_back(topic, notes, found, overtaken)
        sums = tuple(
            msgspec.structs.replace(one, overtaken=overtaken.get(TopicPartition(one.topic, one.partition), 0))
            for one in accounts(self._ledger, notes, exported, found)
        )
        wrong = [
            f"{one.topic}-{one.partition}: {one.divergent} divergent, {one.exported} exported, {one.emitted} re-emitted "
            f"({one.found} found), {one.superseded} superseded, {one.quarantined} quarantined"
            for one in sums
            if not one.balanced
        ]
        if wrong:
            raise MrcError("SUMS_DIFFER", "; ".join(wrong), where=self._ledger.id)
        return sums

    def _read_back(self, topic: str, notes: Notes, found: dict[TopicPartition, int], overtaken: dict[TopicPartition, int]) -> None:
        """Count a topic's re-emitted records where they were written, and those whose entity was written after the stated offset."""
        settling = notes.settling.get(topic)
        if settling is None or settling.policy == "quarantine":
            return
        tps = self._there_tps(topic)
        ends = self._there.ends(tps, "read_committed")
        emitted: dict[bytes, list[TopicPartition]] = {}
        later: set[bytes] = set()
        held: dict[TopicPartition, set[int]] = {}
        for tp, record in self._since_failover(topic, ends):
            origin = origin_of(record)
            if origin is not None and origin.failover == self._ledger.id:
                found[origin.tp] = found.get(origin.tp, 0) + 1
                held.setdefault(origin.tp, set()).add(origin.offset)
                if record.key is not None:
                    emitted.setdefault(record.key, []).append(origin.tp)
            elif record.key is not None and record.offset >= settling.upto[tp.partition]:
                later.add(record.key)
        for key in later & emitted.keys():
            for of in emitted[key]:
                overtaken[of] = overtaken.get(of, 0) + 1
        if "compact" in self._there.topics([topic])[topic].config.get("cleanup.policy", ""):
            # Newer writes of their entities have taken some of them away since: that is no loss, and no second copy either.
            for (of, offset), one in notes.fates.items():
                if one.fate == "emitted" and of.topic == topic:
                    found[of] = found.get(of, 0) + (offset not in held.get(of, set()))


def read(cluster: Cluster, tp: TopicPartition, begin: Offset, end: Offset, sight: Sight = COMMITTED) -> Iterator[Record]:
    """Yield the visible records in ``[begin, end)``, in offset order. Raises world errors."""
    position = begin
    while position < end:
        found = cluster.records(tp, position, READ, sight)
        for record in found:
            if record.offset < end:
                yield record
        if len(found) < READ:
            return
        position = Offset(found[-1].offset + 1)


def status(estate: Estate, ledger: Ledger) -> Notes:
    """Return what has been done of an entry so far; empty where the region that was failed over to knows nothing of it."""
    return read_notes(ledger.id, estate.clusters[ledger.target].load(NOTES_TOPIC))


def pending(estate: Estate, region: Region) -> list[tuple[Ledger, int]]:
    """Return the entries of a region whose records are not accounted for, with their versions, oldest first."""
    return [(ledger, version) for ledger, version in estate.store.ledgers() if ledger.region == region and not ledger.settled]


__all__ = ["AVAILABLE", "Fate", "Progress", "Recovery", "pending", "read", "recovered_tps", "status"]
