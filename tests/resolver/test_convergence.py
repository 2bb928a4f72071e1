"""Resolvers of all regions decide alike and as the oracle does, whatever the links, the clocks and the deaths between."""

from __future__ import annotations

import os
import random

import pytest

from mrc.core.conflict.partition import Mark, Partition, Pending, Settled, Stream
from mrc.resolver.task import Counts
from tests.resolver.world import World, dying

SEEDS = max(40, int(os.environ.get("MRC_CONFLICT_HISTORIES", "20000")) // 100)
"""Worlds; each has three histories in each region."""


def judge(seed: int) -> str:
    return f"seed {seed}: {wrong}" if (wrong := lived(seed).wrong()) else ""


def lived(seed: int) -> World:
    """A world in which much has gone wrong, and everything is final now."""
    world = World(seed)
    choose = random.Random(seed + 1)
    for site in world.sites.values():
        site.cluster.before = dying(choose, 0.03)
        site.cluster.after = dying(choose, 0.03)
    for _ in range(choose.randrange(10, 200)):
        world.step()
        if choose.random() < 0.03:
            region = choose.choice(world.regions)
            site = world.sites[region]
            if "b" in site.resolvers:
                site.stop("b")
            else:
                site.start("b")
    for site in world.sites.values():
        site.cluster.before = site.cluster.after = lambda effect: None
    world.heal()
    return world


def test_all_regions_decide_alike_and_as_the_oracle_does() -> None:
    assert [words for seed in range(SEEDS) if (words := judge(seed))][:3] == []


def test_the_worlds_hold_deaths_late_events_repetitions_and_conflicts() -> None:
    worlds = [lived(seed) for seed in range(1000, 1020)]
    sites = [site for world in worlds for site in world.sites.values()]
    counts = Counts()
    for site in sites:
        for resolver in site.resolvers.values():
            counts.add(resolver.counts)
    assert sum(site.deaths for site in sites) > 20
    assert min(counts.raised, counts.came_again, counts.conflicts) > 20


def test_a_resolver_that_lets_late_events_keep_their_clocks_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(partition: Partition, stream: Stream, mark: Mark, one: Pending, done: Settled) -> None:
        del partition._unsealed[one.event.origin][one.event.id]
        partition._wait(one)

    monkeypatch.setattr(Partition, "_seal_one", keep)
    assert sum(bool(lived(seed).wrong()) for seed in range(30)) >= 3
