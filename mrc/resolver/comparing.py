"""Whether two regions' resolved topics say the same of every entity.

Each region is asked up to the ends that its topics had at the start. What differs then may only be under way: it is asked again, by what
has come since, until it is the same or the time is over. Two regions differ for certain where both call their results final and made of
the same events.

Memory is bounded: partitions are read one after another, each in as many passes as its records need, a pass taking the keys of its share
(by hash) alone: at most `PASS_RECORDS` entities of each region are held, as a digest each; and at most `SUSPECTS_MAX` that differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from mrc.core.conflict.headers import CLOCK, ID, ORIGIN, VECTOR
from mrc.core.errors import MrcError
from mrc.core.model import Offset, Region, TopicPartition, Value
from mrc.ports import Arrived, Clock, Logs, Span
from mrc.resolver.audit import Progress, legible, unheard
from mrc.resolver.kinds import Kind, topics
from mrc.resolver.writing import CONFLICT, DECISION, FIELDS, FINAL

PASS_RECORDS = 250_000
SUSPECTS_MAX = 10_000
AGAIN_S = 1.0


class Stands(Value, frozen=True):
    """What one region says of an entity.

    Attributes:
        event: id of the event that stands.
        vector: what it is made of, as in the header ``mrc-vv``, with the id of a person's decision.
        final: nothing that may still come changes it.
        deleted: a deletion stands.
        digest: of everything that must be alike.
    """

    event: str
    vector: str
    final: bool
    deleted: bool
    digest: bytes


class Difference(Value, frozen=True):
    """An entity of which the regions do not say the same.

    Attributes:
        state: ``differs``: results that are final and made of the same events are not alike; ``under way``: they are made of other
            events, or not final.
        regions: what each says; None: nothing.
    """

    topic: str
    key: str
    state: Literal["differs", "under way"]
    regions: Mapping[Region, Stands | None]


class Comparison(Value, frozen=True):
    """What was found.

    Attributes:
        entities: how many were compared.
        provisional: of those that are the same, how many some region does not call final.
        differences: those that still differ, by topic and key; ``beyond``: how many more there are, which were not asked again.
    """

    entities: int
    provisional: int
    differences: tuple[Difference, ...]
    beyond: int = 0

    @property
    def agrees(self) -> bool:
        """Whether all regions say the same of every entity."""
        return not self.differences and not self.beyond


_Suspects = dict[tuple[TopicPartition, bytes], dict[Region, Stands | None]]


class _Comparing:
    """One comparison of one topic in all regions; the counts grow, ``spans`` go on."""

    def __init__(self, logs: Mapping[Region, Logs], topic: str, progress: Progress) -> None:
        self._logs = logs
        self._topic = topic
        self._progress = progress
        self._spans = {region: one.spans([topic]) for region, one in logs.items()}
        counts = {region: len(spans) for region, spans in self._spans.items()}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{region} {count}" for region, count in counts.items())
            raise MrcError("PARTITIONS_DIFFER", f"{topic} has not as many partitions everywhere: {told}")
        self._total = self._done = 0
        self.entities = self.provisional = self.beyond = 0
        self.suspects: _Suspects = {}

    def compare(self) -> None:
        """Compare everything up to the ends of now."""
        work = {tp: self._passes(tp) for tp in next(iter(self._spans.values()))}
        self._total = sum(passes * (spans[tp].end - spans[tp].begin) for tp, passes in work.items() for spans in self._spans.values())
        for tp, passes in work.items():
            for number in range(passes):
                held = {region: self._last(region, tp, passes, number) for region in self._logs}
                self._judge(tp, held)

    def again(self) -> None:
        """Ask again of what differs, by what has come since."""
        for region, logs in self._logs.items():
            self._refresh(region, logs)
        for name, regions in list(self.suspects.items()):
            if _same(regions):
                del self.suspects[name]
                self.provisional += _provisional(regions)

    def _passes(self, tp: TopicPartition) -> int:
        most = max(spans[tp].end - spans[tp].begin for spans in self._spans.values())
        return max(1, -(-most // PASS_RECORDS))

    def _last(self, region: Region, tp: TopicPartition, passes: int, number: int) -> dict[bytes, Stands]:
        """Return the last record per entity of this pass's share."""
        found: dict[bytes, Stands] = {}
        span = self._spans[region][tp]
        began, at = self._done, span.begin
        for batch in self._logs[region].read({tp: span}):
            for record in batch:
                key = record.key or b""
                if passes == 1 or _share(key, passes) == number:
                    found[key] = _stands(record)
                at = Offset(record.offset + 1)
            self._done = began + at - span.begin
            self._progress(self._done, self._total)
        self._done = began + span.end - span.begin
        return found

    def _judge(self, tp: TopicPartition, held: Mapping[Region, Mapping[bytes, Stands]]) -> None:
        for key in {key for one in held.values() for key in one}:
            regions = {region: one.get(key) for region, one in held.items()}
            self.entities += 1
            if _same(regions):
                self.provisional += _provisional(regions)
            elif len(self.suspects) < SUSPECTS_MAX:
                self.suspects[tp, key] = regions
            else:
                self.beyond += 1

    def _refresh(self, region: Region, logs: Logs) -> None:
        now = logs.spans([self._topic])
        if len(now) != len(self._spans[region]):
            raise MrcError("PARTITIONS_DIFFER", f"{self._topic} got other partitions while it was compared: {len(now)}", where=region)
        new = {tp: Span(self._spans[region][tp].end, span.end) for tp, span in now.items()}
        for batch in logs.read(new):
            for record in batch:
                name = (TopicPartition(record.topic, record.partition), record.key or b"")
                if name in self.suspects:
                    self.suspects[name][region] = _stands(record)
        self._spans[region] = now


def compare(logs: Mapping[Region, Logs], kinds: Iterable[Kind], clock: Clock, wait_s: float, progress: Progress = unheard) -> Comparison:
    """Compare what stands in all regions.

    Args:
        logs: of every region.
        kinds: whose entities.
        clock: for waiting.
        wait_s: how long what differs is asked again, of all kinds together; 0: not at all.
        progress: is told how far each topic's reading is.

    Raises:
        MrcError: ``TOPICS_MISSING``, ``PARTITIONS_DIFFER``; world errors.
    """
    works = [_Comparing(logs, topics(kind, next(iter(logs))).resolved, progress) for kind in kinds]
    for work in works:
        work.compare()
    until_s = clock.monotonic_s() + wait_s
    while any(work.suspects for work in works) and (left_s := until_s - clock.monotonic_s()) > 0:
        clock.sleep(min(AGAIN_S, left_s))
        for work in works:
            if work.suspects:
                work.again()
    differences = [_difference(tp.topic, key, regions) for work in works for (tp, key), regions in sorted(work.suspects.items(), key=_name)]
    return Comparison(
        sum(work.entities for work in works),
        sum(work.provisional for work in works),
        tuple(differences),
        sum(work.beyond for work in works),
    )


def _share(key: bytes, passes: int) -> int:
    """Return the pass that takes this key, by none of the hashes (CRC-32, murmur2) that partitioners go by: they have parted it already."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()) % passes


def _name(one: tuple[tuple[TopicPartition, bytes], object]) -> bytes:
    return one[0][1]


def _stands(record: Arrived) -> Stands:
    said = dict(record.headers)
    digest = hashlib.blake2b(digest_size=16)
    digest.update(msgspec.msgpack.encode([said.get(name) for name in (ID, ORIGIN, VECTOR, CLOCK, CONFLICT, FIELDS, DECISION)]))
    digest.update(msgspec.msgpack.encode(record.value))
    made_of = " ".join(legible(said[name]) for name in (VECTOR, DECISION) if name in said)
    return Stands(legible(said.get(ID)), made_of, said.get(FINAL) == b"true", record.value is None, digest.digest())


def _same(regions: Mapping[Region, Stands | None]) -> bool:
    """Whether all say the same.

    Where one says nothing and all others that it is deleted, compaction has been there already; where one says that nothing stands, it
    was forgotten there before it was shown.
    """
    said = [one for one in regions.values() if one is not None and (one.event or not one.deleted)]
    if len(said) < len(regions):
        return all(one.deleted and one.final for one in said)
    return len({one.digest for one in said}) == 1


def _provisional(regions: Mapping[Region, Stands | None]) -> bool:
    return any(one is not None and not one.final for one in regions.values())


def _difference(topic: str, key: bytes, regions: Mapping[Region, Stands | None]) -> Difference:
    certain = all(one is not None and one.final for one in regions.values()) and len({one.vector for one in regions.values() if one}) == 1
    return Difference(topic, legible(key), "differs" if certain else "under way", regions)
