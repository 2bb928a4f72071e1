"""Two regions' resolved topics, compared: what differs is named, and what is only under way is asked again."""

from __future__ import annotations

import zlib
from typing import Any

import msgspec
import pytest

from mrc.core.conflict.headers import CLOCK, ID, ORIGIN, VECTOR
from mrc.core.errors import MrcError
from mrc.resolver import comparing
from mrc.resolver.comparing import Comparison, compare
from mrc.resolver.writing import CONFLICT, FIELDS
from mrc.sim.streams import FakeLogs
from tests.resolver.test_convergence import lived
from tests.resolver.world import PARTITIONS, World


def compared(world: World, wait_s: float = 0) -> Comparison:
    return compare({site.region: FakeLogs(site.cluster) for site in world.sites.values()}, [world.kind], world.clock, wait_s)


def tamper(world: World, value: bytes | None = b'{"event": "Other"}') -> str:
    """Let one region say something else of an order, of the same events; return the order."""
    site = next(iter(world.sites.values()))
    key, record = next(iter(site.resolved().items()))
    site.cluster.write(record.topic, record.partition, record.key, value, record.headers)
    return key


def test_regions_that_are_done_agree_however_many_passes_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(4):
        world = lived(seed)
        for passes_of in (250_000, 3, 1):
            monkeypatch.setattr(comparing, "PASS_RECORDS", passes_of)
            found = compared(world)
            assert (found.agrees, found.provisional) == (True, 0)
            assert found.entities == len(next(iter(world.sites.values())).resolved())


def test_no_pass_takes_all_keys_of_a_partition_by_whatever_hash_they_came_there(monkeypatch: pytest.MonkeyPatch) -> None:
    world, passes = lived(1), 4
    keys = [key for number in range(2_000) if zlib.crc32(key := str(number).encode()) % passes == 1]
    for site in world.sites.values():
        for key in keys:
            site.cluster.write("mrc.resolved.orders", 1, key, b"{}", [("mrc-final", b"true")])
    held: list[int] = []
    judge = comparing._Comparing._judge

    def weighed(self: Any, tp: Any, regions: Any) -> None:
        held.append(max(map(len, regions.values())))
        judge(self, tp, regions)

    monkeypatch.setattr(comparing._Comparing, "_judge", weighed)
    monkeypatch.setattr(comparing, "PASS_RECORDS", len(keys) // (passes - 1))
    assert compared(world).agrees
    assert max(held) < len(keys) / 2


def test_a_result_that_is_not_the_same_is_named_and_waiting_does_not_mend_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = lived(1)
    key = tamper(world)
    for passes_of in (250_000, 1):
        monkeypatch.setattr(comparing, "PASS_RECORDS", passes_of)
        found = compared(world, wait_s=3)
        assert [(one.topic, one.key, one.state) for one in found.differences] == [("mrc.resolved.orders", key, "differs")]
        assert not found.agrees
        assert {stands.event for stands in found.differences[0].regions.values() if stands} != set()


@pytest.mark.parametrize("name", [ID, ORIGIN, VECTOR, CLOCK, CONFLICT, FIELDS])
def test_every_header_of_what_stands_must_be_alike(name: str) -> None:
    world = lived(1)
    site = next(iter(world.sites.values()))
    record = next(iter(site.resolved().values()))
    headers = [one for one in record.headers if one[0] != name]
    site.cluster.write(record.topic, record.partition, record.key, record.value, [*headers, (name, b"other")])
    assert len(compared(world).differences) == 1


def test_what_differs_beyond_the_bound_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "SUSPECTS_MAX", 0)
    world = lived(1)
    tamper(world)
    found = compared(world)
    assert (found.differences, found.beyond, found.agrees) == ((), 1, False)


def test_what_is_under_way_is_asked_again_until_the_regions_agree() -> None:
    world = World(2, punctual=True)
    for _ in range(30):
        world.step()
    world.clock.sleep(1)
    site, *rest = world.sites.values()
    for region in world.regions:
        world.write(region)
    for _ in range(3):
        site.tick()
    before = compared(world)
    assert before.differences
    assert {one.state for one in before.differences} == {"under way"}
    assert rest
    slept: list[int] = []

    def heal() -> None:
        if not slept:
            slept.append(1)
            world.heal()

    world.clock.meanwhile = heal
    after = compared(world, wait_s=1_000)
    assert after.agrees
    assert slept


def test_what_differs_in_several_topics_is_waited_for_together() -> None:
    world = lived(1)
    tamper(world)
    for number, site in enumerate(world.sites.values()):
        site.cluster.make("mrc.resolved.payments", 1)
        site.cluster.write("mrc.resolved.payments", 0, b"17", str(number).encode(), [])
    kinds = [world.kind, msgspec.structs.replace(world.kind, topic="payments")]
    began_s = world.clock.monotonic_s()
    found = compare({site.region: FakeLogs(site.cluster) for site in world.sites.values()}, kinds, world.clock, 3)
    assert {one.topic for one in found.differences} == {"mrc.resolved.orders", "mrc.resolved.payments"}
    assert world.clock.monotonic_s() - began_s == pytest.approx(3)


def test_a_deletion_whose_tombstone_is_gone_in_one_region_is_the_same() -> None:
    world = lived(1)
    for site in world.sites.values():
        site.cluster.write("mrc.resolved.orders", 0, b"gone", b"{}", [("mrc-final", b"true")])
    first, second = list(world.sites.values())[:2]
    first.cluster.write("mrc.resolved.orders", 0, b"deleted", None, [("mrc-final", b"true")])
    assert compared(world).agrees
    second.cluster.write("mrc.resolved.orders", 0, b"there", b"{}", [("mrc-final", b"true")])
    assert [(one.key, one.state) for one in compared(world).differences] == [("there", "under way")]


def test_topics_of_unlike_partitions_and_regions_without_a_resolver_are_said() -> None:
    world = lived(1)
    site = next(iter(world.sites.values()))
    site.cluster.grow("mrc.resolved.orders", PARTITIONS + 1)
    with pytest.raises(MrcError) as caught:
        compared(world)
    assert caught.value.code == "PARTITIONS_DIFFER"


def test_partitions_that_are_added_meanwhile_are_said() -> None:
    world = lived(1)
    tamper(world)
    site = next(iter(world.sites.values()))
    world.clock.meanwhile = lambda: site.cluster.grow("mrc.resolved.orders", PARTITIONS + 1)
    with pytest.raises(MrcError) as caught:
        compared(world, wait_s=3)
    assert caught.value.code == "PARTITIONS_DIFFER"


def test_a_deletion_that_was_forgotten_before_it_was_shown_is_the_same_and_a_value_is_not() -> None:
    world = lived(1)
    here, there = list(world.sites.values())[:2]
    for value, agrees in ((None, True), (b"{}", False)):
        here.cluster.write(here.topics.resolved, 0, b"forgotten", None, [("mrc-final", b"true")])
        there.cluster.write(there.topics.resolved, 0, b"forgotten", value, [(ID, b"e1"), (VECTOR, b"east=1"), ("mrc-final", b"true")])
        assert compared(world).agrees == agrees
