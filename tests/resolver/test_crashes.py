"""A process dies at every single effect; the next one goes on, and in the end nothing is missing and nothing is there twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from mrc.core.errors import MrcError
from mrc.core.model import TopicPartition
from mrc.resolver.pages import PENDING
from mrc.resolver.task import STATE
from mrc.sim.streams import FakeShelves
from tests.resolver.world import PARTITIONS, TOPIC, Killed, Site, World

SEED = 3


def at(number: int) -> tuple[Callable[[str], None], list[str]]:
    """Return a hook that kills at one effect, and the effects so far."""
    seen: list[str] = []

    def hook(effect: str) -> None:
        seen.append(effect)
        if len(seen) == number + 1:
            raise Killed(effect)

    return hook, seen


def told(site: Site, topic: str) -> list[tuple[bytes | None, bytes | None, Any]]:
    """What a topic says in the end, but for the order of partitions."""
    return [(record.key, record.value, record.headers) for record in site.records(topic)]


def lived(kill_before: int = -1, kill_after: int = -1) -> tuple[World, list[str], list[str]]:
    world = World(SEED, on_loss="recall", punctual=True)
    east = world.sites[world.regions[0]]
    east.cluster.before, before = at(kill_before)
    east.cluster.after, after = at(kill_after)
    for number in range(60):
        world.write_next()
        if number % 5 == 0:
            world.clock.sleep(0.6)
        world.copy(world.regions[1], world.regions[0])
        world.copy(world.regions[0], world.regions[1])
        for site in world.sites.values():
            site.tick()
    world.heal()
    return world, before, after


def outputs(world: World) -> dict[str, Any]:
    site = world.sites[world.regions[0]]
    names = (site.topics.conflicts, site.topics.compensations, site.topics.dead_letters)
    return {name: told(site, name) for name in names} | {"resolved": {key: record.value for key, record in site.resolved().items()}}


def test_killed_at_every_effect_it_decides_the_same_and_nothing_twice() -> None:
    world, before, after = lived()
    assert {*before, *after} == {"produce", "commit", "append", "disk"}
    right = outputs(world)
    assert len(right["mrc.conflicts.orders"]) > 3
    assert len(right["mrc.compensations.orders"]) > 1
    kills = [{"kill_before": number} for number in range(len(before))] + [{"kill_after": number} for number in range(len(after))]
    for kill in kills:
        world, *_ = lived(**kill)
        assert world.sites[world.regions[0]].deaths == 1, kill
        assert world.wrong() == "", kill
        found = outputs(world)
        assert sorted(found["mrc.conflicts.orders"]) == sorted(right["mrc.conflicts.orders"]), kill
        assert sorted(found["mrc.compensations.orders"]) == sorted(right["mrc.compensations.orders"]), kill
        assert found["resolved"] == right["resolved"], kill


def test_each_losing_event_asks_for_its_compensation_in_its_own_region_alone() -> None:
    world, *_ = lived()
    asked = [json.loads(r.value or b"") for site in world.sites.values() for r in site.records(site.topics.compensations)]
    lost = {
        (one["id"], candidate["id"])
        for site in world.sites.values()
        for conflicts in site.conflicts().values()
        for one in conflicts
        for candidate in one["candidates"]
        if candidate["id"] != one["winner"]
    }
    assert sorted((one["conflict"], one["lost"]["id"]) for one in asked) == sorted(lost)
    for region, site in world.sites.items():
        here = [json.loads(r.value or b"")["lost"]["origin"] for r in site.records(site.topics.compensations)]
        assert set(here) <= {region}
    assert len({one["id"] for one in asked}) == len(asked)


def test_without_its_disk_it_goes_on_from_the_changelog() -> None:
    world, *_ = lived()
    site = world.sites[world.regions[0]]
    right = outputs(world)
    task = next(iter(site.resolvers["a"].tasks.values()))
    assert task.streams
    site.shelves = FakeShelves(site.cluster)
    site.start()
    world.heal()
    assert outputs(world) == right
    assert site.shelves.open(f"{site.topics.changelog}-0", site.cluster.identity(site.topics.changelog)).values


def test_a_disk_that_says_more_than_the_log_is_dropped() -> None:
    world = World(SEED)
    site = world.sites[world.regions[0]]
    for region in world.regions:
        world.write(region)
    world.heal()
    for partition in range(PARTITIONS):
        shelf = site.shelves.open(f"{site.topics.changelog}-{partition}", site.cluster.identity(site.topics.changelog))
        shelf.apply({b"e" + b"17": b"nonsense"}, type(shelf.offset())(1_000_000))
    site.start()
    world.heal()
    assert world.wrong() == ""


def test_of_two_processes_with_one_name_the_earlier_gives_up() -> None:
    world = World(SEED)
    site = world.sites[world.regions[0]]
    site.tick()
    earlier = site.resolvers["a"]
    site.start("a")
    world.write(world.regions[0])
    with pytest.raises(MrcError) as caught:
        earlier.tick(0)
    assert caught.value.code == "RESOLVER_FENCED"
    world.heal()
    assert world.wrong() == ""


def test_a_process_whose_partitions_are_somebody_elses_by_now_commits_nothing() -> None:
    world = World(SEED)
    site = world.sites[world.regions[0]]
    site.tick()
    for _ in range(5):
        world.write(world.regions[0])
    site.cluster.before = lambda effect: site.start("b") if effect == "produce" and "b" not in site.resolvers else None
    site.tick("a")  # gives up, and begins anew
    assert site.records(site.topics.resolved) == []
    world.heal()
    assert world.wrong() == ""


def test_partitions_that_were_added_are_refused() -> None:
    world = World(SEED)
    site = world.sites[world.regions[0]]
    for _ in range(4):
        world.clock.sleep(0.6)
        site.tick()
    site.cluster.grow(TOPIC, PARTITIONS + 1)
    with pytest.raises(MrcError) as caught:
        site.resolvers["a"].tick(0)
    assert caught.value.code == "PARTITIONS_DIFFER"
    assert not caught.value.retryable
    for name in (*site.topics.inputs, *site.topics.made):
        site.cluster.grow(name, PARTITIONS + 1)
    site.start()
    with pytest.raises(MrcError, match="had 2 when its state was made") as caught:
        site.resolvers["a"].tick(0)
    assert caught.value.code == "PARTITIONS_DIFFER"


def test_records_that_were_deleted_before_they_were_resolved_are_not_passed_over() -> None:
    world = World(SEED)
    site = world.sites[world.regions[0]]
    for _ in range(4):
        world.write(world.regions[0])
    for _ in range(3):
        site.tick()
    site.stop("a")
    for _ in range(4):
        world.write(world.regions[0])
    for partition in range(PARTITIONS):
        tp = TopicPartition(TOPIC, partition)
        site.cluster.trim(tp, site.cluster.end(tp))
    site.start()
    site.resolvers["a"].tick(0)
    with pytest.raises(MrcError) as caught:
        site.resolvers["a"].tick(0)
    assert caught.value.code == "OFFSET_OUT_OF_RANGE"


@pytest.mark.parametrize("prefix", [STATE, PENDING], ids=["state", "page"])
def test_state_that_is_not_as_this_version_writes_it_is_named_and_left_alone(prefix: bytes) -> None:
    world = World(SEED)
    site = world.sites[world.regions[0]]
    for _ in range(4):
        world.write(world.regions[0])
    for _ in range(3):
        world.clock.sleep(0.6)
        site.tick()
    site.stop("a")
    shelf, key = next((shelf, key) for shelf in site.shelves._shelves.values() for key in shelf.values if key.startswith(prefix))
    kept = shelf.values[key]
    shelf.values[key] = b"\xc1 garbled"
    site.start()
    with pytest.raises(MrcError) as caught:
        site.resolvers["a"].tick(0)
    assert (caught.value.code, caught.value.retryable) == ("STATE_UNREADABLE", False)
    assert shelf.values[key] == b"\xc1 garbled"
    shelf.values[key] = kept
    site.start()
    world.heal()
    assert world.wrong() == ""
