"""Deleted entities are forgotten at the same place in every region, whatever comes again afterwards, and their state goes."""

from __future__ import annotations

import random
from collections import Counter

import msgspec
import pytest

from mrc.core.conflict import taking
from mrc.core.conflict.entity import Rules
from mrc.core.conflict.events import EntityEvent, Hlc
from mrc.core.conflict.marks import Mark
from mrc.core.conflict.partition import Partition, Settled, Stream
from mrc.core.conflict.rules import Rule, RuleSet, Simple
from mrc.core.conflict.taking import TOO_LATE, Kept, Pending
from mrc.core.model import Region
from mrc.resolver.deletions import OVER
from mrc.resolver.kinds import Kind, kind_of
from mrc.resolver.task import ENTITY, Task
from mrc.sim.clock import FakeClock
from mrc.sim.streams import FakeShelves
from tests.resolver.test_comparing import compared
from tests.resolver.test_convergence import SEEDS, caught, healed, step
from tests.resolver.unstamped import Unstamped
from tests.resolver.world import TOPIC, Site, World, headers_of, value_of

EAST, WEST = Region("east"), Region("west")


def kind(forgets_s: int | None) -> Kind:
    after_s = msgspec.UNSET if forgets_s is None else forgets_s
    last = Rule("last", Simple("last_update_wins"))
    return kind_of(TOPIC, Rules(RuleSet("order", (last,), (EAST, WEST), "json:$.event", forget_deleted_after_s=after_s)))


# ---------------------------------------------------------------- worlds


def lived(seed: int, kind: type[World] = World) -> World:
    """A world in which orders are deleted, forgotten, sent again and come back, some with changes of rules and people's decisions."""
    choose = random.Random(seed + 4)
    versions, asking = choose.choice((1, 1, 3)), choose.random() < 0.3
    world = kind(seed, "recall", punctual=choose.random() < 0.8, versions=versions, asking=asking, forgets=True)
    world.endanger(choose, 0.02)
    for _ in range(choose.randrange(3, 10)):
        if versions > 1 and choose.random() < 0.5:
            wanted = choose.choice(world.versions)
            for region in world.regions:
                if choose.random() < 0.8:
                    world.change(region, wanted)
        world.cut = choose.random() < 0.2
        for _ in range(choose.choice((0, 5, 15))):
            step(world, choose)
        for _ in range(choose.choice((0, 1, 3))):
            world.work(choose.choice((0.6, 1.5)))
        if asking:
            world.decide(choose.choice(world.regions))
        here, there = choose.sample(world.regions, 2)
        if choose.random() < 0.7:
            world.copy(there, here, rewind=choose.choice((2, 10, 100)))
        if choose.random() < 0.2:
            lose_disk(world.sites[here])
    return healed(world)


def lose_disk(site: Site) -> None:
    names = list(site.resolvers)
    for name in names:
        site.stop(name)
    site.shelves = FakeShelves(site.cluster)
    for name in names:
        site.start(name)


def judge(seed: int, kind: type[World] = World) -> str:
    world = lived(seed, kind)
    wrong = world.wrong() or wrong_letters(world) or ("" if (found := compared(world)).agrees else str(found.differences))
    return f"seed {seed}: {wrong}" if wrong else ""


def wrong_letters(world: World) -> str:
    """What is wrong with what regions say came too late; each event once, where it was written. Empty: nothing."""
    due = Counter(one["origin"] for key in world.made for one in remembered(world, key) if is_too_late(one))
    told = Counter(region for region, site in world.sites.items() for _ in too_late(site))
    return "" if told == due else f"{told} came too late instead of {due}"


def remembered(world: World, key: str) -> list[dict[str, object]]:
    partition = world.partition_of(key)
    return [{**one, "memory_ms": world.memory_ms(partition, one["hlc"])} for one in world.judged(key)]


def is_too_late(one: dict[str, object]) -> bool:
    said, memory = one.get("said_ms"), one["memory_ms"]
    return isinstance(said, int) and isinstance(memory, int) and said < memory


def too_late(site: Site) -> list[bytes]:
    return [one.key or b"" for one in site.records(site.topics.dead_letters) if dict(one.headers)["mrc-reason"] == TOO_LATE.encode()]


def test_all_regions_forget_alike_and_as_the_oracle_does() -> None:
    assert [words for seed in range(SEEDS) if (words := judge(seed))][:3] == []


def test_all_regions_forget_alike_without_headers() -> None:
    assert [words for seed in range(SEEDS) if (words := judge(seed, Unstamped))][:3] == []


@pytest.mark.parametrize("kind", [World, Unstamped])
def test_the_worlds_hold_orders_that_are_forgotten_and_come_back_and_repetitions_of_them(
    kind: type[World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted by what the code does, which other tests judge."""
    found = Counter[str]()
    anew, forget_one, arrive = Kept.begin_anew, Task._forget_one, Task._arrive

    def begin_anew(kept: Kept) -> None:
        found["came back"] += bool(kept.entity.registers)
        found["refused before"] += bool(kept.passed)
        anew(kept)

    def forget(task: Task, key: bytes) -> bool:
        before = ENTITY + key in task._writes
        gone = forget_one(task, key)
        found["forgotten"] += gone and not before and ENTITY + key in task._writes
        return gone

    def again(task: Task, record: object, event: EntityEvent, *rest: object) -> bool:
        found["again"] += event.hlc.wall_ms < task._partition.memory_ms
        return arrive(task, record, event, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Kept, "begin_anew", begin_anew)
    monkeypatch.setattr(Task, "_forget_one", forget)
    monkeypatch.setattr(Task, "_arrive", again)
    late = sum(len(too_late(site)) for seed in range(1000, 1040) for site in lived(seed, kind).sites.values())
    assert min(found["came back"], found["forgotten"]) > 40, found
    if kind is World:  # without headers nothing that comes again is taken for an event
        assert found["again"] > 40, found
        assert late > 20


@pytest.mark.parametrize("broken", ["only where it is written down", "by what is final", "and takes whatever comes"])
def test_forgetting_wrongly_is_caught(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seal_one = Partition._seal_one

    def sealed(partition: Partition, stream: Stream, mark: Mark, one: Pending, done: Settled) -> None:
        seal_one(partition, stream, mark, one, done)
        one.said_ms = -1

    match broken:
        case "only where it is written down":
            monkeypatch.setattr(Kept, "begin_anew", lambda _: None)
        case "by what is final":
            monkeypatch.setattr(taking, "memory_at", lambda _clock_ms, _rules, before_ms: before_ms)
        case _:
            monkeypatch.setattr(Partition, "_seal_one", sealed)
    caught(lambda seed: lived(seed).wrong())


# ---------------------------------------------------------------- what is written down


class Orders:
    """Two regions without any trouble, and a link of which one order's records can be sent again."""

    def __init__(self, forgets_s: int | None) -> None:
        self.clock = FakeClock(now_ms=1_000_000)
        self.sites = {region: Site(region, kind(forgets_s), self.clock) for region in (EAST, WEST)}
        self._copied = Counter[str]()
        self._numbers = Counter[str]()
        for site in self.sites.values():
            site.start()

    def write(
        self, key: str, *, deleted: bool = False, region: Region = EAST, late_ms: int = 0, number: int | None = None, type: str = "Placed"
    ) -> None:
        self._numbers[key] += 1
        number = self._numbers[key] if number is None else number
        hlc = Hlc(self.clock.now_ms() - late_ms, number)
        event = EntityEvent(f"order/{key}", f"{key}-{number}", region, number, {}, hlc, "" if deleted else type, {}, deleted)
        self.sites[region].cluster.write(TOPIC, 0, key.encode(), value_of(event), headers_of(event))

    def pass_time(self, seconds: float) -> None:
        for _ in range(4):
            self.clock.sleep(seconds / 4)
            for site in self.sites.values():
                site.tick()
                site.tick()
            self.copy()

    def copy(self, rewind: int = 0) -> None:
        for source, target in ((EAST, WEST), (WEST, EAST)):
            there, here = self.sites[source], self.sites[target]
            for name, copied in ((TOPIC, here.topics.events[source]), (there.topics.own_marks, here.topics.marks[source])):
                records = there.cluster.read(name, 0)
                for record in records[max(0, self._copied[target + name] - rewind) :]:
                    here.cluster.write(copied, 0, record.key, record.value, record.headers, record.timestamp_ms)
                self._copied[target + name] = len(records)

    def written(self, region: Region, prefix: bytes) -> set[bytes]:
        """Keys of the state of partition 0 that begin so, on the disk; the same must be left of the changelog when it is compacted."""
        site = self.sites[region]
        shelf = site.shelves.open(f"{site.topics.changelog}-0", site.cluster.identity(site.topics.changelog))
        on_disk = dict(shelf.items(b""))
        left = {record.key or b"": record.value for record in site.cluster.read(site.topics.changelog, 0)}
        assert {key: value for key, value in left.items() if value is not None} == on_disk
        return {key for key in on_disk if key.startswith(prefix)}


def test_the_state_of_deleted_orders_goes_and_nothing_else_is_written_then() -> None:
    orders = Orders(3600)
    for number in range(2_000):
        orders.write(str(number))
        if number % 10:
            orders.write(str(number), deleted=True)
    orders.pass_time(10)
    before = {region: len(site.records(site.topics.resolved)) for region, site in orders.sites.items()}
    for region in (EAST, WEST):
        assert (len(orders.written(region, ENTITY)), len(orders.written(region, OVER))) == (2_000, 1_800)
    for _ in range(4):  # some at a time
        orders.pass_time(1_000)
    orders.pass_time(10)
    for region, site in orders.sites.items():
        assert orders.written(region, ENTITY) == {ENTITY + str(number).encode() for number in range(0, 2_000, 10)}
        assert orders.written(region, OVER) == set()
        assert len(site.records(site.topics.resolved)) == before[region]
        assert not site.records(site.topics.dead_letters)


def test_what_was_forgotten_does_not_come_back_when_it_is_copied_again_and_comes_back_when_it_is_written() -> None:
    orders = Orders(3600)
    orders.write("1")
    orders.pass_time(2)
    orders.write("1", deleted=True)
    orders.pass_time(4_000)
    orders.pass_time(4)
    assert orders.written(WEST, ENTITY) == set()
    before = len(orders.sites[WEST].records(orders.sites[WEST].topics.resolved))
    orders.copy(rewind=1_000)
    orders.pass_time(4)
    orders.write("2")  # what came again is sealed with it
    orders.pass_time(4)
    assert orders.written(WEST, ENTITY) == {ENTITY + b"2"}
    assert len(orders.sites[WEST].records(orders.sites[WEST].topics.resolved)) == before + 1
    orders.write("1", late_ms=3_700_000)  # written too late
    orders.write("1", region=WEST)
    orders.pass_time(4)
    orders.write("2")
    orders.pass_time(4)
    for site in orders.sites.values():
        stands = site.resolved()["1"]
        assert (stands.value, dict(stands.headers)["mrc-vv"], dict(stands.headers)["mrc-final"]) == (
            b'{"event": "Placed", "by": "1-4"}',
            b"west=4",
            b"true",
        )
    assert [len(too_late(orders.sites[region])) for region in (EAST, WEST)] == [1, 0]


def test_what_was_deleted_before_any_rules_forgot_is_found_and_goes() -> None:
    orders = Orders(None)
    for number in range(450):
        orders.write(str(number), deleted=number > 0)
    orders.pass_time(4)
    assert (len(orders.written(WEST, ENTITY)), orders.written(WEST, OVER)) == (450, set())
    for site in orders.sites.values():
        site.stop("a")
        site.kind = kind(3600)
        site.start()
    orders.pass_time(4_000)
    for _ in range(3):
        orders.pass_time(4)
    for region in (EAST, WEST):
        assert (orders.written(region, ENTITY), orders.written(region, OVER)) == ({ENTITY + b"0"}, set())


def latest_head_ms(kept: Kept) -> int:
    return max((register.head.hlc.wall_ms for register in kept.entity.registers.values()), default=kept.passed_ms)


@pytest.mark.parametrize("why", ["overtaken", "no-type", "clock-ahead"])
@pytest.mark.parametrize("remembered", [True, False])
def test_an_order_is_remembered_as_long_as_what_was_refused_of_it_may_come_again(
    why: str, remembered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not remembered:  # then it comes back, or is refused twice
        monkeypatch.setattr(Kept, "latest_ms", property(latest_head_ms))
    orders = Orders(3600)
    orders.write("1", deleted=True, number=5)
    orders.pass_time(1_000)
    match why:
        case "overtaken":
            orders.write("1", number=3)
        case "no-type":
            orders.write("1", number=6, type="")
        case _:
            orders.write("1", number=7, late_ms=-1_000_000)
    orders.write("2")
    orders.pass_time(2_500)
    orders.pass_time(200)
    orders.pass_time(4)
    assert (ENTITY + b"1" in orders.written(WEST, ENTITY)) == remembered
    orders.copy(rewind=1_000)
    orders.write("2")
    orders.pass_time(4)
    west = orders.sites[WEST]
    letters = [dict(one.headers)["mrc-reason"] for one in west.records(west.topics.dead_letters)]
    came_back = west.resolved()["1"].value is not None
    assert (came_back or len(letters) > 1) != remembered
    assert letters[:1] == ([] if why == "overtaken" else [why.encode()])
    orders.pass_time(4_000)
    orders.pass_time(4)
    if remembered:
        assert [orders.written(region, ENTITY) for region in (EAST, WEST)] == [{ENTITY + b"2"}] * 2
