"""Regions with resolvers, and links between them that lag, send again and break; what must come out is told by brute force."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import msgspec

from mrc.core.conflict.events import EntityEvent, Hlc
from mrc.core.conflict.headers import Stamp, headers
from mrc.core.conflict.partition import Mark, Pending, is_final
from mrc.core.errors import MrcError
from mrc.core.model import Region, TopicPartition
from mrc.ports import Arrived
from mrc.resolver.kinds import Kind, check_partitions, place, topics
from mrc.resolver.loop import Resolver
from mrc.resolver.pages import PENDING
from mrc.resolver.task import STATE, State
from mrc.sim.clock import FakeClock
from mrc.sim.streams import FakeShelves, StreamCluster
from tests.core.conflict import oracle
from tests.core.conflict.histories import Made, make
from tests.core.conflict.test_convergence import plain, rule_set

TOPIC = "orders"
PARTITIONS = 2
KEYS = 3
FIELDS = ("amount", "note", "change")
ENOUGH = 400
"""Rounds after which everything must be final."""


class Killed(Exception):
    """The process dies here."""


def kind_of(made: Made, on_loss: str = "") -> Kind:
    rules = rule_set(made)
    if on_loss:
        told = tuple(msgspec.structs.replace(rule, on_loss=on_loss) for rule in rules.set.rules)
        rules = type(rules)(msgspec.structs.replace(rules.set, rules=told))
    return Kind("order", TOPIC, place("json:$.event"), {name: place(f"json:$.{name}") for name in FIELDS}, rules)


def value_of(event: EntityEvent) -> bytes | None:
    return None if event.deleted else json.dumps({"event": event.type, "by": event.id, **event.fields}).encode()


def headers_of(event: EntityEvent) -> list[tuple[str, bytes | None]]:
    return list(headers(Stamp(event.origin, event.id, {**event.seen, event.origin: event.number}, event.hlc)))


class Site:
    """One region: its cluster, its disk, its resolver."""

    def __init__(self, region: str, kind: Kind, clock: FakeClock) -> None:
        self.region = Region(region)
        self.kind = kind
        self.clock = clock
        self.topics = topics(kind, self.region)
        self.cluster = StreamCluster(clock.now_ms)
        for name in (*self.topics.inputs, *self.topics.made):
            if not self.cluster.counts([name]):
                self.cluster.make(name, PARTITIONS)
        self.shelves = FakeShelves(self.cluster)
        self.resolvers: dict[str, Resolver] = {}
        self.deaths = 0

    def start(self, name: str = "a") -> None:
        log = self.cluster.join(name, self.topics.inputs)
        self.resolvers[name] = Resolver(log, self.shelves, [self.kind], self.region, self.cluster.counts, self.clock)

    def stop(self, name: str) -> None:
        self.resolvers.pop(name).close()

    def tick(self, name: str = "a") -> None:
        """Let the process work; it is started again when it dies, or finds that it must give up."""
        try:
            self.resolvers[name].tick(0)
        except Killed:
            self.deaths += 1
            self.start(name)
        except MrcError as error:
            if not error.retryable:
                raise
            self.resolvers.pop(name).close()
            self.start(name)

    def records(self, topic: str) -> list[Arrived]:
        return [record for partition in range(PARTITIONS) for record in self.cluster.read(topic, partition)]

    def still_pending(self) -> list[str]:
        """Ids of new events that are written down as pending."""
        found = []
        for partition in range(PARTITIONS):
            shelf = self.shelves.open(f"{self.topics.changelog}-{partition}", self.cluster.identity(self.topics.changelog))
            state = msgspec.msgpack.decode(shelf.get(STATE) or b"", type=State)
            events = [one for _, value in shelf.items(PENDING) for one in msgspec.msgpack.decode(value, type=list[Pending])]
            found += [one.event.id for one in events if one.new and not is_final(one, state.streams, state.final_ms)]
        return found

    def conflicts(self) -> dict[str, list[dict[str, Any]]]:
        """Final conflicts per key, in order."""
        found: dict[str, list[dict[str, Any]]] = {}
        for record in self.records(self.topics.conflicts):
            one = json.loads(record.value or b"")
            found.setdefault(one["key"], []).append(one)
        return found

    def resolved(self) -> dict[str, Arrived]:
        """The last record per key."""
        return {(record.key or b"").decode(): record for record in self.records(self.topics.resolved)}


class World:
    """Some orders, written in all regions; one random generator decides what happens."""

    def __init__(self, seed: int, on_loss: str = "", *, punctual: bool = False) -> None:
        """Make a world; in a punctual one events are stamped when they are written, so that none is late, whatever marks are lost."""
        self.choose = random.Random(seed)
        first = make(seed)
        self.regions = first.regions
        self.made = {f"{17 + n}": make(seed * 7 + n, like=first, entity=f"order/{17 + n}", prefix=f"{n}-") for n in range(KEYS)}
        self.kind = kind_of(first, on_loss)
        self.clock = FakeClock(now_ms=1_000)
        self.sites = {region: Site(region, self.kind, self.clock) for region in self.regions}
        self._punctual = punctual
        self._stamped = 0
        self._left = {region: self._mixed(region) for region in self.regions}
        self._copied: dict[tuple[str, str], int] = {}
        for site in self.sites.values():
            site.start()

    def _mixed(self, region: str) -> list[tuple[str, EntityEvent]]:
        """A region's events about all orders, each order's in their own order."""
        logs = {key: list(made.logs[region]) for key, made in self.made.items()}
        found = []
        while any(logs.values()):
            key = self.choose.choice([key for key, log in logs.items() if log])
            event = logs[key].pop(0)
            # A tombstone has no value, so no type and no fields either.
            found.append((key, msgspec.structs.replace(event, type="", fields={}) if event.deleted else event))
        return found

    def partition_of(self, key: str) -> int:
        return int(key) % PARTITIONS

    def write(self, region: str) -> None:
        """Let the region's next event be written."""
        if self._left[region]:
            key, event = self._left[region].pop(0)
            if self._punctual:
                event = self._stamp(key, event)
            partition = self.partition_of(key)
            self.sites[region].cluster.write(TOPIC, partition, key.encode(), value_of(event), headers_of(event))

    def write_next(self) -> None:
        """Let the event be written that is the next one in all."""
        if any(self._left.values()):
            self.write(min((region for region in self.regions if self._left[region]), key=lambda region: self._left[region][0][1].hlc))

    def _stamp(self, key: str, event: EntityEvent) -> EntityEvent:
        self._stamped += 1
        hlc = Hlc(self.clock.now_ms(), self._stamped)
        log = self.made[key].logs[event.origin]
        at = next(number for number, one in enumerate(log) if one.id == event.id)
        log[at] = msgspec.structs.replace(log[at], hlc=hlc)
        return msgspec.structs.replace(event, hlc=hlc)

    def copy(self, source: str, target: str, limit: int = 1_000_000, rewind: int = 0) -> None:
        """Copy what the source has and the target not; before that go back by some records, as a restarted replicator does."""
        there, here = self.sites[source], self.sites[target]
        names = {there.topics.topic: here.topics.events[there.region], there.topics.own_marks: here.topics.marks[there.region]}
        for name, copied in names.items():
            for partition in range(PARTITIONS):
                records = there.cluster.read(name, partition)
                at = max(0, self._copied.get((target, f"{copied}-{partition}"), 0) - rewind)
                for record in records[at : at + limit]:
                    here.cluster.write(copied, partition, record.key, record.value, record.headers, record.timestamp_ms)
                self._copied[target, f"{copied}-{partition}"] = max(at, min(len(records), at + limit))

    def step(self) -> None:
        """Do one thing, whichever."""
        region = self.choose.choice(self.regions)
        site = self.sites[region]
        match self.choose.randrange(10):
            case 0 | 1:
                self.write(region)
            case 2 | 3:
                other = self.choose.choice([one for one in self.regions if one != region])
                self.copy(other, region, self.choose.choice((1, 2, 5, 100)), self.choose.choice((0, 0, 0, 3, 50)))
            case 4:
                self.clock.sleep(self.choose.choice((0.01, 0.1, 0.6)))
            case _:
                site.tick(self.choose.choice(list(site.resolvers)))

    def heal(self) -> None:
        """Let everything be written, copied and become final."""
        while any(self._left.values()):
            self.write_next()
        for _ in range(ENOUGH):
            self.clock.sleep(0.6)
            for region, site in self.sites.items():
                for name in list(site.resolvers):
                    site.tick(name)
                for other in self.regions:
                    if other != region:
                        self.copy(other, region)
            if all(self.is_final(site) for site in self.sites.values()):
                return
        raise AssertionError({region: {key: r.headers for key, r in site.resolved().items()} for region, site in self.sites.items()})

    def is_final(self, site: Site) -> bool:
        tasks = [task for resolver in site.resolvers.values() for task in resolver.tasks.values()]
        got = sum(stream.arrived for task in tasks for stream in task.streams.values())
        return got >= self.written() and not any(task.pending for task in tasks)

    def written(self) -> int:
        return sum(len(log) for made in self.made.values() for log in made.logs.values())

    # ---------------------------------------------------------------- what must come out

    def wanted(self, key: str) -> list[dict[str, Any]]:
        """What stands after each event of an order, by brute force; clocks by the regions' own logs and marks."""
        events = [
            event
            for region in self.regions
            for event in judged(self.sites[region], self.partition_of(key), key, self.made[key].logs[region])
        ]
        return oracle.history(f"order/{key}", events, self.made[key].rules, self.regions)

    def wrong(self) -> str:
        """What is wrong with what any region has written; empty: nothing."""
        for region, site in self.sites.items():
            conflicts, resolved = site.conflicts(), site.resolved()
            if left := site.still_pending():
                return f"{region}: written down as pending: {left}"
            for key in self.made:
                history = self.wanted(key)
                right = [(one["conflict"], one["winner"]) for one in history if one["conflict"]]
                told = [(one["id"], one["winner"]) for one in conflicts.get(key, [])]
                if told != right:
                    return f"{region}, order {key}: conflicts {told} instead of {right}"
                if history and (words := wrong_standing(resolved.get(key), history[-1])):
                    return f"{region}, order {key}: {words}"
        return ""


def judged(site: Site, partition: int, key: str, log: list[EntityEvent]) -> list[oracle.Event]:
    """A region's events about an order, with the clocks that its own log and marks, read by their offsets, give them."""
    marks = [json.loads(record.value or b"") for record in site.cluster.read(site.topics.own_marks, partition)]
    at = {dict(r.headers)["mrc-event-id"]: r.offset for r in site.cluster.read(TOPIC, partition) if (r.key or b"").decode() == key}
    found = []
    for event in log:
        one = plain(event)
        if event.deleted:
            one |= {"type": "", "fields": {}}
        before = max((mark["clock_ms"] for mark in marks if mark["offset"] <= at[event.id.encode()]), default=-1)
        if event.hlc <= Hlc(before):
            one["hlc"] = (before, event.number)
        found.append(one)
    return found


def wrong_standing(record: Arrived | None, right: dict[str, Any]) -> str:
    if record is None:
        return "nothing stands"
    said = dict(record.headers)
    fields = json.loads(said.get("mrc-fields") or b"{}")
    told = ((said["mrc-event-id"] or b"").decode(), said["mrc-final"], fields)
    wanted = (right["winner"], b"true", right["fields"])
    return "" if told == wanted else f"{told} stands instead of {wanted}"


def dying(choose: random.Random, share: float) -> Callable[[str], None]:
    """Return an effect's hook that kills now and then."""

    def hook(effect: str) -> None:
        if choose.random() < share * (0.1 if effect == "produce" else 1):
            raise Killed(effect)

    return hook


def mark_of(site: Site, partition: int, *, last: str, offset: int, clock_ms: int, rules: str | None = None) -> bytes:
    return msgspec.json.encode(Mark(offset, last, clock_ms, clock_ms + 300_000, rules or site.kind.rules.hash))


__all__ = ["TopicPartition", "World", "check_partitions", "dying", "mark_of"]
