"""Two regions in which things happen as a story says, and whose processes may die at any effect.

Times of a story are fixed and far apart, and what happens next waits until the regions have come to an end: so deaths and their delays
change no clock of an event, but for those that are late.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

from mrc.core.conflict.events import EntityEvent, Hlc
from mrc.core.errors import MrcError
from mrc.core.model import Offset, Region, decode
from mrc.ports import Outgoing, Shelves, StreamLog
from mrc.resolver.deciding import DECISION_KEY, Answer, Desk
from mrc.resolver.kinds import Kind
from mrc.resolver.task import ENTITY, Task
from mrc.resolver.writing import ConflictRecord
from mrc.sim.clock import FakeClock
from mrc.sim.streams import FakeLogs, FakeShelves, StreamCluster
from tests.core.conflict.histories import Made
from tests.resolver.dying import Death, Process, Watch
from tests.resolver.unstamped import Unstamped
from tests.resolver.world import ENOUGH, FIELDS, TOPIC, Killed, Site, Version, World, headers_of

EAST, WEST = Region("east"), Region("west")
KEYS = [str(number) for number in range(17, 23)]
BY_STATE: list[dict[str, Any]] = [
    {"by": "manual", "ttl_s": 200, "any_of": ["Refunded"]},
    {"by": "state_precedence", "states": ["Shipped", "Cancelled", "Placed"]},
]
BY_FIELDS: list[dict[str, Any]] = [
    {"by": "manual", "ttl_s": 200, "any_of": ["Refunded"]},
    {"by": "max", "field": "amount", "any_of": ["Cancelled"]},
    {"by": "merge_fields", "fields": ["note"]},
]
QUIET_ROUNDS = 3
"""So long without a death everything has been looked at and told everywhere."""

Wrongly = Callable[[StreamLog], StreamLog]
"""Puts something between a resolver and its log that does what it should not."""


def rightly(log: StreamLog) -> StreamLog:
    """Nothing of the kind."""
    return log


class Mortal(Site):
    """A region whose resolver dies. ``steady``: its turns since it was started, or since somebody began to count."""

    def __init__(self, region: str, kind: Kind, clock: FakeClock, watch: Watch, wrongly: Wrongly) -> None:
        super().__init__(region, kind, clock)
        self.watch = watch
        self.wrongly = wrongly
        self.steady = 0
        self._away = 0
        self._gone = False

    def ports(self, name: str) -> tuple[StreamLog, Shelves]:
        """See `Site.ports`."""
        process = Process(self.watch, self.region)
        log, shelves = super().ports(name)

        def partly(how: str, given: Sequence[Any]) -> None:
            records: list[Outgoing] = list(given[0])
            if how == "open":
                self.cluster.begin(name, records)
            else:
                self.cluster.append(records[:1] if how == "first" else records[-1:])

        self.steady, self._away, self._gone = 0, 0, False
        return self.wrongly(process.port("log", log, partly)), cast("Shelves", process.port("shelves", shelves))

    def stop(self, name: str = "a") -> None:
        """See `Site.stop`; one that has died, or dies of it, is gone as well."""
        if not self._gone:
            self._gone = True
            try:
                self.resolvers[name].close()
            except Killed:
                self._died()

    def tick(self, name: str = "a") -> None:
        """See `Site.tick`."""
        if self._away:
            self._away -= 1
            return
        if self._gone:
            self.start(name)
        try:
            self.resolvers[name].tick(0)
            self.steady += 1
        except Killed:
            self._died()
        except MrcError as error:
            if not error.retryable:
                raise
            self.stop(name)

    def looks(self) -> object:
        """What there is of logs, positions and disks: logs only grow, and disks are told by how far they are."""
        ends = tuple(self.cluster.end(tp) for name in (*self.topics.inputs, *self.topics.made) for tp in self.cluster.tps(name))
        disk = tuple((name, shelf.offset(), len(shelf.values)) for name, shelf in self.shelves._shelves.items())
        return ends, disk, self.cluster.generation, tuple(self.cluster.positions.values())

    def lose_disk(self) -> None:
        """What the disk holds is gone."""
        self.shelves = FakeShelves(self.cluster)

    def _died(self) -> None:
        self._gone, self.steady, self._away = True, 0, self.watch.away
        if not self.watch.disk:
            self.lose_disk()


class Scripted(World):
    """A world in which what its story says happens, and somebody may die."""

    sites: dict[str, Mortal]  # type: ignore[assignment]  # narrower than a world's

    def __init__(self, death: Death | None = None, wrongly: Wrongly = rightly) -> None:
        self.watch = Watch(death)
        self._wrongly = wrongly
        self._known: Counter[tuple[str, str]] = Counter()
        self._settled: Counter[tuple[str, str]] = Counter()
        self.late: set[str] = set()
        self.lagging = False
        super().__init__(0, "recall", versions=2)
        self.watch.world = self._looks

    def _begin(self, seed: int, versions: int, *, asking: bool) -> tuple[dict[str, Made], list[Version]]:
        """See `World._begin`."""
        first = Made(seed, [EAST, WEST], BY_STATE, {EAST: [], WEST: []})
        made = {key: Made(seed, first.regions, BY_STATE, {EAST: [], WEST: []}) for key in KEYS}
        return made, [
            Version(first, BY_STATE, "event", FIELDS, self._on_loss, self.detection),
            Version(first, BY_FIELDS, "kind", FIELDS, self._on_loss, self.detection),
        ]

    def _site(self, region: str) -> Mortal:
        return Mortal(region, self.kind, self.clock, self.watch, self._wrongly)

    def _copies(self, there: Site, here: Site) -> dict[str, str]:
        return {name: copy for name, copy in super()._copies(there, here).items() if name != TOPIC or not self.lagging}

    def _looks(self) -> object:
        """What there is outside of all processes, as far as one can be told from another by it."""
        return self.clock.now_ms(), *(site.looks() for site in self.sites.values())

    # ---------------------------------------------------------------- what happens

    def at(self, second: int) -> None:
        """Let it be that late."""
        wait_s = second - self.clock.monotonic_s()
        assert wait_s >= 0, f"it is later than {second} s: the story must give more time"
        self.clock.sleep(wait_s)

    def put(self, region: str, key: str, type: str, *, kind: str | None = "", seen: bool = False, late_s: int = 0, **fields: Any) -> None:
        """Write an event; no type: a tombstone.

        Args:
            region: where.
            key: the order's.
            type: of the event, and as the second rules file reads it, but for ``kind``; None: that cannot read any.
            kind: see there.
            seen: its writer has seen all about the order that was final and told; else no more than before.
            late_s: its clock is that long ago.
            fields: of its value.
        """
        other = WEST if region == EAST else EAST
        logs = self.made[key].logs
        if seen:
            self._known[region, key] = self._settled[other, key]
        known = self._known[region, key]
        number = len(logs[region]) + 1
        self._stamped += 1
        at_ms = self.clock.now_ms() - late_s * 1000
        event = EntityEvent(
            f"order/{key}",
            f"{key}-{region}-{number}",
            Region(region),
            number,
            {Region(other): known} if known else {},
            Hlc(at_ms, self._stamped),
            type,
            fields if type else {},
            deleted=not type,
        )
        body = {"event": type, "by": event.id, **fields} | ({} if kind is None else {"kind": kind or type})
        logs[region].append(event)
        if late_s:
            self.late.add(event.id)
        self._append(region, key, event, json.dumps(body).encode() if type else None, headers_of(event), at_ms)

    def restart(self, region: str, version: Version, disk: Literal["kept", "lost", "foreign"] = "kept") -> None:
        """Start a region's resolver with a rules file: on the same machine, on another, or on one with a disk that says other things."""
        site = self.sites[region]
        site.kind = version.kind
        site.stop()
        if disk != "kept":
            site.lose_disk()
        if disk == "foreign":
            name = f"{site.topics.changelog}-0"
            shelf = site.shelves.open(name, site.cluster.identity(site.topics.changelog))
            shelf.apply({ENTITY + b"18": b"nonsense"}, Offset(1_000_000))
        site.start()

    def open_conflict(self, region: str, key: str) -> ConflictRecord:
        """Return the last conflict about an order, which is open."""
        site = self.sites[region]
        known = [decode(record.value or b"", ConflictRecord) for record in site.records(site.topics.conflicts)]
        found = [one for one in known if one.key == key and one.open]
        assert found, f"{region} asks nobody about {key}"
        return found[-1]

    def give(self, region: str, one: ConflictRecord, winner: str, id: str) -> Answer:
        """Let a person in a region decide a conflict for the event of a region, or for nobody; if his command dies, he gives it again.

        Until then the world may go on, so that marks have overtaken what he has given, or it has had its turn.
        """
        site = self.sites[region]
        side = next((each.id for each in one.candidates if each.origin == winner), winner)
        while True:
            person = Process(self.watch, region)
            cluster = site.cluster
            logs = person.port("desk", FakeLogs(cluster))

            def append(topic: str, partition: int, key: bytes, value: bytes, *, cluster: StreamCluster = cluster) -> None:
                cluster.write(topic, partition, key, value, ())

            writes = person.port("desk", _Appends(append))
            desk = Desk(logs, writes.append, site.region, self.clock)
            try:
                since = desk.ends([site.topics])
                return desk.give(site.topics, self.partition_of(one.key), one, side, id, "ann", "she said so", 0, since)
            except Killed:
                for _ in range(2 * self.watch.away):
                    self.work()

    # ---------------------------------------------------------------- until when

    def until(self, done: Callable[[], bool]) -> None:
        """Let all work until something is so."""
        for _ in range(ENOUGH):
            self.work()
            if done():
                return
        raise AssertionError(f"it comes to no end: {self.clock.monotonic_s()} s")

    def until_marked(self, lead_ms: int = 0) -> None:
        """Let all work until every region's marks are later than now, whoever hears of them, and none has died for a while since."""
        upto_ms = self.clock.now_ms() + lead_ms
        self.until(lambda: all(one["clock_ms"] >= upto_ms for site in self.sites.values() for one in self._last_marks(site)))
        for site in self.sites.values():
            site.steady = 0
        self.until(self._is_quiet)

    def settle(self, lead_ms: int = 0) -> None:
        """Let all work until everything up to now is final everywhere and has been told to all."""
        self.until_marked(lead_ms)
        self.until(lambda: self._is_quiet() and not any(task.pending or task.unlisted for task in self._tasks()))
        for key, made in self.made.items():
            self._settled |= Counter({(region, key): len(log) for region, log in made.logs.items()})

    def until_file(self, region: str, version: Version) -> None:
        """Let all work until a region's marks say that it has a rules file, and all marks are later than that."""
        site = self.sites[region]
        has = version.kind.rules.hash
        self.until(lambda: all(one["rules"] == has for one in self._last_marks(site)))
        self.until_marked()

    def _last_marks(self, site: Mortal) -> list[dict[str, Any]]:
        """A region's last mark of each partition, whoever has heard of it."""
        logs = [site.cluster.visible(tp, Offset(max(0, site.cluster.end(tp) - 5)), 5)[0] for tp in site.cluster.tps(site.topics.own_marks)]
        none = {"clock_ms": -1, "rules": ""}
        return [next((json.loads(one.value or b"") for one in reversed(log) if one.key != DECISION_KEY), none) for log in logs]

    def _is_quiet(self) -> bool:
        return all(site.steady >= QUIET_ROUNDS for site in self.sites.values())

    def _tasks(self) -> list[Task]:
        return [task for site in self.sites.values() for resolver in site.resolvers.values() for task in resolver.tasks.values()]

    # ---------------------------------------------------------------- what came out

    def wrong(self) -> str:
        """See `World.wrong`; also whether every event is accounted for."""
        return super().wrong() or self._unaccounted()

    def _unaccounted(self) -> str:
        for region, site in self.sites.items():
            letters = Counter((record.key, record.value) for record in site.records(site.topics.dead_letters) if record.key is not None)
            for key, made in self.made.items():
                events = self._as_read(self.partition_of(key), self.judged(key))
                if len(events) != len(made.events):
                    return f"order {key}: {len(made.events)} events were written, and {len(events)} are known"
                values = self._values(key)
                for one in events:
                    count = letters.pop((key.encode(), values[one["id"]]), 0)
                    if count != bool(one.get("refused")):
                        return f"{region}: {count} dead letters for {one['id']}"
                last: dict[str, int] = {}
                for one in events:
                    if not one.get("refused"):
                        last[one["origin"]] = max(last.get(one["origin"], 0), one["number"])
                said = dict(site.resolved()[key].headers)["mrc-vv"] or b"" if last else b""
                if said.decode() != ",".join(f"{origin}={number}" for origin, number in sorted(last.items())):
                    return f"{region}, order {key}: what stands is made of {said.decode()} instead of {last}"
            if left := [key for key, value in letters if b'"conflict"' not in (value or b"")]:
                return f"{region}: dead letters for {left}"
        return ""

    def _values(self, key: str) -> dict[str, bytes | None]:
        return {
            self.id_of(site, record): record.value
            for site in self.sites.values()
            for record in site.cluster.read(TOPIC, self.partition_of(key))
            if record.key == key.encode()
        }

    def unlike(self, right: dict[str, Any]) -> str:
        """Return what is otherwise than in the same story without a death, where all is right; empty: nothing.

        As lists are compared, what is there twice is otherwise too. Clocks of late events may be others, but not from region to region.
        """
        if left := [(region, ids) for region, site in self.sites.items() if (ids := site.still_pending())]:
            return f"written down as pending: {left}"
        here, there = (
            (site.conflicts(), {key: (one.value, one.headers) for key, one in site.resolved().items()}) for site in self.sites.values()
        )
        if here != there:
            return f"{EAST} says {here}, {WEST} {there}"
        return next((f"{name}: {one} instead of {right[name]}" for name, one in self.told().items() if one != right[name]), "")

    def told(self) -> dict[str, Any]:
        """All that the regions have told in the end, but for clocks of late events and times of decisions: they depend on who was away."""
        names = ("resolved", "conflicts", "compensations", "dead letters")
        return {f"{region} {name}": self._told_of(site, name) for region, site in self.sites.items() for name in names}

    def _told_of(self, site: Mortal, name: str) -> Any:
        match name:
            case "resolved":
                return {key: (one.value, {h: v for h, v in one.headers if h != "mrc-hlc"}) for key, one in site.resolved().items()}
            case "conflicts":
                return {key: [self._timeless(one) for one in some] for key, some in site.conflicts().items()}
            case "compensations":
                asked = [json.loads(one.value or b"") for one in site.records(site.topics.compensations)]
                return sorted((one["id"], one["conflict"], one["lost"]["id"], one["winner"]) for one in asked)
            case _:
                records = site.records(site.topics.dead_letters)
                return sorted((one.key or b"", self._letter(one.value), dict(one.headers)["mrc-reason"]) for one in records)

    def _timeless(self, one: dict[str, Any]) -> dict[str, Any]:
        """A conflict without the clocks that its late events were given, and without the time when a person decided it."""
        if one["decision"]:
            one = {**one, "decision": {**one["decision"], "at_ms": 0}}
        late = [side["hlc"] for side in one["candidates"] if (side["value"] or {}).get("by") in self.late]
        text = json.dumps({**one, "until_ms": 0} if late else one)
        for clock in late:
            text = text.replace(clock, "late")
        return cast("dict[str, Any]", json.loads(text))

    def _letter(self, value: bytes | None) -> str:
        said = json.loads(value or b"{}")
        return json.dumps({name: each for name, each in said.items() if name not in ("clock_ms", "at_ms")})


class _Appends:
    def __init__(self, append: Callable[[str, int, bytes, bytes], None]) -> None:
        self.append = append


class ScriptedUnstamped(Scripted, Unstamped):
    """Such a world whose writers know nothing of mrc."""
