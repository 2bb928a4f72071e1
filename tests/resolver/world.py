"""Regions with resolvers, and links between them that lag, send again and break; what must come out is told by brute force."""

from __future__ import annotations

import itertools
import json
import random
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from mrc.config.conflicts import ready
from mrc.core.conflict.entity import Decision, Rules
from mrc.core.conflict.events import EntityEvent, Hlc
from mrc.core.conflict.headers import Stamp, headers
from mrc.core.conflict.marks import Mark
from mrc.core.conflict.partition import is_final
from mrc.core.conflict.rules import Detection
from mrc.core.conflict.taking import Pending
from mrc.core.errors import MrcError
from mrc.core.model import Offset, Region, TopicPartition, encode
from mrc.ports import Arrived, Shelves, StreamLog
from mrc.resolver import kinds
from mrc.resolver.deciding import DECISION_KEY
from mrc.resolver.kinds import Kind, check_partitions, topics
from mrc.resolver.loop import Resolver
from mrc.resolver.pages import PENDING
from mrc.resolver.task import STATE, State
from mrc.sim.clock import FakeClock
from mrc.sim.streams import FakeShelves, StreamCluster
from tests.core.conflict import oracle
from tests.core.conflict.histories import ASKING, RULES, TYPES, Made, make
from tests.core.conflict.test_convergence import plain, rule_set

TOPIC = "orders"
PARTITIONS = 2
KEYS = 3
FIELDS = ("amount", "note", "change")
ENOUGH = 400
"""Rounds after which everything must be final."""


class Killed(Exception):
    """The process dies here."""


def kind_of(
    made: Made,
    on_loss: str = "",
    type: str = "event",
    fields: Sequence[str] = FIELDS,
    detection: Detection = "causal",
    forgets_s: int | None = None,
) -> Kind:
    rules = rule_set(made, f"json:$.{type}", {name: f"json:$.{name}" for name in fields})
    told = tuple(msgspec.structs.replace(rule, on_loss=on_loss) for rule in rules.set.rules)
    after_s = msgspec.UNSET if forgets_s is None else forgets_s
    return kinds.kind_of(TOPIC, Rules(msgspec.structs.replace(rules.set, rules=told, detection=detection, forget_deleted_after_s=after_s)))


def value_of(event: EntityEvent) -> bytes | None:
    return None if event.deleted else json.dumps({"event": event.type, "by": event.id, **event.fields}).encode()


class Version:
    """A rules file that regions may get: what it decides by, and what it reads where."""

    def __init__(
        self,
        made: Made,
        rules: list[dict[str, Any]],
        type: str,
        fields: Sequence[str],
        on_loss: str,
        detection: Detection,
        forgets_s: int | None = None,
    ) -> None:
        self.regions, self.rules, self.type, self.fields, self.forgets_s = made.regions, rules, type, fields, forgets_s
        self.kind = kind_of(Made(made.seed, made.regions, rules), on_loss, type, fields, detection, forgets_s)

    def reads(self, event: oracle.Event, value: bytes | None) -> oracle.Event:
        """Return the event as this file reads it."""
        if value is None:
            return {**event, "type": "", "fields": {}, "rules": self.rules}
        body = json.loads(value)
        fields = {name: body[name] for name in self.fields if name in body}
        summed = [name for rule in self.rules if rule["by"] == "delta" for name in rule["fields"]]
        if not body.get(self.type) or any(isinstance(fields.get(name), str) for name in summed):
            return {**event, "rules": self.rules, "refused": True}
        return {**event, "type": body[self.type], "fields": fields, "rules": self.rules}


def odd_value_of(event: EntityEvent) -> bytes | None:
    """A value that not every rules file can read, and that each reads otherwise."""
    value = value_of(event)
    if value is None:
        return None
    body, number = json.loads(value), zlib.crc32(event.id.encode())
    body["kind"] = "" if number % 9 == 0 else TYPES[number % len(TYPES)]
    if number % 7 == 0 and "change" in body:
        body["change"] = "much"
    return json.dumps(body).encode()


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
        self.said: list[str] = []

    def ports(self, name: str) -> tuple[StreamLog, Shelves]:
        """Return what a new process works with."""
        return self.cluster.join(name, self.topics.inputs), self.shelves

    def start(self, name: str = "a") -> None:
        log, shelves = self.ports(name)
        self.resolvers[name] = Resolver(
            log, shelves, [self.kind], self.region, self.cluster.counts, ready, self.clock, lambda word, **_: self.said.append(word)
        )

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

    detection: Detection = "causal"

    def __init__(
        self, seed: int, on_loss: str = "", *, punctual: bool = False, versions: int = 1, asking: bool = False, forgets: bool = False
    ) -> None:
        """Make a world; in a punctual one events are stamped when they are written, so that none is late, whatever marks are lost.

        With several ``versions`` of the rules, `change` lets a region get another one. ``asking``: a rule lets people decide. ``forgets``:
        much is deleted, and forgotten soon by some versions, the first one among them.
        """
        self.choose = random.Random(seed)
        self._on_loss = on_loss
        self._forgets = forgets
        self.made, self.versions = self._begin(seed, versions, asking=asking)
        self.regions = self.versions[0].regions
        self.kind = self.versions[0].kind
        self.clock = FakeClock(now_ms=1_000)
        self.sites = {region: self._site(region) for region in self.regions}
        self._punctual = punctual
        self.cut = False
        self._decisions = 0
        self._stamped = 0
        self._left = {region: self._mixed(region) for region in self.regions}
        self._copied: dict[tuple[str, str], int] = {}
        for site in self.sites.values():
            site.start()

    def _begin(self, seed: int, versions: int, *, asking: bool) -> tuple[dict[str, Made], list[Version]]:
        """Return each order's history, and the rules files, the first one first."""
        first = make(seed)
        if asking:
            first.rules = self.choose.choice(ASKING)
        made = {f"{17 + n}": make(seed * 7 + n, like=first, entity=f"order/{17 + n}", prefix=f"{n}-") for n in range(KEYS)}
        if self._forgets:
            for one in made.values():
                for log in one.logs.values():
                    log[:] = [msgspec.structs.replace(event, deleted=self.choose.random() < 0.6) for event in log]
        others = [
            Version(
                first,
                self.choose.choice((self.choose.choice(RULES), self.choose.choice(ASKING))),
                self.choose.choice(("event", "kind")),
                self._some(FIELDS),
                self._on_loss,
                self.detection,
                self.choose.choice((None, 1, 3)) if self._forgets else None,
            )
            for _ in range(versions - 1)
        ]
        forgets_s = self.choose.choice((1, 2)) if self._forgets else None
        return made, [Version(first, first.rules, "event", FIELDS, self._on_loss, self.detection, forgets_s), *others]

    def _site(self, region: str) -> Site:
        return Site(region, self.kind, self.clock)

    def _some(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if self.choose.random() < 0.7]

    def change(self, region: str, version: Version) -> None:
        """Let a region get a rules file, and some of its processes start by it."""
        site = self.sites[region]
        site.kind = version.kind
        if self.choose.random() < 0.2:
            site.shelves = FakeShelves(site.cluster)  # the rules of before are known from the changelog alone
        for name in list(site.resolvers):
            if self.choose.random() < 0.7:
                site.stop(name)
                site.start(name)

    def agree(self) -> None:
        """Let all regions have the same rules file."""
        kind = self.choose.choice(self.versions).kind
        for site in self.sites.values():
            site.kind = kind
            for name in list(site.resolvers):
                site.stop(name)
                site.start(name)

    def in_force(self, partition: int, hlc: tuple[int, int]) -> Version:
        """Return the rules that all regions had at a clock; where they had not the same, those that they had next, by their marks."""
        said = [self._had(site, partition) for site in self.sites.values()]
        for at in (hlc, *sorted((clock_ms, 1) for one in said for clock_ms, _ in one if (clock_ms, 0) >= hlc)):
            had = {next((rules for clock_ms, rules in reversed(one) if (clock_ms, 0) < at), one[0][1]) for one in said}
            if len(had) == 1:
                return next(one for one in self.versions if one.kind.rules.hash in had)
        raise AssertionError("the regions had never the same rules again")

    def memory_ms(self, partition: int, hlc: tuple[int, int]) -> int:
        """Return what was remembered at a clock: since when, by the most forgetful rules that were in force at it or before."""
        changes: set[int] = set()
        for site in self.sites.values():
            had = self._had(site, partition)
            changes |= {after[0] for before, after in itertools.pairwise(had) if before[1] != after[1]}
        at = [hlc, *((clock_ms, 0) for clock_ms in changes if (clock_ms, 0) < hlc)]
        return max((one[0] - s * 1000 for one in at if (s := self.in_force(partition, one).forgets_s) is not None), default=-1)

    def _had(self, site: Site, partition: int) -> list[tuple[int, str]]:
        """What a region's marks say of its rules, by their clocks; one whose clock is not later than all before it says nothing."""
        found: list[tuple[int, str]] = []
        for record in site.cluster.read(site.topics.own_marks, partition):
            mark = json.loads(record.value or b"")
            if record.key == DECISION_KEY:
                continue
            if not found or mark["clock_ms"] > found[-1][0]:
                found.append((mark["clock_ms"], mark["rules"]))
        return found

    def decide(self, region: str) -> None:
        """Let a person in a region decide about a conflict that was written there, whether it is open or not; sometimes too late."""
        site = self.sites[region]
        known = [one for some in site.conflicts().values() for one in some]
        if not known:
            return
        one = self.choose.choice([one for one in known if one["open"]] or known)
        partition = self.partition_of(one["key"])
        marks = [clock_ms for clock_ms, _ in self._had(site, partition)]
        self._decisions += 1
        made = Decision(
            id=f"d{self._decisions}",
            key=one["key"],
            conflict=one["id"],
            winner=self.choose.choice([*(side["id"] for side in one["candidates"]), *(["nobody"] if self.choose.random() < 0.5 else [])]),
            clock_ms=marks[-1] + self.choose.choice((-100, 1, 500, 2_000, 2_000)),
            region=site.region,
            actor="ann",
            at_ms=self.clock.now_ms(),
        )
        site.cluster.write(site.topics.own_marks, partition, DECISION_KEY, encode(made), ())

    def _decided(self, key: str) -> list[dict[str, Any]]:
        """Every decision about an order that came in time: its clock is later than those of all marks before it."""
        found = []
        for site in self.sites.values():
            latest_ms = -1
            for record in site.cluster.read(site.topics.own_marks, self.partition_of(key)):
                said = json.loads(record.value or b"")
                if record.key != DECISION_KEY:
                    latest_ms = max(latest_ms, said["clock_ms"])
                elif said["key"] == key and said["clock_ms"] > latest_ms:
                    found.append(said)
        return found

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
            value = odd_value_of(event) if len(self.versions) > 1 else value_of(event)
            self._append(region, key, event, value, headers_of(event), self.clock.now_ms())

    def _append(
        self, region: str, key: str, event: EntityEvent, value: bytes | None, headers: list[tuple[str, bytes | None]], at_ms: int
    ) -> None:
        self.sites[region].cluster.write(TOPIC, self.partition_of(key), key.encode(), value, headers, at_ms)

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
        if self.cut:
            return
        there, here = self.sites[source], self.sites[target]
        for name, copied in self._copies(there, here).items():
            for partition in range(PARTITIONS):
                at = max(0, self._copied.get((target, f"{copied}-{partition}"), 0) - rewind)
                records, end = there.cluster.visible(TopicPartition(name, partition), Offset(at), limit)
                for record in records:
                    here.cluster.write(copied, partition, record.key, record.value, record.headers, record.timestamp_ms)
                self._copied[target, f"{copied}-{partition}"] = end

    def _copies(self, there: Site, here: Site) -> dict[str, str]:
        """Return which topics a link copies, and to where."""
        return {there.topics.topic: here.topics.events[there.region], there.topics.own_marks: here.topics.marks[there.region]}

    def endanger(self, choose: random.Random, share: float) -> None:
        """Let processes die at this share of their effects from now on."""
        for site in self.sites.values():
            site.cluster.before = site.cluster.after = dying(choose, share)

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

    def work(self, pass_s: float = 0.6) -> None:
        """Let some time pass, and all processes and links do what there is to do."""
        self.clock.sleep(pass_s)
        for region, site in self.sites.items():
            for name in list(site.resolvers):
                site.tick(name)
            for other in self.regions:
                if other != region:
                    self.copy(other, region)

    def heal(self) -> None:
        """Let everything be written, copied and become final."""
        while any(self._left.values()):
            self.write_next()
        for rounds in range(ENOUGH):
            self.work()
            # A process that has just been started needs two to have read everything.
            if rounds > 2 and all(self.is_final(site) for site in self.sites.values()):
                for _ in range(3):  # until the last marks are read everywhere
                    self.work(0)
                return
        raise AssertionError({region: {key: r.headers for key, r in site.resolved().items()} for region, site in self.sites.items()})

    def is_final(self, site: Site) -> bool:
        tasks = [task for resolver in site.resolvers.values() for task in resolver.tasks.values()]
        got = sum(stream.arrived for task in tasks for stream in task.streams.values())
        return got >= self.written() and not any(task.pending for task in tasks)

    def written(self) -> int:
        return sum(len(log) for made in self.made.values() for log in made.logs.values())

    # ---------------------------------------------------------------- what must come out

    def wanted(self, key: str) -> tuple[list[tuple[str, str, str]], dict[str, Any] | None]:
        """Every conflict about an order, and what stands, by brute force; clocks by the regions' own logs and marks."""
        events = self.judged(key)
        if len(self.versions) > 1:
            events = self._as_read(self.partition_of(key), events)
        if self._forgets:
            events = [{**one, "memory_ms": self.memory_ms(self.partition_of(key), one["hlc"])} for one in events]
        now_ms = min(self._had(site, self.partition_of(key))[-1][0] for site in self.sites.values())
        return oracle.audit(f"order/{key}", events, self._decided(key), self.made[key].rules, self.regions, (now_ms, 0))

    def judged(self, key: str) -> list[oracle.Event]:
        """Return all events about an order, as logs and marks, read by their offsets, give them."""
        partition, made = self.partition_of(key), self.made[key]
        return [event for region in self.regions for event in judged(self.sites[region], partition, key, made.logs[region])]

    def _asked(self) -> list[tuple[str, str]]:
        """Conflict and event of every compensation of all regions."""
        asked = [json.loads(r.value or b"") for site in self.sites.values() for r in site.records(site.topics.compensations)]
        return [(one["conflict"], one["lost"]["id"]) for one in asked]

    def _lost(self) -> set[tuple[str, str]]:
        """Conflict and event of everything that has lost for good, where rules ask for compensations."""
        if not self._on_loss:
            return set()
        ended = [one for some in next(iter(self.sites.values())).conflicts().values() for one in some]
        return {
            (one["id"], side["id"])
            for one in ended
            if not one["open"] and one["closed"] != "superseded"
            for side in one["candidates"]
            if side["id"] != one["winner"]
        }

    def _as_read(self, partition: int, events: list[oracle.Event]) -> list[oracle.Event]:
        """The events as the rules in force read them."""
        values = {self.id_of(site, record): record.value for site in self.sites.values() for record in site.cluster.read(TOPIC, partition)}
        return [self.in_force(partition, event["hlc"]).reads(event, values[event["id"]]) for event in events]

    def id_of(self, site: Site, record: Arrived) -> str:
        """Return the id of the event that a record of a site's own log is."""
        return (dict(record.headers)["mrc-event-id"] or b"").decode()

    def wrong(self) -> str:
        """What is wrong with what any region has written; empty: nothing."""
        for region, site in self.sites.items():
            conflicts, resolved = site.conflicts(), site.resolved()
            if left := site.still_pending():
                return f"{region}: written down as pending: {left}"
            for key in self.made:
                right, stands = self.wanted(key)
                told = [(one["id"], one["winner"], how(one)) for one in conflicts.get(key, [])]
                if told != right:
                    return f"{region}, order {key}: conflicts {told} instead of {right}"
                deleted = stands is not None and any(one["deleted"] for one in self.judged(key) if one["id"] == stands["winner"])
                if self._forgets and deleted and key in resolved and not resolved[key].headers[1:]:
                    stands = None  # nothing stands, as it is said where it was forgotten before it was shown
                if stands and (words := wrong_standing(resolved.get(key), stands)):
                    return f"{region}, order {key}: {words}"
        if (asked := sorted(self._asked())) != (lost := sorted(self._lost())):
            return f"compensations for {asked} instead of {lost}"
        return ""


def how(one: dict[str, Any]) -> str:
    return "open" if one["open"] else f"decision {one['decision']['id']}" if one["decision"] else one["closed"] or "rule"


def judged(site: Site, partition: int, key: str, log: list[EntityEvent]) -> list[oracle.Event]:
    """A region's events about an order, with the clocks that its own log and marks, read by their offsets, give them."""
    said = [record for record in site.cluster.read(site.topics.own_marks, partition) if record.key != DECISION_KEY]
    marks = [json.loads(record.value or b"") for record in said]
    at = {dict(r.headers)["mrc-event-id"]: r.offset for r in site.cluster.read(TOPIC, partition) if (r.key or b"").decode() == key}
    found = []
    for event in log:
        one = plain(event)
        if event.deleted:
            one |= {"type": "", "fields": {}}
        before = max((mark["clock_ms"] for mark in marks if mark["offset"] <= at[event.id.encode()]), default=-1)
        if event.hlc <= Hlc(before):
            one |= {"hlc": (before, event.number), "said_ms": event.hlc.wall_ms}
        found.append(one)
    return found


def wrong_standing(record: Arrived | None, right: dict[str, Any]) -> str:
    if record is None:
        return "nothing stands"
    said = dict(record.headers)
    if "mrc-event-id" not in said:
        return "nothing stands any more"
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
