"""With much to read, or little memory, less is shown or held; what comes out in the end is the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import msgspec
import pytest

from mrc.core.conflict import listing, partition
from mrc.core.conflict.entity import Entity, Register, Rules, outcome, take
from mrc.core.conflict.events import EntityEvent, Hlc
from mrc.core.conflict.rules import Delta, Rule, RuleSet
from mrc.core.conflict.taking import Kept
from mrc.core.model import Region
from mrc.resolver import loop
from tests.resolver.test_convergence import lived, lived_with_changes, lived_with_decisions
from tests.resolver.unstamped import Unstamped
from tests.resolver.world import World

EAST = Region("east")
WEST = Region("west")
EVENT = EntityEvent("order/1", "a", EAST, 1, {}, Hlc(1))
OTHER = EntityEvent("order/1", "b", WEST, 1, {}, Hlc(2))
SUMMING = Rules(RuleSet("order", (Rule("sum", Delta(("change",))),), (EAST, WEST), "json:$.event", {"change": "json:$.change"}))
Headers = tuple[tuple[str, bytes | None], ...]
Lives = Callable[[int, type[World]], World]


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "BUSY_RECORDS", 0)


def provisional(world: World) -> int:
    records = [record for site in world.sites.values() for record in site.records(site.topics.resolved)]
    return sum(dict(record.headers)["mrc-final"] == b"false" for record in records)


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("kind", [World, Unstamped])
@pytest.mark.parametrize("lives", [lived, lived_with_changes, lived_with_decisions])
def test_busy_resolvers_decide_as_the_oracle_does(lives: Lives, kind: type[World]) -> None:
    assert [words for seed in range(40) if (words := lives(seed, kind).wrong())][:3] == []


@pytest.mark.parametrize("kind", [World, Unstamped])
@pytest.mark.parametrize("lives", [lived, lived_with_changes, lived_with_decisions])
def test_with_little_memory_resolvers_decide_as_the_oracle_does(lives: Lives, kind: type[World], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "AHEAD_MAX", 1)
    monkeypatch.setattr(listing, "LISTED_MAX", 1)
    monkeypatch.setattr(listing, "KNEW_MAX", 1)
    assert [words for seed in range(40) if (words := lives(seed, kind).wrong())][:3] == []


@pytest.mark.parametrize("kind", [World, Unstamped])
@pytest.mark.parametrize("lives", [lived, lived_with_changes, lived_with_decisions])
def test_resolvers_that_do_not_read_all_at_once_decide_as_the_oracle_does(
    lives: Lives, kind: type[World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "BATCH_RECORDS_MAX", 12)
    assert [words for seed in range(40) if (words := lives(seed, kind).wrong())][:3] == []


def test_what_is_not_final_is_shown_more_often_without_much_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    idle = sum(provisional(lived(seed)) for seed in range(8))
    monkeypatch.setattr(loop, "BUSY_RECORDS", 0)
    assert 0 < sum(provisional(lived(seed)) for seed in range(8)) < idle


@pytest.mark.usefixtures("busy")
def test_what_was_not_shown_before_a_death_is_shown_after_it() -> None:
    world = World(3)
    region = world.regions[0]
    site = world.sites[region]
    site.tick()
    while not site.records(site.topics.topic):
        world.write(region)
    site.tick()
    assert site.records(site.topics.resolved) == []
    site.start()
    site.tick()
    world.clock.sleep(loop.PROVISIONAL_AFTER_S)
    for _ in range(3):  # its own marks come twice a second
        site.tick()
        world.clock.sleep(loop.MARK_EVERY_S)
    keys = {record.key for record in site.records(site.topics.topic)}
    assert {record.key for record in site.records(site.topics.resolved)} == keys
    assert provisional(world) == len(keys)


def shown(seed: int, *, asking: bool = False) -> list[dict[str, tuple[bytes | None, Headers]]]:
    """What each region shows at last while the links are cut, with deaths before that. ``asking``: people decide."""
    world = World(seed, asking=asking)
    choose = random.Random(seed)
    for _ in range(choose.randrange(20, 80)):
        world.step()
        if choose.random() < 0.2:
            world.work(0)
        if asking and choose.random() < 0.4:
            world.work()
            world.decide(choose.choice(world.regions))
        if choose.random() < 0.1:
            world.sites[choose.choice(world.regions)].start()
    world.cut = True
    for site in world.sites.values():
        site.start()
    for _ in range(5):
        world.work()
    return [{key: (one.value, one.headers) for key, one in site.resolved().items()} for site in world.sites.values()]


# A process dies with something final that it has put off showing (291), or with a decision (97); nobody answers in time (125, 186).
@pytest.mark.parametrize(("asking", "seeds"), [(False, (*range(60), 291)), (True, (*range(30), 125, 186, 97))])
def test_after_a_while_busy_resolvers_show_all_that_idle_ones_show(
    asking: bool, seeds: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    idle = {seed: shown(seed, asking=asking) for seed in seeds}
    told = [dict(headers) for regions in idle.values() for keys in regions for _, headers in keys.values()]
    assert sum(one["mrc-final"] == b"false" for one in told) > len(seeds)
    monkeypatch.setattr(loop, "BUSY_RECORDS", 0)
    assert [seed for seed, right in idle.items() if shown(seed, asking=asking) != right] == []


def test_sums_are_the_same_numbers_when_they_come_from_disk() -> None:
    for numbers in ((2, 3), (2, 0.5)):
        kept = Kept(Entity({EAST: Register(EVENT, sums={"change": sum(numbers)})}))
        found = msgspec.msgpack.decode(msgspec.msgpack.encode(kept), type=Kept).entity.registers[EAST].sums["change"]
        assert (found, type(found)) == (sum(numbers), type(sum(numbers)))


@pytest.mark.parametrize(("more", "right"), [(0, b'{"change":3}'), (2, b'{"change":5}')])
def test_whole_sums_are_shown_alike_however_they_were_kept(more: int, right: bytes) -> None:
    for before in (3, 3.0):
        entity = Entity({EAST: Register(EVENT, sums={"change": before})})
        assert msgspec.json.encode(outcome(entity, SUMMING).fields) == b'{"change":3}'
        found = take(entity, msgspec.structs.replace(EVENT, id="c", number=2, fields={"change": more}), SUMMING)
        assert found is not None
        assert msgspec.json.encode(found.fields) == right
        assert type(entity.registers[EAST].sums["change"]) is int


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_that_64_bits_do_not_hold_are_written_down(sign: int) -> None:
    nearly = sign * (2**63 - 1)
    entity = Entity({EAST: Register(EVENT, sums={"change": nearly}), WEST: Register(OTHER, sums={"change": nearly})})
    found = take(entity, msgspec.structs.replace(EVENT, id="c", number=2, seen={WEST: 1}, fields={"change": sign * 2**40}), SUMMING)
    assert found is not None
    assert found.fields is not None
    assert found.fields["change"] == pytest.approx(sign * 2.0**64)
    for one in (entity, found.fields):
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=type(one)) == one
