"""With much to read, what is not final is shown seldom; what comes out in the end is the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mrc.core.conflict import listing, partition
from mrc.resolver import loop
from tests.resolver.test_convergence import lived, lived_with_changes, lived_with_decisions
from tests.resolver.unstamped import Unstamped
from tests.resolver.world import World

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
    monkeypatch.setattr(loop, "CACHED_MAX", 0)
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
    world.clock.sleep(loop.SHOW_EVERY_S)
    for _ in range(3):  # its own marks come twice a second
        site.tick()
        world.clock.sleep(loop.MARK_EVERY_S)
    keys = {record.key for record in site.records(site.topics.topic)}
    assert {record.key for record in site.records(site.topics.resolved)} == keys
    assert provisional(world) == len(keys)
