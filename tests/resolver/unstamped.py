"""Worlds whose writers know nothing of mrc: no record has a stamp, and some have headers that look like one.

Stamps are worked out here once more, from the logs and the marks by their offsets; and whether an event can have seen another is known
from what had been copied when it was written.
"""

from __future__ import annotations

import base64
import json
import random
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from mrc.core.conflict.events import EntityEvent
from mrc.ports import Arrived
from mrc.resolver.deciding import DECISION_KEY
from tests.core.conflict import oracle
from tests.core.conflict.test_convergence import plain
from tests.resolver.world import PARTITIONS, TOPIC, Site, World, headers_of, odd_value_of, value_of

FAR_AHEAD_MS = 400_000
"""Beyond what a resolver believes."""


class Note(NamedTuple):
    """What a writer did: the order, the event, its record's timestamp, and per other region how much had been copied by then."""

    key: str
    event: EntityEvent
    at_ms: int
    copied: dict[str, int]


def stamps(region: str, partition: int, at_ms: Mapping[int, int], marks: Iterable[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield what is known of each event of a region's log by its offset, in order: the first mark that speaks of an offset counts.

    ``at_ms``: the records' timestamps, by their offsets.
    """
    upto, floor = 0, 0
    for mark in marks:
        said = mark["listing"]
        raw = base64.b64decode(said["events"])
        listed = {struct.unpack_from(">Q", raw, at)[0] for at in range(0, len(raw), 24)}
        for offset in sorted(one for one in at_ms if upto <= one < mark["offset"]):
            assert offset in listed, f"{region}-{partition} does not list {offset}"
            looks = [one for one in said["knew"] if one["offset"] <= offset]
            ahead = at_ms[offset] > mark["horizon_ms"]
            if not ahead:
                floor = max(floor, min(at_ms[offset], said["read_ms"]), looks[-1]["clock_ms"] + 1 if looks else 0)
            yield (
                offset,
                {
                    "id": f"{region}-{partition}-{offset}",
                    "origin": region,
                    "number": offset + 1,
                    "seen": looks[-1]["numbers"] if looks else {},
                    "hlc": (floor, offset + 1),
                    **({"refused": True} if ahead else {}),
                },
            )
        upto, floor = max(upto, mark["offset"]), max(floor, mark["clock_ms"])


class Unstamped(World):
    """See `World`."""

    detection = "watermark"

    def __init__(
        self, seed: int, on_loss: str = "", *, punctual: bool = False, versions: int = 1, asking: bool = False, forgets: bool = False
    ) -> None:
        self.notes: dict[tuple[str, int, int], Note] = {}
        self.garbage: Counter[tuple[str, int]] = Counter()
        self.foreign: dict[str, int] = {}
        self._visible: Counter[tuple[str, str, int]] = Counter()
        self._odd = random.Random(seed + 7)
        self._unanswered: dict[str, tuple[Any, ...]] = {}
        super().__init__(seed, on_loss, punctual=punctual, versions=versions, asking=asking, forgets=forgets)

    def write(self, region: str) -> None:
        """Let the region's next event be written, now and then once more behind it or behind the next one, as by a writer that was not
        answered; or something else before it.
        """
        if not self._left[region]:
            return
        unanswered = self._unanswered.pop(region, None)
        key, event = self._left[region].pop(0)
        odd = self._odd.random()
        if odd < 0.05:
            self._write_garbage(region, key)
        elif odd < 0.1:
            self._write_foreign(region)
        value = odd_value_of(event) if len(self.versions) > 1 else value_of(event)
        late_ms = self._odd.choice((0, 0, 0, 0, 30, 700, 5_000)) - self._odd.choice((0, 0, 0, 0, 0, 300, FAR_AHEAD_MS))
        headers: list[tuple[str, bytes | None]] = [("trace", event.id.encode())]
        if self._odd.random() < 0.2:
            headers = headers_of(event)
        said = (region, key, event, value, headers, self.clock.now_ms() - late_ms)
        for _ in range(2 if self._odd.random() < 0.1 else 1):
            self._append(*said)
        if unanswered is not None:
            self._append(*unanswered)
        elif self._odd.random() < 0.3:
            self._unanswered[region] = said

    def _append(
        self, region: str, key: str, event: EntityEvent, value: bytes | None, headers: list[tuple[str, bytes | None]], at_ms: int
    ) -> None:
        partition, cluster = self.partition_of(key), self.sites[region].cluster
        offset = len(cluster.read(TOPIC, partition))
        copied = {other: self._visible[region, other, partition] for other in self.regions if other != region}
        self.notes[region, partition, offset] = Note(key, event, at_ms, copied)
        cluster.write(TOPIC, partition, key.encode(), value, headers, at_ms)

    def _write_garbage(self, region: str, key: str) -> None:
        partition = self.partition_of(key)
        self.sites[region].cluster.write(TOPIC, partition, key.encode(), b"{", ())
        self.garbage[region, partition] += 1

    def _write_foreign(self, region: str) -> None:
        """Let somebody write among the copies."""
        site, other = self.sites[region], self._odd.choice([one for one in self.regions if one != region])
        topic = site.topics.events[self.sites[other].region]
        value = json.dumps({"event": "Placed", "kind": "Placed", "foreign": len(self.foreign)}).encode()
        partition = self._odd.randrange(PARTITIONS)
        site.cluster.write(topic, partition, b"17", value, ())
        self.foreign[f"{topic}-{partition}@{len(site.cluster.read(topic, partition)) - 1}"] = 1

    def copy(self, source: str, target: str, limit: int = 1_000_000, rewind: int = 0) -> None:
        """See `World.copy`."""
        super().copy(source, target, limit, rewind)
        topic = self.sites[target].topics.events[self.sites[source].region]
        for partition in range(PARTITIONS):
            at = self._copied.get((target, f"{topic}-{partition}"), 0)
            self._visible[target, source, partition] = max(at, self._visible[target, source, partition])

    def step(self) -> None:
        """See `World.step`; time passes meanwhile, for nothing is known of an event before a mark."""
        super().step()
        self.clock.sleep(self._odd.choice((0, 0.1, 0.3)))

    def endanger(self, choose: random.Random, share: float) -> None:
        """See `World.endanger`; while a process is at work others write and copy."""
        super().endanger(choose, share)
        for site in self.sites.values():
            site.cluster.before = self._meanwhile(choose, site.cluster.before) if share else site.cluster.before

    def _meanwhile(self, choose: random.Random, then: Callable[[str], None]) -> Callable[[str], None]:
        def hook(effect: str) -> None:
            if effect in ("commit", "append") and choose.random() < 0.2:
                self.write(choose.choice(self.regions))
                here, there = choose.sample(self.regions, 2)
                self.copy(there, here)
            then(effect)

        return hook

    def written(self) -> int:
        """See `World.written`."""
        return len(self.notes)

    def id_of(self, site: Site, record: Arrived) -> str:
        """See `World.id_of`."""
        return f"{site.region}-{record.partition}-{record.offset}"

    def judged(self, key: str) -> list[oracle.Event]:
        """See `World.judged`."""
        partition = self.partition_of(key)
        return [one for region in self.regions for noted, one in self._by_marks(region, partition) if noted.key == key]

    def _by_marks(self, region: str, partition: int) -> list[tuple[Note, oracle.Event]]:
        """A region's events with the stamps that its marks give them."""
        site = self.sites[region]
        said = [record for record in site.cluster.read(site.topics.own_marks, partition) if record.key != DECISION_KEY]
        notes = {offset: noted for (where, number, offset), noted in self.notes.items() if (where, number) == (region, partition)}
        marks = [json.loads(record.value or b"") for record in said]
        found: list[tuple[Note, oracle.Event]] = []
        for offset, stamp in stamps(region, partition, {offset: noted.at_ms for offset, noted in notes.items()}, marks):
            event = notes[offset].event
            cleared = {"type": "", "fields": {}} if event.deleted else {}
            found.append((notes[offset], {**plain(event), **cleared, **stamp}))
        return found

    def _as_read(self, partition: int, events: list[oracle.Event]) -> list[oracle.Event]:
        return [one if one.get("refused") else read for one, read in zip(events, super()._as_read(partition, events), strict=True)]

    def wrong(self) -> str:
        """See `World.wrong`."""
        return self.seen_too_much() or super().wrong() or self._wrong_letters()

    def seen_too_much(self) -> str:
        """Which event is taken to have seen one whose copy was not in its region's log when it was written; empty: none."""
        for region in self.regions:
            for partition in range(PARTITIONS):
                for noted, one in self._by_marks(region, partition):
                    there = {other: self._with_those_alike(other, partition, count) for other, count in noted.copied.items()}
                    if beyond := {other: at for other, at in one["seen"].items() if at > there[other]}:
                        return f"{one['id']} is taken to have seen {beyond}, and {noted.copied} had been copied when it was written"
        return ""

    def _with_those_alike(self, region: str, partition: int, count: int) -> int:
        """Return ``count``, with the records behind that are like one below: a copy that came again stands for them as well."""
        alike = {(noted.event.id, noted.at_ms) for offset in range(count) if (noted := self.notes.get((region, partition, offset)))}
        while (noted := self.notes.get((region, partition, count))) and (noted.event.id, noted.at_ms) in alike:
            count += 1
        return count

    def _wrong_letters(self) -> str:
        """What is wrong with the dead letters of any region: each is told once, and what came again not at all."""
        for region, site in self.sites.items():
            told: Counter[tuple[str, str]] = Counter()
            for record in site.records(site.topics.dead_letters):
                said = dict(record.headers)
                told[(said["mrc-reason"] or b"").decode(), (said.get("mrc-source") or b"").decode()] += 1
            own = sum(count for (reason, source), count in told.items() if reason == "not-json" and source.startswith(f"{TOPIC}-"))
            if own != sum(count for (where, _), count in self.garbage.items() if where == region):
                return f"{region}: {own} records of its own that are no JSON were told"
            passed = Counter({source: count for (reason, source), count in told.items() if reason == "not-listed"})
            if passed - Counter(self.foreign):
                return f"{region}: dead letters for {passed - Counter(self.foreign)}"
        return ""
